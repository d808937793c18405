"""A new tuner (the README's), measure and task are one file each: the tests of every variant run on them.

Lost otherwise: adding a variant would need an entry in a list, and a variant that is missing there would be untested.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.paths import CODE as ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
(TUNER,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "(Tuner)" in code)
MEASURE = '''"""Text length: the mean number of tokens of held-out labelled texts."""

from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Section
from pipeline.evaluation import Subject, records


class Settings(Section):
    """Split."""

    split: Literal["validation", "test"] = Field(examples=["test", "validation"])
    """Split of the labelled records to measure on."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """text_tokens; details: the length of every text."""
    lengths = [len(subject.tokenizer.encode(row["text"])) for row in records(subject, "labelled", settings.split)]
    return {"text_tokens": sum(lengths) / len(lengths)}, {"lengths": lengths}
'''
TASK = '''"""Last-token prediction: next-token loss on the last token of a text alone."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.model.gpt import GPT
from pipeline.tasks import (
    IGNORED, Batch, Predictions, Request, Task, TaskContext, TaskSpec, padded, predicted_tokens, require_room
)


class Settings(Section):
    """Length limit."""

    reads: ClassVar[frozenset[str]] = frozenset({"labelled"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "tokens"
    max_tokens: Positive = Field(examples=[32])
    """Longest text in tokens; at most the model's context_length."""


def build(settings: Settings, context: TaskContext) -> "LastToken":
    """The task. Raises UserError if max_tokens exceeds the context_length."""
    require_room(settings.max_tokens, context)
    spec = TaskSpec(name="last_token", max_tokens=settings.max_tokens, max_prompt_tokens=settings.max_tokens)
    return LastToken(spec, context.tokenizer)


def of(spec: TaskSpec, tokenizer: Any) -> "LastToken":
    """The task of a trained model."""
    return LastToken(spec, tokenizer)


class LastToken(Task):
    """Next-token prediction at the end of a text."""

    def prompt(self, request: Request) -> list[int]:
        """Ids of the text, the last `max_prompt_tokens` of them."""
        return self.tokenizer.encode(request.text)[-self.spec.max_prompt_tokens :]

    def example(self, record: Mapping[str, Any]) -> list[int]:
        """Ids of the text."""
        return self.prompt(Request(record["text"]))

    def collate(self, examples: Sequence[list[int]]) -> Batch:
        """inputs_BT padded on the right, targets_BT IGNORED on all but the last token."""
        inputs = padded([ids[:-1] for ids in examples], self.tokenizer.pad)
        targets = padded([[IGNORED] * (len(ids) - 2) + ids[-1:] for ids in examples], IGNORED)
        return {"inputs": inputs, "targets": targets}

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The last token of every text."""
        return predicted_tokens(model, batch)
'''
FILES = {
    "pipeline/tuners/norms.py": TUNER,
    "pipeline/evaluation/text_length.py": MEASURE,
    "pipeline/tasks/last_token.py": TASK,
}
TESTS = ["tests/tuners/test_tuners.py", "tests/evaluation/test_every_measure.py", "tests/tasks/test_tasks.py"]


def test_new_variants_pass_the_tests_of_every_variant_when_only_their_files_are_added(tmp_path: Path) -> None:
    for name in ("pipeline", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, code in FILES.items():
        (tmp_path / path).write_text(code, encoding="utf-8")
    chosen = " or ".join(Path(path).stem for path in FILES)
    command = [sys.executable, "-m", "pytest", "-rp", "-p", "no:cacheprovider", "-k", chosen, *TESTS]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.findall(r"^PASSED .*::(test_\w+)\[.*\b(norms|text_length|last_token)\b.*\]$", done.stdout, re.M)
    assert {name for _, name in passed} == {"norms", "text_length", "last_token"}
    assert (
        sum(name == "norms" for _, name in passed) == 13
    )  # six families with norms that have weights, with and without a head; one start
    assert sum(name == "text_length" for _, name in passed) == 2  # two example splits
    assert {test for test, name in passed if name == "last_token"} == {
        "test_every_task_gives_a_loss_per_example_and_lowers_it",
        "test_every_task_gives_an_example_the_same_loss_alone_and_in_a_batch",
        "test_every_task_has_predictions_that_give_its_losses",
        "test_a_task_refuses_more_tokens_than_the_context",
        "test_every_task_of_a_trained_model_asks_as_in_training",
    }
