"""Timing of compute settings: a few real updates of pretrain under each that this machine can run.

Threads, precision and compile are shown with the time that the whole recipe would take. They change the bits of every
model, so all would be trained anew; nothing changes them by itself. Needs data/samples (`dvc repro sample`).

Each setting is timed in a process of its own: `python -m pipeline.studies.fastest SECONDS COMPUTE`, the compute section
as JSON.
"""

import itertools
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipeline import config
from pipeline.config import edit
from pipeline.config.params import Params
from pipeline.config.recipe import Compute
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.orchestration.process import Processes, StageError, cores
from pipeline.paths import TOKENIZER
from pipeline.significance import median_interval
from pipeline.studies import needs
from pipeline.studies.speed import words

# Updates before the timed ones: the first compiles, the second still allocates.
_WARM_UP = 2
# A smaller relative difference is noise: repeated runs on a quiet machine differ by some 2 %, whatever the spread of
# the updates within one run.
_NOISE = 0.03
_PREFIX = "timed: "
# Usual seconds of a process's start and first updates, and of compiling the network.
_START_S, _COMPILE_S = 6.0, 25.0


class Timing(NamedTuple):
    """One setting and its speed."""

    compute: Compute
    first_s: float
    """Seconds of the warm-up updates, compiling included."""
    step_s: float
    """Median seconds of the later updates."""
    tokens: int
    """Positions per update."""
    interval_s: tuple[float, float]
    """95 % confidence interval of `step_s`."""

    def whole_s(self, steps: int) -> float:
        """Seconds of `steps` updates from a cold start, without validation and start-up."""
        return self._whole_s(steps, self.step_s)

    def whole_interval_s(self, steps: int) -> tuple[float, float]:
        """95 % confidence interval of `whole_s`."""
        low, high = self.interval_s
        return self._whole_s(steps, low), self._whole_s(steps, high)

    def _whole_s(self, steps: int, step_s: float) -> float:
        return self.first_s + max(0, steps - _WARM_UP) * step_s


def study(seconds: float, apply: bool) -> None:
    """Times every setting for so many seconds, prints the table; with `apply` writes the fastest into params.yaml.

    Raises:
        UserError: data that is not there, or no setting could be timed.
    """
    params = config.load()
    needs.samples()
    wanted = list(settings(params.compute))
    print(f"times {len(wanted)} settings, {words(expected_s(wanted, seconds))}; params.yaml stays as it is", flush=True)
    tried, failed = trials(wanted, seconds)
    steps = params.pretrain.schedule.updates
    best = proposal(tried, params.compute, steps)
    console = Console()
    console.print(table(tried, steps, best))
    for line in failed:
        console.print(f"left out: {line}", markup=False, style="yellow")
    changes = {
        f"compute.{name}": value
        for name, value in best.compute.model_dump().items()
        if value != getattr(params.compute, name)
    }
    if not changes:
        console.print(_kept(tried, best, steps), highlight=False)
    elif apply:
        print(edit.change(config.PARAMS, changes), end="")
    else:
        values = ", ".join(f"{name}: {json.dumps(value)}" for name, value in changes.items())
        console.print(
            f"Faster than params.yaml: {values}. `tohum fastest --apply` writes it; every model is trained anew."
        )


def _kept(tried: Sequence[Timing], present: Timing, steps: int) -> str:
    """Why the present setting stays."""
    best = min(tried, key=lambda timing: timing.whole_s(steps))
    if best is present:
        return "params.yaml has the fastest of these: keep it."
    gain = 100 * (1 - best.whole_s(steps) / present.whole_s(steps))
    return f"Cannot tell {named(best.compute)}, {gain:.1f} % faster here, from the setting of params.yaml: keep that."


def work() -> None:
    """Times the setting of this process's command line and prints the figures of `measure`."""
    seconds, compute = float(sys.argv[1]), Compute.model_validate_json(sys.argv[2])
    print(_PREFIX + json.dumps(measure(config.load().model_copy(update={"compute": compute}), seconds)))


def settings(present: Compute) -> Iterator[Compute]:
    """The settings that this machine can run, the present one first."""
    import torch

    from pipeline.model.device import has_bfloat16

    cuda = torch.cuda.is_available()
    most = cores()
    threads = sorted({2**power for power in range(most.bit_length())} | {most})
    precisions = ["float32", "bfloat16"] if cuda or has_bfloat16() else ["float32"]
    compiles = [False, True] if shutil.which(os.environ.get("CXX", "g++")) else [False]
    yielded = [present]
    yield present
    for number, precision, compiled in itertools.product(threads[-1:] if cuda else threads, precisions, compiles):
        device = "cuda" if cuda else "cpu"
        values = {"device": device, "threads": number, "precision": precision, "compile": compiled}
        compute = Compute.model_validate(present.model_dump() | values)
        if compute not in yielded:
            yielded.append(compute)
            yield compute


def expected_s(wanted: Sequence[Compute], seconds: float) -> float:
    """A rough duration of timing these settings: the updates, the start of each process, and compiling."""
    return sum(seconds + _START_S + (_COMPILE_S if compute.compile else 0) for compute in wanted)


def trials(wanted: Sequence[Compute], seconds: float) -> tuple[list[Timing], list[str]]:
    """The timing of each setting, in a process of its own, one after the other; and the errors of failed ones.

    Raises:
        UserError: all failed.
    """
    timings, failed = [], []
    for compute in track(wanted, "timing", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        command = [__name__, str(seconds), compute.model_dump_json()]
        try:
            with TemporaryDirectory() as cold:  # nothing compiled before
                processes = Processes(TORCHINDUCTOR_CACHE_DIR=cold)
                lines = processes.run(command, timeout_s=None, tell=lambda _: None)
            line = next((line for line in lines if line.startswith(_PREFIX)), None)
            if line is None:
                raise StageError("it ended without a result")
            first, step, tokens, interval = json.loads(line.removeprefix(_PREFIX))
            timings.append(Timing(compute, first, step, tokens, tuple(interval)))
        except StageError as error:
            failed.append(f"{named(compute)}: {error}")
    if not timings:
        raise UserError("no setting could be timed:\n  " + "\n  ".join(failed))
    return timings, failed


def measure(params: Params, seconds: float) -> tuple[float, float, int, tuple[float, float]]:
    """Seconds of the warm-up updates, median seconds of the later ones, positions per update, and the 95 % interval of
    that median; nothing is kept.
    """
    from pipeline.experience.records import Records
    from pipeline.model.compilation import compiled
    from pipeline.training.build import build
    from pipeline.training.loop import fit
    from pipeline.training.schedule import micro_batches
    from pipeline.training.start import start

    built = build("pretrain", params.pretrain, "documents", start(params.pretrain)[0], params, TOKENIZER)
    compiled(built.model, params.compute)
    schedule = params.pretrain.schedule.model_copy(update={"steps": 1_000_000, "batch_warmup_steps": 0})
    assert isinstance(built.experience, Records)
    experience = replace(built.experience, micro=partial(micro_batches, schedule))
    updates = fit(built.model, replace(built.parts, schedule=schedule), experience)
    times: list[float] = []
    began = time.perf_counter()
    for _ in range(_WARM_UP):
        float(next(updates).loss)
    first = time.perf_counter() - began
    while sum(times) < seconds or len(times) < 3:
        began = time.perf_counter()
        step = next(updates)
        float(step.loss)  # waits for the device
        times.append(time.perf_counter() - began)
    return first, statistics.median(times), step.tokens, median_interval(times)


def proposal(tried: Sequence[Timing], present: Compute, steps: int) -> Timing:
    """The fastest setting for `steps` updates; the present one unless the gain is more than noise.

    It is where the 95 % intervals of the two medians do not overlap, and the times differ by more than _NOISE.
    """
    best = min(tried, key=lambda timing: timing.whole_s(steps))
    kept = next((timing for timing in tried if timing.compute == present), best)
    overlap = kept.whole_interval_s(steps)[0] <= best.whole_interval_s(steps)[1]
    return kept if overlap or kept.whole_s(steps) <= (1 + _NOISE) * best.whole_s(steps) else best


def named(compute: Compute) -> str:
    """The setting in words."""
    threads = f"{compute.threads} thread{'s' if compute.threads > 1 else ''}"
    device = "" if compute.device == "cpu" else f"{compute.device}, "
    return f"{device}{threads}, {compute.precision}{', compiled' if compute.compile else ''}"


def table(tried: Sequence[Timing], steps: int, best: Timing) -> Table:
    """A row per setting, the fastest first."""
    shown = Table(title=f"pretrain, {steps:,} updates from a cold start")
    for column in ("setting", "first s", "update ms", "tokens/s", "whole run"):
        words = column == "setting"
        shown.add_column(column, justify="left" if words else "right", no_wrap=not words)
    for timing in sorted(tried, key=lambda timing: timing.whole_s(steps)):
        minutes, rest = divmod(round(timing.whole_s(steps)), 60)
        shown.add_row(
            named(timing.compute), f"{timing.first_s:.1f}", f"{1000 * timing.step_s:.1f}",
            f"{timing.tokens / timing.step_s:,.0f}", f"{minutes} min {rest:02} s",
            style="bold" if timing is best else None,
        )  # fmt: skip
    return shown


if __name__ == "__main__":
    entry(work, again="no time is kept")
