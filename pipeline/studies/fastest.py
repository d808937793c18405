"""Which compute settings are fastest here: a few real updates of pretrain under each that this machine can run.

`make fastest` shows threads, precision and compile with the time that the whole recipe would take; with APPLY=1 it
writes the best into params.yaml. They change the bits of every model, so all would be trained anew; nothing ever
changes them by itself. Needs data/samples (`dvc repro sample`).
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
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

# What runs before counts: the first update compiles, the second still finds its memory.
_WARM = 2
# Two settings nearer than this are alike: repeated runs on a quiet machine differ by some 2 %.
_ALIKE = 0.03
_MARK = "timed: "


class Found(NamedTuple):
    """One setting and its speed."""

    compute: Compute
    first_s: float
    """The updates that warm up, compiling included."""
    step_s: float
    """Median of the others."""
    tokens: int
    """Positions of an update."""

    def whole_s(self, steps: int) -> float:
        """Of so many updates from a cold start, without validation and start-up."""
        return self.first_s + max(0, steps - _WARM) * self.step_s


def main() -> None:
    """Measures, shows, and with --apply writes."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.fastest", description=__doc__)
    parser.add_argument("--apply", action="store_true", help="write the fastest into params.yaml")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each setting is timed (%(default)s)")
    parser.add_argument("--one", metavar="JSON", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        asked = {"compute": Compute.model_validate_json(options.one)}
        print(_MARK + json.dumps(measure(config.load().model_copy(update=asked), options.seconds)))
        return
    params = config.load()
    tried, failed = trials(list(settings(params.compute)), options.seconds)
    steps = params.pretrain.schedule.steps
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
        console.print("params.yaml has the fastest of these.")
    elif options.apply:
        print(edit.change(config.PARAMS, changes), end="")
    else:
        said = ", ".join(f"{name}: {json.dumps(value)}" for name, value in changes.items())
        console.print(
            f"Faster than params.yaml: {said}. `make fastest APPLY=1` writes it; every model is trained anew."
        )


def settings(present: Compute) -> Iterator[Compute]:
    """What this machine may run, the present setting among it."""
    import torch

    from pipeline.model.device import has_bfloat16

    cuda = torch.cuda.is_available()
    most = cores()
    threads = sorted({2**power for power in range(most.bit_length())} | {most})
    precisions = ["float32", "bfloat16"] if cuda or has_bfloat16() else ["float32"]
    compiles = [False, True] if shutil.which(os.environ.get("CXX", "g++")) else [False]
    seen = [present]
    yield present
    for number, precision, compiled in itertools.product(threads[-1:] if cuda else threads, precisions, compiles):
        device = "cuda" if cuda else "cpu"
        one = Compute.model_validate({"device": device, "threads": number, "precision": precision, "compile": compiled})
        if one not in seen:
            seen.append(one)
            yield one


def trials(wanted: Sequence[Compute], seconds: float) -> tuple[list[Found], list[str]]:
    """Each setting in a process of its own, one after the other; and what those said that failed.

    Raises:
        UserError: all failed.
    """
    found, failed = [], []
    for compute in track(wanted, "timing", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        command = ["pipeline.cli.fastest", "--seconds", str(seconds), "--one", compute.model_dump_json()]
        try:
            with TemporaryDirectory() as cold:  # nothing compiled before
                processes = Processes(TORCHINDUCTOR_CACHE_DIR=cold)
                lines = processes.run(command, timeout_s=None, tell=lambda line: None)
            said = next((line for line in lines if line.startswith(_MARK)), None)
            if said is None:
                raise StageError("it ended without a word of how long it took")
            first, step, tokens = json.loads(said.removeprefix(_MARK))
            found.append(Found(compute, first, step, tokens))
        except StageError as error:
            failed.append(f"{named(compute)}: {error}")
    if not found:
        raise UserError("no setting could be timed:\n  " + "\n  ".join(failed))
    return found, failed


def measure(params: Params, seconds: float) -> tuple[float, float, int]:
    """Seconds of the first updates, median seconds of the later ones, positions of one; nothing is kept."""
    from pipeline.model.device import compiled
    from pipeline.training.loop import fit
    from pipeline.training.recipe import build
    from pipeline.paths import TOKENIZER
    from pipeline.training.start import start

    built = build("pretrain", params.pretrain, "documents", start(params.pretrain)[0], params, TOKENIZER)
    compiled(built.model, params.compute)
    schedule = params.pretrain.schedule.model_copy(update={"steps": 1_000_000, "batch_warmup_steps": 0})
    updates = fit(built.model, replace(built.parts, schedule=schedule), built.train)
    times: list[float] = []
    began = time.perf_counter()
    for _ in range(_WARM):
        float(next(updates).loss)
    first = time.perf_counter() - began
    while sum(times) < seconds or len(times) < 3:
        began = time.perf_counter()
        step = next(updates)
        float(step.loss)  # waits for the device
        times.append(time.perf_counter() - began)
    return first, statistics.median(times), step.tokens


def proposal(tried: Sequence[Found], present: Compute, steps: int) -> Found:
    """The one that ends first; the present setting where it is as good, for changing it trains all anew."""
    best = min(tried, key=lambda one: one.whole_s(steps))
    kept = next((one for one in tried if one.compute == present), best)
    return kept if kept.whole_s(steps) <= (1 + _ALIKE) * best.whole_s(steps) else best


def named(compute: Compute) -> str:
    """The setting in words."""
    threads = f"{compute.threads} thread{'s' if compute.threads > 1 else ''}"
    device = "" if compute.device == "cpu" else f"{compute.device}, "
    return f"{device}{threads}, {compute.precision}{', compiled' if compute.compile else ''}"


def table(tried: Sequence[Found], steps: int, best: Found) -> Table:
    """A row a setting, the fastest first."""
    shown = Table(title=f"pretrain, {steps:,} updates from a cold start")
    for column in ("setting", "first s", "update ms", "tokens/s", "whole run"):
        words = column == "setting"
        shown.add_column(column, justify="left" if words else "right", no_wrap=not words)
    for one in sorted(tried, key=lambda one: one.whole_s(steps)):
        minutes, rest = divmod(round(one.whole_s(steps)), 60)
        shown.add_row(
            named(one.compute), f"{one.first_s:.1f}", f"{1000 * one.step_s:.1f}", f"{one.tokens / one.step_s:,.0f}",
            f"{minutes} min {rest:02} s", style="bold" if one is best else None,
        )  # fmt: skip
    return shown


if __name__ == "__main__":
    entry(main, again="nothing is kept of it")
