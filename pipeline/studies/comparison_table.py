"""Rows of a comparison from its measurements, and the table that a user reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.reporting.recommendation import Recommendation, Row
from pipeline.studies import speed
from pipeline.studies.comparison_jobs import (
    PROMPTS,
    SMALL_MODEL,
    WITHOUT_MODEL,
    Results,
    Subject,
    seeded,
    short,
    trial,
)
from pipeline.studies.comparison_plan import METHODS, SEEDS, Plan, Speed

_COLUMNS = ("method", "mean", "95 %", "spread", "beside simple", "CPU s", "MiB", "weights")


def rows(subject: Subject, plan: Plan, chosen: Mapping[str, int], results: Results) -> list[Row]:
    """Every method of the comparison, measured or with the reason why not.

    Args:
        subject: of the comparison.
        plan: its trials.
        chosen: method -> number of its best trial.
        results: of all jobs.
    """
    shown = [_row(name, [results["TF-IDF"][name]]) for name in WITHOUT_MODEL[subject.kind]]
    shown.append(_row("neighbours", [results["neighbours"]["neighbours"]]))
    for name in PROMPTS.values():
        if subject.base.generates:
            shown.append(_row(name, [results[name][name]]))
        else:
            shown.append(Row(name, missing=f"no language head: {subject.base.family} is an encoder"))
    for method in METHODS:
        if method in chosen:
            seeds = [results[trial(method, chosen[method])][method]]
            seeds += [results[seeded(method, seed)][method] for seed in SEEDS[1:]]
            shown.append(_row(method, seeds, _setting(plan, method, chosen[method], seeds)))
        else:
            failed = results.get(trial(method, 1), {}).get(method, {}).get("missing", "")
            shown.append(Row(method, missing=plan.left_out.get(method) or short(failed)))
    small = results[SMALL_MODEL]["scratch"]
    if "missing" in small:
        return [*shown, Row("scratch", missing=short(small["missing"]))]
    seeds = [results[seeded("scratch", seed)]["scratch"] for seed in SEEDS]
    note = "the small model of a try, pretrained on these texts"
    return [*shown, _row("scratch", seeds, note, more_s=small["seconds"])]


def _row(name: str, seeds: Sequence[Mapping[str, Any]], note: str = "", more_s: float = 0.0) -> Row:
    """A row from the figures of its seeds; `more_s`: seconds that they share."""
    if missing := next((seed["missing"] for seed in seeds if "missing" in seed), ""):
        return Row(name, missing=short(missing))
    return Row(
        name,
        tuple(seed["values"][0] for seed in seeds),
        tuple(np.mean([seed["by_record"] for seed in seeds], axis=0).tolist()),
        seconds=float(np.mean([seed["seconds"] for seed in seeds])) + more_s,
        peak_memory_mib=max(seed["peak_memory_mib"] for seed in seeds),
        trained=seeds[0]["trained"],
        note=note or seeds[0]["note"],
        seedless=seeds[0]["seedless"],
    )


def _setting(plan: Plan, method: str, number: int, seeds: Sequence[Mapping[str, Any]]) -> str:
    """`rank 8, learning rate 0.003, 2.4 epochs; best of 4 settings on validation`."""
    trials = plan.trials[method]
    setting = trials.settings[number - 1]
    rank = f"rank {setting['rank']}, " if "rank" in setting else ""
    epochs = float(np.mean([seed["epochs"] for seed in seeds if "epochs" in seed] or [0.0]))
    tried = len(trials.settings)
    searched = f"best of {tried} settings on validation" if tried > 1 else "no search, by the budget"
    return f"{rank}learning rate {setting['learning_rate']:g}, {epochs:.2g} epochs; {searched}"


def expectation(plan: Plan, speeds: Speed) -> str:
    """Records, batches and expected duration in words."""
    trainings = sum(len(trials.settings) + len(SEEDS) - 1 for trials in plan.trials.values())
    updates = ", ".join(f"{method} {getattr(speeds, method):.2g} s" for method in plan.trials)
    limits = plan.limits
    return (
        f"{limits.records:,} training and {limits.held_out:,} held-out records of up to {limits.max_tokens} tokens; "
        f"batches of {limits.batch_size}; an update takes {updates or 'too long for this budget'}\n"
        f"expected duration: {speed.words(plan.seconds)} for {trainings} trainings and the prompts, and a minute or "
        "two for the small model beside them"
    )


def table(shown: Sequence[Row], recommended: Recommendation, score: str, records: int) -> Group:
    """Score with interval and spread, verdict and cost of every method, in 80 columns; below them the settings.

    A method that was not measured has its reason there.
    """
    scale, digits = (100, 1) if score == "chrf" else (1, 3)
    made = Table(title=f"{score}, {records:,} held-out records", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        made.add_column(name, no_wrap=True, justify="left" if name in _COLUMNS[:1] else "right")
    notes = []
    for row, after in zip(shown, [*shown[1:], None], strict=True):
        ends = after is not None and row.simple and not after.simple
        if row.missing or row.note:
            notes.append(Text(f"{row.name}: {row.missing or row.note}", style="dim"))
        if row.missing:
            made.add_row(row.name, "-", end_section=ends, style="dim")
            continue
        low, high = (f"{scale * bound:.{digits - 1}f}" for bound in row.interval)
        spread = f"{np.std(row.values, ddof=1) * scale:.{digits}f}" if len(row.values) > 1 else ""
        made.add_row(
            row.name, f"{row.mean * scale:.{digits}f}", f"{low} to {high}", spread,
            recommended.verdicts.get(row.name, ""), f"{row.seconds:.0f}" if row.seconds >= 1 else "< 1",
            f"{row.peak_memory_mib:.0f}", f"{row.trained:,}" if row.trained else "", end_section=ends,
            style="bold" if row.name == recommended.take else "",
        )  # fmt: skip
    return Group(made, *notes)
