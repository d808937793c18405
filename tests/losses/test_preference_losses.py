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
from pipeline.errors import UserError
from pipeline.losses.kto import mismatched
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


def swapped(batch: Batch) -> Batch:
    """The batch with chosen and rejected answers swapped, the columns of the reference too."""
    turned = {name: torch.cat(batch[name].chunk(2)[::-1]) for name in ("inputs", "targets")}
    return turned | {"reference_chosen": batch["reference_rejected"], "reference_rejected": batch["reference_chosen"]}


def with_prompt_tokens(batch: Batch) -> Batch:
    """Every token is a target, those of prompts too."""
    ids_ST = torch.cat((batch["inputs"][:, 1:], batch["targets"][:, -1:]), dim=1)
    taught_ST = batch["targets"] != IGNORED
    last_ST = taught_ST.flip(1).cumsum(1).flip(1) > 0  # up to the end of the answer
    return batch | {"targets": torch.where(taught_ST, batch["targets"], torch.where(last_ST, ids_ST, IGNORED))}


def with_padding(batch: Batch) -> Batch:
    """Padding after an answer is a target."""
    after_ST = (batch["targets"] != IGNORED).cumsum(1).gt(0) & (batch["targets"] == IGNORED)
    return batch | {"targets": torch.where(after_ST, golden.PAD, batch["targets"])}


BROKEN = {
    "chosen and rejected swapped": swapped,
    "reference left out": lambda batch: batch | {
        name: torch.zeros_like(batch[name]) for name in ("reference_chosen", "reference_rejected")
    },
    "reference of the next pair": lambda batch: batch | {
        name: batch[name].roll(1) for name in ("reference_chosen", "reference_rejected")
    },
    "reference of the other answer": lambda batch: batch | {
        "reference_chosen": batch["reference_rejected"], "reference_rejected": batch["reference_chosen"]
    },
    "prompt tokens counted in": with_prompt_tokens,
    "padding counted in": with_padding,
}  # fmt: skip


@pytest.mark.parametrize("bug", list(BROKEN))
def test_dpo_with_a_planted_bug_is_not_trls(bug: str, folders: Path) -> None:
    """The comparison above would see each of these. Summed, the prompt is in both answers and cancels out."""
    normalised = bug == "prompt tokens counted in"
    trained = Trained("dpo", folders, length_normalised=normalised)
    expected = TRL["length_normalised" if normalised else "sigmoid"][0]
    batch = trained.batch([0, 1, 2, 3])
    with torch.no_grad():
        right, wrong = (float(trained.loss.losses(trained.model, one).mean()) for one in (batch, BROKEN[bug](batch)))
    assert right == pytest.approx(expected, abs=1e-6)
    assert abs(wrong - expected) > 1e-3


def test_dpo_by_the_mean_over_tokens_is_not_that_by_their_sum(folders: Path) -> None:
    for settings in ({}, {"form": "ipo"}):
        summed, mean = (
            Trained("dpo", folders, length_normalised=normalised, **settings).losses([0, 1, 2, 3]).detach()
            for normalised in (False, True)
        )
        assert float((summed - mean).abs().min()) > 1e-4


def test_dpo_losses_are_those_of_the_formulas_by_hand(folders: Path) -> None:
    """cDPO and the likelihood term, which TRL has in other forms; log-probabilities by a pass over each answer."""
    trained = Trained("dpo", folders, label_smoothing=0.1, sft_weight=0.5)
    reference = checkpoint.load(folders / "reference")
    expected = []
    for pair in PAIRS[:4]:
        gains, means = [], []
        for key in ("chosen_ids", "rejected_ids"):
            prompt, answer = pair["prompt_ids"], pair[key]
            sums = []
            for model in (trained.model, reference):
                logits = model(torch.tensor([prompt + answer]))[0].log_softmax(-1)
                steps = [logits[len(prompt) - 1 + place, token] for place, token in enumerate(answer)]
                sums.append(torch.stack(steps).sum())
            gains.append(sums[0] - sums[1])
            means.append(sums[0] / len(answer))
        d = golden.BETA * (gains[0] - gains[1])
        expected.append(-0.9 * torch.log(torch.sigmoid(d)) - 0.1 * torch.log(torch.sigmoid(-d)) - 0.5 * means[0])
    torch.testing.assert_close(trained.losses([0, 1, 2, 3]), torch.stack(expected))


@pytest.mark.parametrize("name", ["dpo", "bradley_terry", "kto"])
def test_validation_gives_figures_that_do_not_depend_on_the_batches(name: str, folders: Path) -> None:
    trained = Trained(name, folders)
    trained.model.eval()
    rows = list(range(len(trained.examples)))
    whole = trained.loss.validate(trained.model, [trained.batch(rows)])
    if name == "kto":  # z0 is of a micro-batch
        assert set(whole) == {"loss", "thumb_accuracy", "margin", "z0_nats"}
        assert whole["loss"] == pytest.approx(trained.losses(rows).mean().item(), abs=1e-6)
        return
    parts = trained.loss.validate(trained.model, [trained.batch(rows[:5]), trained.batch(rows[5:])])
    assert whole == pytest.approx(parts, abs=1e-6)
    assert set(whole) == {"loss", "pair_accuracy", "margin"}
    assert whole["loss"] == pytest.approx(trained.losses(rows).mean().item(), abs=1e-6)
    for _ in trained.updates(30):
        pass
    trained.model.eval()
    later = trained.loss.validate(trained.model, [trained.batch(rows)])
    assert later["pair_accuracy"] > max(whole["pair_accuracy"], 0.9)
    assert later["margin"] > whole["margin"] + 0.5


def test_validation_counts_equal_rewards_as_half_right(folders: Path) -> None:
    """A model that is its own reference prefers nothing."""
    trained = Trained("dpo", folders)
    trained.model.load_state_dict(checkpoint.load(folders / "reference").state_dict())
    figures = trained.loss.validate(trained.model.eval(), [trained.batch([0, 1, 2, 3])])
    assert figures == {"loss": pytest.approx(0.6931472), "pair_accuracy": 0.5, "margin": pytest.approx(0, abs=1e-6)}


def test_kto_counts_answers_at_the_reference_point_as_half_right(folders: Path) -> None:
    """By rounding alone they would be on either side of it."""
    trained = Trained("kto", folders)
    trained.model.load_state_dict(checkpoint.load(folders / "reference").state_dict())
    batch = trained.batch([0, 1, 2, 3])
    noise_B = torch.tensor([1e-6, -1e-6, 2e-6, 1e-6])
    figures = trained.loss.validate(
        trained.model.eval(), [batch | {"reference_first": batch["reference_first"] + noise_B}]
    )
    assert figures["thumb_accuracy"] == 0.5


def test_reference_log_probabilities_are_computed_once_and_do_not_follow_the_model(folders: Path) -> None:
    trained = Trained("dpo", folders)
    before = {name: column.clone() for name, column in trained.columns.items()}
    list(trained.updates(3))
    again = trained.loss.columns(trained.model, trained.examples)
    for name, column_E in before.items():
        assert column_E.shape == (len(PAIRS),)
        torch.testing.assert_close(again[name], column_E, rtol=0, atol=0)
    alone = trained.loss.columns(trained.model, trained.examples[:1])
    torch.testing.assert_close(alone["reference_chosen"], before["reference_chosen"][:1])


def test_mismatched_puts_every_answer_behind_the_next_rows_prompt() -> None:
    batch = mismatched(TASKS["kto"].collate(EXAMPLES["kto"][:4]), golden.PAD, golden.CONTEXT)
    rows = golden.thumbs()[:4]
    for place, row_ in enumerate(rows):
        prompt, answer = row_["prompt_ids"], rows[place - 1]["completion_ids"]
        ids, targets = row(prompt, answer)
        padding = batch["inputs"].shape[1] - len(ids) + 1
        assert batch["inputs"][place].tolist() == ids[:-1] + [golden.PAD] * padding
        assert batch["targets"][place].tolist() == targets[1:] + [IGNORED] * padding


def test_mismatched_cuts_an_answer_that_the_context_has_no_room_for() -> None:
    batch = mismatched(TASKS["kto"].collate(EXAMPLES["kto"][:4]), golden.PAD, 6)
    assert batch["inputs"].shape == batch["targets"].shape == (4, 6)


BROKEN_KTO: dict[str, Any] = {
    "thumbs swapped": lambda batch: batch | {"good": ~batch["good"]},
    "reference left out": lambda batch: batch | {"reference_first": torch.zeros_like(batch["reference_first"])},
    "prompt tokens counted in": with_prompt_tokens,
    "padding counted in": with_padding,
}


@pytest.mark.parametrize("bug", list(BROKEN_KTO))
def test_kto_with_a_planted_bug_is_not_trls(bug: str, folders: Path) -> None:
    trained = Trained("kto", folders)
    wrong = trained.loss.losses(trained.model, BROKEN_KTO[bug](trained.batch([0, 1, 2, 3]))).mean()
    assert abs(wrong.item() - TRL["kto"][0]) > 1e-3


def test_kto_without_its_reference_point_is_not_trls(folders: Path) -> None:
    """z0 is above 0 after some updates, so that a loss without it is another one; at the start it is clamped to 0."""
    found = {}
    for name in ("with", "without"):
        trained = Trained("kto", folders)
        if name == "without":
            trained.loss._z0 = lambda *_: torch.zeros(())
        found[name] = list(trained.updates(20))
    assert found["with"] == pytest.approx(TRL["kto"][:20], abs=1e-4)
    assert max(abs(a - b) for a, b in zip(found["without"], TRL["kto"], strict=False)) > 1e-3


def test_kto_of_preferences_is_the_mean_over_both_answers(folders: Path) -> None:
    pairs = [(pair, [True, False]) for pair in EXAMPLES["dpo"][:4]]
    trained = Trained("kto", folders, pairs)
    batch = trained.batch([0, 1, 2, 3])
    assert batch["good"].shape == (2, 4)
    z0 = trained.loss._z0(trained.model, batch)
    answers = [pair[place] for place in (0, 1) for pair, _ in pairs]
    alone = [TASKS["kto"].collate([([answer], [True])]) for answer in answers]
    lengths = [sum(i >= 0 for i in targets) for _, targets in answers]
    means = torch.cat([trained.task.losses(trained.model, one) for one in alone])
    logprobs_S = -means * torch.tensor(lengths)
    gained = logprobs_S - torch.cat((batch["reference_first"], batch["reference_second"]))
    good, bad = gained.chunk(2)
    expected = (2 - torch.sigmoid(golden.BETA * (good - z0)) - torch.sigmoid(golden.BETA * (z0 - bad))) / 2
    torch.testing.assert_close(trained.loss.losses(trained.model, batch), expected)


def test_kto_refuses_a_single_prompt(folders: Path) -> None:
    """Its own answer would stand for a mismatched one, so that the reward would always be near z0."""
    with pytest.raises(UserError, match=r"ordering.batch_size is 1; raise it"):
        Trained("kto", folders).losses([0])


BROKEN_REWARD: dict[str, Any] = {
    "chosen and rejected swapped": lambda batch: {name: torch.cat(x.chunk(2)[::-1]) for name, x in batch.items()},
    "end of the answer not read": lambda batch: batch | {"lengths": batch["lengths"] - 1},
    "padding read": lambda batch: batch | {"lengths": torch.full_like(batch["lengths"], batch["inputs"].shape[1])},
}


@pytest.mark.parametrize("bug", list(BROKEN_REWARD))
def test_bradley_terry_with_a_planted_bug_is_not_trls(bug: str, folders: Path) -> None:
    trained = Trained("bradley_terry", folders)
    wrong = trained.loss.losses(trained.model, BROKEN_REWARD[bug](trained.batch([0, 1, 2, 3]))).mean()
    assert abs(wrong.item() - TRL["reward"][0]) > 1e-3


def test_bradley_terry_has_centred_rewards_only_with_center(folders: Path) -> None:
    """Without it a constant may be added to all rewards."""
    plain, centred = (Trained("bradley_terry", folders, center=center) for center in (0.0, 0.5))
    for trained in (plain, centred):
        with torch.no_grad():
            shift = trained.model.score.weight.new_zeros(1)
        trained.model.score.bias = torch.nn.Parameter(shift + 5.0)
    assert plain.losses([0, 1, 2, 3]).mean().item() == pytest.approx(TRL["reward"][0], abs=1e-6)
    assert centred.losses([0, 1, 2, 3]).mean().item() > 40


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"form": "ipo", "label_smoothing": 0.1}, "form ipo, which has none"),
        ({"form": "robust"}, "form robust needs the share of swapped pairs"),
    ],
)
def test_dpo_refuses_smoothing_that_its_form_does_not_use(settings: dict[str, Any], words: str, folders: Path) -> None:
    with pytest.raises(ValueError, match=words):
        Trained("dpo", folders, **settings)
