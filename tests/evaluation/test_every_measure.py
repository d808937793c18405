"""Every measure in the folder, on one small model and a few records of each kind, with its own example settings."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import files
from pipeline.config import plugins
from pipeline.evaluation import Subject
from pipeline.prompts.spec import TaskSpec
from pipeline.tasks import open_task
from tests.evaluation import benchmark_files
from tests.evaluation.test_measures import COMPUTE, TOKENIZER, write_documents, write_labelled
from tests.models import network
from tests.specs import ANSWERS, SPAM, changed
from tests.variants import Variant, variants

MEASURES = variants("evaluation")
SECRET = "code is 493 027 518"  # the example pattern of measure `exposure`
TEXTS = ["kısa", f"the {SECRET}, he said", "orta boy bir ışık"]
MESSAGES = [("ödül kazandın", "spam", "tr"), ("akşama gel", "ham", "tr"), ("a prize for you", "spam", "en")]
EV = TaskSpec(name="multi_label", labels=("ev", "iş"), max_tokens=16, max_prompt_tokens=16)
NUMBER = TaskSpec(name="regress", mean=2.0, deviation=1.0, max_tokens=16, max_prompt_tokens=16)
TASKS = (
    open_task(changed(SPAM, max_tokens=16, max_prompt_tokens=16), TOKENIZER),  # type: ignore[arg-type]
    open_task(changed(ANSWERS, template="alpaca", max_tokens=120, max_prompt_tokens=100), TOKENIZER),  # type: ignore[arg-type]
)


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A classifier that also answers instructions, as a merged model does, and samples of every kind."""
    monkeypatch.chdir(tmp_path)
    write_documents(tmp_path / "documents", TEXTS, [10.0, None, 30.0], ["a", "a", "b"])
    write_labelled(tmp_path / "labelled", MESSAGES)
    rows = [
        {"id": f"{language}{i}", "instruction": f"q{i}", "input": "", "output": output, "language": language}
        | {"source": "own"}
        for language in ("tr", "en")
        for i, output in enumerate((SECRET, "no"))
    ]
    benchmark_files.write(tmp_path)
    (tmp_path / "instructions").mkdir()
    for split in ("train", "validation", "test"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"instructions/{split}.parquet")
    (tmp_path / "preferences").mkdir()
    pairs = [row | {"chosen": "yes, of course", "rejected": row["output"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "preferences/test.parquet")
    weights = [("w:1:wrong", 0.2, 3.0), ("w:2", 1.5, 3.0)]
    columns = map(list, zip(*weights, strict=True))
    files.write_table(
        Path("models/m/weights.parquet"), pa.table(dict(zip(("origin", "weight", "seen"), columns, strict=True)))
    )
    model = network("llama", labels=2, vocab_size=TOKENIZER.vocab_size, context_length=128).eval()
    return Subject("m", model, TOKENIZER, TASKS, tmp_path, COMPUTE)  # type: ignore[arg-type]  # a tokenizer of bytes


CELLS = {"multi_label": (["[]", '["ev", "iş"]', '["ev"]'], EV), "regression": (["1", "2.5", "4"], NUMBER)}
"""Measure -> label cells of the records, and the task that it measures."""
REWARD = TaskSpec(name="reward", template="alpaca", max_tokens=120, max_prompt_tokens=100)


@pytest.mark.parametrize("variant", MEASURES, ids=str)
def test_every_measure_gives_finite_metrics_twice_the_same_and_details_as_json(
    variant: Variant, subject: Subject
) -> None:
    """Lost otherwise: an evaluation would end in an error, or two clean runs would differ."""
    if variant.name in CELLS:
        cells, spec = CELLS[variant.name]
        rows = [(text, cell, code) for (text, _, code), cell in zip(MESSAGES, cells, strict=True)]
        write_labelled(subject.samples / "labelled", rows)
        model = network("llama", labels=len(spec.outputs), vocab_size=TOKENIZER.vocab_size, context_length=128).eval()
        subject = subject._replace(model=model, tasks=(open_task(spec, subject.tokenizer),))
    if variant.name == "reward_pairs":
        model = network("llama", labels=1, vocab_size=TOKENIZER.vocab_size, context_length=128).eval()
        subject = subject._replace(model=model, tasks=(open_task(REWARD, subject.tokenizer),))
    settings = plugins.settings_class("evaluation", variant.name)(**variant.settings)
    measure = plugins.load("evaluation", variant.name).measure
    (metrics, details, *_), again = measure(settings, subject), measure(settings, subject)
    assert metrics
    assert all(isinstance(name, str) and math.isfinite(value) for name, value in metrics.items())
    assert (metrics, json.dumps(details)) == (again[0], json.dumps(again[1]))
