"""Training resumes after a kill and ends with the same bits; otherwise a night on a GPU would be lost or wrong."""

import errno
import gc
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import plugins
from pipeline.config.params import Runtime
from pipeline.config.recipe import Compute, Model, Schedule, Validation
from pipeline.errors import UserError
from pipeline.losses.cross_entropy import CrossEntropy
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TEXT
from pipeline.tasks.next_token import NextToken, Settings
from pipeline.training import state as states
from pipeline.training import state_locks
from pipeline.training.interruption import deferred_signals
from pipeline.training.loop import Parts, fit, mean_loss
from pipeline.training.progress import Progress
from pipeline.training.run import DivergedError, Trainer
from pipeline.weighting.uniform import Uniform
from tests.learners import records

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)
SHAPE = Model(
    family="llama", n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, d_model=16, d_ff=32, context_length=16,
    dropout=0.1, tie_embeddings=True, bias=False, rope_theta=10000.0, norm_epsilon=1e-5, logit_softcap=None,
)  # fmt: skip
ADAMW = {"learning_rate": 1e-2, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8}


def examples(n: int, seed: int) -> list[np.ndarray]:
    """Windows of a sequence that can be learned: each id is the one before plus one, modulo 32."""
    starts = np.random.default_rng(seed).integers(0, 32, n)
    return [(start + np.arange(17)) % 32 for start in starts]


class Log:
    """A log that keeps the steps; can interrupt training at a step."""

    def __init__(self, die_at: int | None = None) -> None:
        self.record: dict[str, Any] = {}
        self.steps: list[int] = []
        self.die_at = die_at

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.steps.append(step or 0)
        if step == self.die_at:
            raise KeyboardInterrupt


ENDS: Any = SimpleNamespace(end_of_text=0)
LEARNED = NextToken(TEXT, ENDS, Settings(mask_documents=False, logits_at_once=None))


def trainer(
    log: Log, *, steps: int = 24, log_every: int = 1, keep: str = "best", patience: int = 0, **changes: Any
) -> Trainer:
    model = GPT(ModelConfig(**SHAPE.model_dump(), vocab_size=32), torch.Generator().manual_seed(1))
    settings = plugins.settings_class("optimizers", "adamw").model_validate(ADAMW | changes)
    groups = [{"params": list(model.parameters()), "factor": 1.0, "begins": 0.0}]
    parts = Parts(
        task=LEARNED,
        loss=CrossEntropy(LEARNED),
        ordering=plugins.load("ordering", "shuffled").Shuffled(4),
        weighting=Uniform(),
        optimizer=plugins.load("optimizers", "adamw").build(settings, groups),
        schedule=Schedule(
            shape="cosine",
            steps=steps,
            warmup_steps=2,
            final_share=0.1,
            accumulate=2,
            batch_warmup_steps=0,
            clip_norm=1.0,
        ),
        compute=COMPUTE,
        seed=3,
    )
    cadence = Validation(every=6, batches=2, patience=patience, keep=keep)  # type: ignore[arg-type]
    runtime = Runtime.model_validate(
        {"log_every": log_every, "checkpoint_every": 5, "checkpoint_seconds": 1e6, "progress": False,
         "tracking": {"enabled": False, "uri": "", "experiment": ""}}
    )  # fmt: skip
    experience = records(model, parts, examples(40, 1))
    return Trainer(model, parts, experience, examples(8, 2), cadence, runtime, log, "test")


def finished(tmp_path: Path, plan: Trainer) -> tuple[dict[str, torch.Tensor], Progress]:
    torch.use_deterministic_algorithms(True)
    tmp_path.mkdir(exist_ok=True)
    progress = plan.run(states.State(tmp_path))
    return plan.model.state_dict(), progress


def test_trainer_lowers_the_loss(tmp_path: Path) -> None:
    _, progress = finished(tmp_path, trainer(Log(), steps=60))
    assert progress.best_loss < 0.7 * math.log(32)


@pytest.mark.parametrize("die_at", [1, 5, 6, 7, 13, 23])
def test_trainer_ends_with_the_same_bits_when_killed_at_any_step_and_resumed(tmp_path: Path, die_at: int) -> None:
    """Dropout, accumulation, best weights and the optimizer's moments included."""
    whole, plain = finished(tmp_path / "whole", trainer(Log()))
    torch.manual_seed(die_at)  # a resumed process starts with another global generator
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path / "cut", trainer(Log(die_at=die_at)))
    torch.manual_seed(99)
    again = trainer(Log())
    weights, progress = finished(tmp_path / "cut", again)
    assert (
        again.log.record["resumed_at_step"]
        == die_at - (1 if die_at % 5 == 0 else 0) - (die_at - (1 if die_at % 5 == 0 else 0)) % 5
    )
    assert progress.as_json() == plain.as_json()
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


class Signals(Log):
    """Sends this process a signal at a step, as `kill` would."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self.at, self.number = at, number

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        super().log(metrics, step)
        if step == self.at and "batch_loss_nats" in metrics:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 6, 13, 24])
def test_trainer_saves_before_a_signal_takes_effect(tmp_path: Path, at: int, number: int) -> None:
    """No update is lost, neither at a validation (6) nor at the last update (24)."""
    whole, plain = finished(tmp_path / "whole", trainer(Log()))
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as caught:
        finished(tmp_path / "cut", trainer(Signals(at, number)))
    assert caught.value.args == (number,)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    again = trainer(Log())
    weights, progress = finished(tmp_path / "cut", again)
    assert again.log.record["resumed_at_step"] == at
    assert progress.as_json() == plain.as_json()
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


def test_deferred_signals_end_the_process_at_the_second_signal() -> None:
    with deferred_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_trainer_gives_the_same_bits_when_it_saves_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state after every update, by the clock alone, and none but the last one: the same weights."""
    often, seldom = trainer(Log()), trainer(Log())
    often.runtime = often.runtime.model_copy(update={"checkpoint_every": 1000, "checkpoint_seconds": 1e-9})
    seldom.runtime = seldom.runtime.model_copy(update={"checkpoint_every": 1000})
    often._save_after = 0.0
    monkeypatch.setattr("pipeline.training.run.SAVING_SHARE", 0)
    saved: list[int] = []

    class Counted(states.State):
        def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
            saved.append(progress["step"])
            super().save(tensors, progress)

    often.run(Counted(tmp_path / "often"))
    seldom.run(states.State(tmp_path / "seldom"))
    assert saved == list(range(1, 25))
    assert [path.name for path in states.State(tmp_path / "seldom").saved()] == ["step-00000024"]
    assert often.progress.as_json() == seldom.progress.as_json()
    a, b = often.model.state_dict(), seldom.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_trainer_warns_and_goes_on_when_the_disk_is_full_at_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The third state does not fit, later ones do."""
    whole, _ = finished(tmp_path / "whole", trainer(Log()))
    sync, calls = os.fsync, [0]

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] == 15:  # seven a save
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    weights, _ = finished(tmp_path / "cut", trainer(Log()))
    said = capsys.readouterr().err
    assert "warning: test: the state of step 15 could not be saved in" in said
    assert "No space left on device; the newest saved one is step-00000010; free space there" in said
    assert all(torch.equal(weights[name], whole[name]) for name in whole)
    assert not list((tmp_path / "cut").glob(".*"))
    assert states.State(tmp_path / "cut").saved()[0].name == "step-00000024"


def test_trainer_saves_nothing_without_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search's trials share a folder: one must not continue another."""
    monkeypatch.chdir(tmp_path)
    trainer(Log(), steps=6).run(None)
    assert not list(tmp_path.iterdir())


def test_trainer_gives_the_same_bits_with_another_log_interval(tmp_path: Path) -> None:
    often, a = finished(tmp_path / "a", trainer(Log(), log_every=1))
    seldom, b = finished(tmp_path / "b", trainer(Log(), log_every=7))
    assert a.curve == b.curve
    assert all(torch.equal(often[name], seldom[name]) for name in often)


def test_fingerprint_differs_when_settings_inputs_or_code_differ(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("1")
    inputs, code = [tmp_path / "data"], {"pipeline/training/loop.py": "0" * 32}
    one = states.fingerprint({"recipe": {"learning_rate": 1}}, inputs, code)
    assert one == states.fingerprint({"recipe": {"learning_rate": 1}}, inputs, code)
    assert one != states.fingerprint({"recipe": {"learning_rate": 2}}, inputs, code)
    assert one != states.fingerprint({"recipe": {"learning_rate": 1}}, inputs, code | {"pipeline/tuners/new.py": ""})
    (tmp_path / "data").write_text("2")
    assert one != states.fingerprint({"recipe": {"learning_rate": 1}}, inputs, code)


def test_two_trainers_never_share_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with state_locks.locked("k"), pytest.raises(UserError, match="another process"), state_locks.locked("k"):
        pass


def test_trainer_keeps_the_best_weights_when_it_stops_early(tmp_path: Path) -> None:
    """Unrelated validation data: its loss rises during training, so the best step is not the last."""
    plan = trainer(Log(), steps=120, patience=2)
    plan.validation = [np.random.default_rng(i).integers(0, 32, 17) for i in range(8)]
    _, progress = finished(tmp_path, plan)
    assert progress.stopped_early
    assert progress.step < 120
    assert progress.best_step < progress.step
    assert progress.best_loss == min(p["validation_loss_nats"] for p in progress.curve)
    assert mean_loss(plan.model, plan.parts, plan.validation, 2) == progress.best_loss


def test_trainer_stops_with_advice_when_the_training_loss_is_not_finite(tmp_path: Path) -> None:
    plan = trainer(Log())
    with torch.no_grad():
        plan.model.embed.weight.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(UserError, match="training loss is nan at step 1"):
        finished(tmp_path, plan)


def test_trainer_stops_with_advice_when_the_validation_loss_is_not_finite(tmp_path: Path) -> None:
    """Otherwise training would end without any best weights."""
    plan = trainer(Log())
    losses = plan.parts.task.losses

    class Broken:
        collate = staticmethod(plan.parts.task.collate)
        losses = staticmethod(lambda model, batch: losses(model, batch) * (1.0 if model.training else math.nan))

    object.__setattr__(plan.parts, "task", Broken)
    with pytest.raises(DivergedError, match="test: the validation loss is nan at step 6; lower"):
        finished(tmp_path, plan)
    assert states.State(tmp_path).saved()[0].name == "step-00000005"


def test_trainer_names_a_split_without_examples(tmp_path: Path) -> None:
    plan = trainer(Log())
    plan.experience.examples = []
    with pytest.raises(UserError, match="train split gives no example"):
        finished(tmp_path, plan)


def test_fit_gives_the_update_of_one_large_batch_when_it_accumulates() -> None:
    """Two micro-batches of four move the weights as one of eight does (float32 sums differ in the last bits)."""
    small, large = trainer(Log(), steps=1), trainer(Log(), steps=1)
    for plan in (small, large):
        for module in plan.model.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
    object.__setattr__(large.parts, "schedule", large.parts.schedule.model_copy(update={"accumulate": 1}))
    object.__setattr__(large.parts, "ordering", plugins.load("ordering", "shuffled").Shuffled(8))
    next(fit(small.model, small.parts, records(small.model, small.parts, small.experience.examples)))
    next(fit(large.model, large.parts, records(large.model, large.parts, large.experience.examples)))
    for a, b in zip(small.model.parameters(), large.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_trainer_runs_the_optimizer_in_bfloat16_and_ends_with_the_same_bits_twice(tmp_path: Path) -> None:
    """Muon multiplies matrices, in the precision of the params; what is rounded is rounded alike in every run."""
    half = COMPUTE.model_copy(update={"precision": "bfloat16"})
    seen: list[bool] = []

    def run(folder: Path) -> dict[str, torch.Tensor]:
        plan = trainer(Log())
        object.__setattr__(plan.parts, "compute", half)
        step = plan.parts.optimizer.step

        def watched() -> None:
            seen.append(torch.is_autocast_enabled("cpu"))
            step()

        # a test may watch a method
        plan.parts.optimizer.step = watched  # type: ignore[method-assign]
        return finished(folder, plan)[0]

    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert len(seen) == 48
    assert all(seen)
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain, _ = finished(tmp_path / "c", trainer(Log()))
    assert any(not torch.equal(first[name], plain[name]) for name in first)


def test_trainer_validates_and_changes_nothing_when_there_are_no_steps(tmp_path: Path) -> None:
    """Open weights or a champion can be a graph's base as they are."""
    plan = trainer(Log(), steps=0)
    before = {name: p.clone() for name, p in plan.model.state_dict().items()}
    after, progress = finished(tmp_path, plan)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [point["step"] for point in progress.curve] == [0]
    assert progress.best_loss == mean_loss(plan.model, plan.parts, plan.validation, 2)


def test_trainer_gives_the_same_curve_when_losses_are_read_late(tmp_path: Path) -> None:
    """As on a GPU: losses are read when they are logged, and none is left out or misplaced."""
    usual, late = trainer(Log(), log_every=5), trainer(Log(), log_every=5)
    late._reads_late = True
    expected, found = (one.run(states.State(tmp_path / str(number))) for number, one in enumerate((usual, late)))
    assert found.curve == expected.curve
    assert found.tokens == expected.tokens
    broken = trainer(Log(), log_every=5, learning_rate=1e30)
    broken._reads_late = True
    with pytest.raises(UserError, match=r"training loss is (nan|inf) at step [234];"):
        broken.run(states.State(tmp_path / "broken"))


def test_no_garbage_is_collected_in_the_middle_of_a_step(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Watching(Log):
        def log(self, metrics: dict[str, float], step: int | None = None) -> None:
            seen.append(gc.isenabled())

    trainer(Watching(), steps=6).run(states.State(tmp_path))
    assert seen
    assert not any(seen)
    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        trainer(Log(die_at=3), steps=6).run(states.State(tmp_path / "other"))
    assert gc.isenabled()
