"""Losses on preferences and thumbs: the values of TRL's trainers, and the formulas where TRL has none."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.contracts import IGNORED, Batch, Learner
from pipeline.model import checkpoint
from pipeline.prompts.spec import TaskSpec
from pipeline.tasks.preference import Preference
from pipeline.tasks.reward import Reward
from pipeline.tasks.thumbs import Thumbs
from tests.golden import preference_losses as golden
from tests.learners import COMPUTE
from tests.variants import build

TRL = json.loads(golden.FILE.read_text())["losses"]
TOKENIZER: Any = SimpleNamespace(pad=golden.PAD, end_of_text=golden.END)
SPEC = TaskSpec(name="instruct", template="chat", max_tokens=32, max_prompt_tokens=16)
REWARD_SPEC = SPEC.model_copy(update={"name": "reward"})
PAIRS = golden.pairs()


def row(prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
    return prompt + answer, [IGNORED] * len(prompt) + answer


EXAMPLES: dict[str, list[Any]] = {
    "dpo": [
        [row(pair["prompt_ids"], pair["chosen_ids"]), row(pair["prompt_ids"], pair["rejected_ids"])] for pair in PAIRS
    ],
    "kto": [([row(one["prompt_ids"], one["completion_ids"])], [one["label"]]) for one in golden.thumbs()],
    "bradley_terry": [
        [pair["prompt_ids"] + pair["chosen_ids"], pair["prompt_ids"] + pair["rejected_ids"]] for pair in PAIRS
    ],
}
TASKS: dict[str, Any] = {
    "dpo": Preference(SPEC, TOKENIZER),
    "kto": Thumbs(SPEC, TOKENIZER),
    "bradley_terry": Reward(REWARD_SPEC, TOKENIZER),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    golden.write_model(folder / "start")
    golden.write_model(folder / "reference", 0.9)
    golden.write_model(folder / "reward", head=False)
    return folder


class Trained:
    """A loss on the golden pairs, with the columns of its table."""

    def __init__(self, name: str, folders: Path, examples: list[Any] | None = None, **settings: Any) -> None:
        self.examples = EXAMPLES[name] if examples is None else examples
        self.task, start = TASKS[name], "reward" if name == "bradley_terry" else "start"
        self.model = checkpoint.load(folders / start)
        self.model.train()
        learner = Learner(
            self.model, self.task, self.examples, COMPUTE, TOKENIZER,  # type: ignore[arg-type]
            lambda: checkpoint.load(folders / "reference"),
        )  # fmt: skip
        fixed = {} if name == "bradley_terry" else {"beta": golden.BETA}
        self.loss = build("losses", name, learner, **fixed | settings)
        self.columns = self.loss.columns(self.model, self.examples)

    def batch(self, rows: list[int]) -> Batch:
        collated: Batch = self.task.collate([self.examples[i] for i in rows])
        return collated | {name: column_E[rows] for name, column_E in self.columns.items()}

    def losses(self, rows: list[int]) -> Tensor:
        losses_B: Tensor = self.loss.losses(self.model, self.batch(rows))
        return losses_B

    def updates(self, number: int) -> Iterator[float]:
        """The loss of every update, before it."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=golden.RATE, betas=(0.9, 0.95), weight_decay=0.0)
        for update in range(number):
            first = update * golden.BATCH % len(self.examples)
            loss = self.losses(list(range(first, first + golden.BATCH))).mean()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimizer.step()
            optimizer.zero_grad()
            yield float(loss.detach())


@pytest.mark.parametrize(
    ("golden_name", "loss", "settings"),
    [
        ("sigmoid", "dpo", {}),
        ("ipo", "dpo", {"form": "ipo", "length_normalised": True}),
        ("robust", "dpo", {"form": "robust", "label_smoothing": 0.2}),
        ("length_normalised", "dpo", {"length_normalised": True}),
        ("kto", "kto", {}),
        ("kto_weighted", "kto", {"desirable_weight": 1.5, "undesirable_weight": 0.75}),
        ("reward", "bradley_terry", {}),
        ("reward_centered", "bradley_terry", {"center": 0.01}),
    ],
)
def test_a_loss_is_that_of_trl_over_fifty_updates(
    golden_name: str, loss: str, settings: dict[str, Any], folders: Path
) -> None:
    """The first loss to 1e-6, all of them to 1e-4, relative to losses above 1 (ipo's is 25)."""
    trained, expected = Trained(loss, folders, **settings), TRL[golden_name]
    found = list(trained.updates(golden.UPDATES))
    assert found[0] == pytest.approx(expected[0], rel=1e-6, abs=1e-6)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert abs(expected[-1] - expected[0]) > 100e-4  # else fifty updates would show nothing
