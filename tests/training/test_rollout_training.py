"""Training on rollouts: same bits after a kill at any moment, modules trained and kept out of the model."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import plugins
from pipeline.config.params import Runtime
from pipeline.config.recipe import Schedule, Validation
from pipeline.experience import Context
from pipeline.training import state as states
from pipeline.training.build import _groups
from pipeline.training.loop import Parts
from pipeline.training.run import Trainer
from pipeline.training.schedule import micro_batches
from pipeline.weighting.uniform import Uniform
from tests.learners import COMPUTE, small
from tests.rollouts import Lengths, Reinforce, learner
from tests.training.test_run import ADAMW, Log
from tests.variants import build


class Killed(Lengths):
    """A judge that is interrupted at a call: while the buffer is filled, or at a validation."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at = at

    def scores(self, judged: Any) -> torch.Tensor:
        found = super().scores(judged)
        if self.calls == self.at:
            raise KeyboardInterrupt
        return found


def trainer(log: Log, judge: Any = None, keep: str = "best", steps: int = 9) -> Trainer:
    """Blocks of 3 updates of 2 micro-batches; a validation every 3 updates, a saved state every 2."""
    one = learner(small(0), judge)
    schedule = Schedule(
        shape="cosine", steps=steps, warmup_steps=2, final_share=0.1, accumulate=2, batch_warmup_steps=0, clip_norm=1.0
    )
    loss, ordering = Reinforce(one), plugins.load("ordering", "shuffled").Shuffled(3)
    context = Context(one, ordering, loss, partial(micro_batches, schedule), 5, one.examples, "finetune.tried")
    chosen = {"prompts": 3, "samples": 3, "updates": 3, "max_tokens": 4, "temperature": 1.0}
    groups = [{"params": list(one.model.parameters()), "factor": 1.0, "begins": 0.0}, *_groups(loss.modules)]
    optimizer = build("optimizers", "adamw", groups, **ADAMW)
    parts = Parts(one.task, loss, ordering, Uniform(), optimizer, schedule, COMPUTE, 3)  # type: ignore[arg-type]
    runtime = Runtime.model_validate(
        {"log_every": 1, "checkpoint_every": 2, "checkpoint_seconds": 1e6, "progress": False,
         "tracking": {"enabled": False, "uri": "", "experiment": ""}}
    )  # fmt: skip
    cadence = Validation(every=3, batches=1, patience=0, keep=keep)  # type: ignore[arg-type]
    experience = build("experience", "rollouts", context, **chosen)
    return Trainer(one.model, parts, experience, one.examples, cadence, runtime, log, "tried")


def finished(folder: Path, plan: Trainer) -> tuple[dict[str, torch.Tensor], Any]:
    torch.use_deterministic_algorithms(True)
    folder.mkdir(exist_ok=True)
    progress = plan.run(states.State(folder))
    modules = {f"modules.{name}": p for name, p in plan.parts.loss.modules.state_dict().items()}
    return plan.model.state_dict() | modules, progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Any]:
    return finished(tmp_path_factory.mktemp("whole") / "state", trainer(Log()))


@pytest.mark.parametrize("moment", ["update 1", "update 2", "update 5", "update 6", "judge 2", "judge 3", "judge 5"])
def test_training_ends_with_the_same_bits_when_killed_in_a_block_in_a_rollout_or_in_a_validation(
    whole: tuple[dict[str, torch.Tensor], Any], tmp_path: Path, moment: str
) -> None:
    """Calls of the judge: 1, 2, 4 and 6 fill a buffer or validate in turn."""
    expected, plain = whole
    kind, at = moment.split()
    cut = trainer(Log(die_at=int(at) if kind == "update" else None), Killed(int(at) if kind == "judge" else None))
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path / "cut", cut)
    torch.manual_seed(99)
    again = trainer(Log())
    found, progress = finished(tmp_path / "cut", again)
    assert json.dumps(progress.as_json()) == json.dumps(plain.as_json())  # the order too: columns of the curve's file
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_curve_has_the_figures_of_validation_and_the_log_those_of_blocks(tmp_path: Path) -> None:
    logged: list[dict[str, float]] = []

    class Kept(Log):
        def log(self, metrics: dict[str, float], step: int | None = None) -> None:
            logged.append(metrics)

    plan = trainer(Kept())
    _, progress = finished(tmp_path / "state", plan)
    point = progress.curve[-1]
    assert point["validation_loss_nats"] == -point["validation_reward"]
    assert {"validation_answer_tokens", "validation_ended_share"} <= point.keys()
    assert progress.best_loss == -max(one["validation_reward"] for one in progress.curve)
    assert {"block_reward", "block_kl_nats", "block_groups_without_spread"} <= logged[0].keys()


def test_modules_of_a_loss_are_trained_and_saved_and_a_state_without_them_is_refused(tmp_path: Path) -> None:
    plan = trainer(Log())
    finished(tmp_path / "state", plan)
    tensors = plan._tensors(best={})
    assert float(tensors["modules.mean.bias"].detach()) != 0
    assert "modules.mean.bias" not in plan.model.state_dict()
    copied = {name: tensor.clone() for name, tensor in tensors.items()}
    assert trainer(Log())._mismatch(copied, plan.progress.as_json()) is None
    del copied["modules.mean.bias"]
    assert trainer(Log())._mismatch(copied, plan.progress.as_json()) == "modules.mean.bias is missing"
    damaged = tensors | {"experience.scores": torch.zeros(4)}
    reason = trainer(Log())._mismatch(damaged, plan.progress.as_json())
    assert reason == "its buffer: scores is of 4 rollouts, a block of this run has 9"
