"""Trainings that learn from their own answers, killed by SIGKILL at random moments and continued.

Each try is a small training by grpo or ppo, a process that saves its state every two updates and dies while it draws
answers, scores them, computes columns, updates, validates or saves; one in four is killed a second time. The process
that continues must end with the weights, loss modules and curve of a training that was never killed, and every block of
prompts must be that of the undisturbed training: none lost, none asked twice within a pass.
"""

import gc
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from pipeline.config import plugins
from pipeline.config.params import Runtime
from pipeline.config.recipe import Schedule, Validation
from pipeline.contracts import Judged
from pipeline.experience import Context
from pipeline.training import state as states
from pipeline.training.build import _groups
from pipeline.training.loop import Parts
from pipeline.training.run import Trainer
from pipeline.training.schedule import micro_batches
from pipeline.weighting.uniform import Uniform
from tests.learners import COMPUTE, small
from tests.rollouts import QUESTIONS, Lengths, learner
from tests.training.test_run import ADAMW, Log
from tests.variants import build

PROMISE = "a training on its own answers that is killed at any moment ends with equal bits; no prompt lost or repeated"
COUNT = 20
STEPS, PROMPTS, BLOCK = 18, 3, 3
LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {
        "baseline": "group", "standardise": False, "divisor": "tokens", "clip": {"low": 0.2, "high": 0.2},
        "kl": {"weight": 0.05, "form": "k1_in_reward"},
    },
    "ppo": {
        "gamma": 1.0, "gae_lambda": 0.95, "clip": {"low": 0.2, "high": 0.2}, "value": {"weight": 0.5, "clip": 0.2},
        "whiten": True, "kl_weight": 0.05, "entropy": 0.0,
    },
}  # fmt: skip
MOMENTS = ("drawing", "updating", "validating", "saving")


def trainer(loss_name: str, at: Callable[[str], None]) -> Trainer:
    """Blocks of 3 updates of 2 micro-batches, a validation every 3 updates, a state every 2.

    `at` is told the moment.
    """
    one = replace(learner(small(0), Lengths(_score)), reference=lambda: small(0))
    schedule = Schedule(
        shape="cosine", steps=STEPS, warmup_steps=2, final_share=0.1, accumulate=2, batch_warmup_steps=0, clip_norm=1.0
    )
    loss = build("losses", loss_name, one, **LOSSES[loss_name])
    ordering = plugins.load("ordering", "shuffled").Shuffled(4)
    context = Context(one, ordering, loss, partial(micro_batches, schedule), 5, one.examples, "finetune.killed")
    chosen = {"prompts": PROMPTS, "samples": 4, "updates": BLOCK, "max_tokens": 16, "temperature": 1.0}
    groups = [{"params": list(one.model.parameters()), "factor": 1.0, "begins": 0.0}, *_groups(loss.modules)]
    optimizer = build("optimizers", "adamw", groups, **ADAMW)
    parts = Parts(one.task, loss, ordering, Uniform(), optimizer, schedule, COMPUTE, 3)  # type: ignore[arg-type]
    runtime = Runtime.model_validate(
        {"log_every": 1, "checkpoint_every": 2, "checkpoint_seconds": 1e6, "progress": False,
         "tracking": {"enabled": False, "uri": "", "experiment": ""}}
    )  # fmt: skip
    cadence = Validation(every=3, batches=1, patience=0, keep="best")
    experience = build("experience", "rollouts", context, **chosen)
    plan = Trainer(one.model, parts, experience, one.examples, cadence, runtime, Log(), "killed")
    for owner, method, moment in (
        (experience, "begin", "drawing"), (experience, "held_out", "validating"), (plan, "_save", "saving"),
    ):  # fmt: skip
        setattr(owner, method, _told(getattr(owner, method), moment, at))
    return plan


def _score(judged: Judged) -> float:
    """A score that differs between the answers to a prompt."""
    return float(sum(judged.answer) % 7)


def _told(method: Callable[..., Any], moment: str, at: Callable[[str], None]) -> Callable[..., Any]:
    """The method, which tells when it begins and ends."""

    def wrapped(*given: Any, **named: Any) -> Any:
        at(moment)
        made = method(*given, **named)
        at("updating")
        return made

    return wrapped


def child(loss_name: str, folder: Path, ready: Any, moment: Any) -> None:
    """Trains to the end in `folder`, where a state may be; writes weights, curve and the prompts of every block."""
    os.setpgrp()
    torch.use_deterministic_algorithms(True)

    def at(name: str) -> None:
        moment.value = MOMENTS.index(name)

    plan = trainer(loss_name, at)
    blocks: Any = plan.experience
    fill = blocks._filled

    def filled(model: Any, block: int) -> Any:
        buffer = fill(model, block)
        asked = [QUESTIONS[int(row)]["id"] for row in buffer.records_E]
        with (folder / "blocks").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([block, list(dict.fromkeys(asked))]) + "\n")
        return buffer

    blocks._filled = filled
    torch.manual_seed(random.randrange(2**31))  # a run may not depend on it
    (folder / "state").mkdir(exist_ok=True)
    ready.set()
    progress = plan.run(states.State(folder / "state"))
    tensors = plan.model.state_dict() | {f"modules.{n}": t for n, t in plan.parts.loss.modules.state_dict().items()}
    torch.save({"tensors": tensors, "progress": json.dumps(progress.as_json())}, folder / "ended.tmp")
    (folder / "ended.tmp").rename(folder / "ended")


def run(count: int, folder: Path) -> dict[str, Any]:
    """Kills `count` trainings, continues them, and compares."""
    torch.set_num_threads(1)
    gc.freeze()  # else half of a child's time is a collection of what it inherited
    whole = {name: _whole(name, folder / f"whole-{name}") for name in LOSSES}
    rng, misses, moments, twice = random.Random(26), [], dict.fromkeys(MOMENTS, 0), 0
    for number in range(count):
        name = sorted(LOSSES)[number % len(LOSSES)]
        seconds, expected, blocks = whole[name]
        place = folder / str(number)
        moment = None
        while moment is None:  # a training that ended before its moment came does not count
            _clear(place)
            moment = _killed(name, place, rng.uniform(0, seconds))
        moments[moment] += 1
        if rng.random() < 0.25:
            twice += _killed(name, place, rng.uniform(0, seconds / 2)) is not None
        if not (place / "ended").exists():
            _child(name, place).join()
        misses += [f"kill {number}, {name} while {moment}: {one}" for one in _faults(place, expected, blocks)]
        _clear(place)
    return {
        "tried": count, "held": count - len({one.split(":")[0] for one in misses}), "killed_while": moments,
        "killed_twice": twice, "misses": misses[:5],
    }  # fmt: skip


def _whole(name: str, folder: Path) -> tuple[float, dict[str, Any], dict[int, list[str]]]:
    """Seconds, end and prompts by block of a training that is never killed; raises where they are not in passes."""
    folder.mkdir()
    process = _child(name, folder)
    began = time.perf_counter()
    process.join()
    seconds = time.perf_counter() - began
    blocks = _blocks(folder)
    asked = [identity for block in sorted(blocks) for identity in blocks[block][0]]
    passes = [asked[first : first + len(QUESTIONS)] for first in range(0, len(asked), len(QUESTIONS))]
    assert len(blocks) == STEPS // BLOCK, blocks
    assert all(len(set(one)) == len(one) for one in passes), passes
    return seconds, _ended(folder), {block: lists[0] for block, lists in blocks.items()}


def _child(name: str, folder: Path, moment: Any = None) -> Any:
    """A process that trains; it has built everything when this returns."""
    forked = get_context("fork")  # importing takes longer than the training
    ready = forked.Event()
    shared = moment if moment is not None else forked.Value("i", 1, lock=False)
    process = forked.Process(target=child, args=(name, folder, ready, shared))
    process.start()
    while not ready.wait(0.1):
        assert process.is_alive(), "the training did not begin"
    return process


def _killed(name: str, folder: Path, after: float) -> str | None:
    """The moment at which a training died so many seconds after its start; None: it ended before."""
    folder.mkdir(exist_ok=True)
    moment = get_context("fork").Value("i", 1, lock=False)
    process = _child(name, folder, moment)
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return MOMENTS[moment.value] if process.exitcode == -signal.SIGKILL and not (folder / "ended").exists() else None


def _faults(folder: Path, expected: dict[str, Any], blocks: dict[int, list[str]]) -> list[str]:
    """Differences from the training that was never killed."""
    if not (folder / "ended").exists():
        return ["it did not end"]
    found, faults = _ended(folder), []
    unequal = [
        name
        for name, tensor in expected["tensors"].items()
        if name not in found["tensors"] or not torch.equal(tensor, found["tensors"][name])
    ]
    if unequal:
        faults.append(f"{len(unequal)} tensors differ, the first {unequal[0]}")
    if found["progress"] != expected["progress"]:
        faults.append(f"another curve: {found['progress'][:300]} instead of {expected['progress'][:300]}")
    asked = _blocks(folder)
    if sorted(asked) != sorted(blocks):
        faults.append(f"blocks {sorted(asked)}")
    faults += [f"block {b} asked {one}" for b, lists in asked.items() for one in lists if one != blocks.get(b)]
    return faults


def _ended(folder: Path) -> dict[str, Any]:
    ended: dict[str, Any] = torch.load(folder / "ended", weights_only=True)
    return ended


def _blocks(folder: Path) -> dict[int, list[list[str]]]:
    """Block -> its prompts, once for every time that it was drawn."""
    found: dict[int, list[list[str]]] = {}
    for line in (folder / "blocks").read_text(encoding="utf-8").splitlines():
        if line.endswith("]"):  # a kill may cut the last line
            block, asked = json.loads(line)
            found.setdefault(block, []).append(asked)
    return found


def _clear(folder: Path) -> None:
    if folder.exists():
        states.remove(folder)


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
