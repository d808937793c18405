"""A table of the fine-tuning methods that ran, with costs and advice; a short probe of all methods on a user's file.

The probe trains every method with few steps and predicts their ranking; the table of a later full run (profile
`methods`) is compared with that prediction.
"""

import contextlib
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import config, files
from pipeline.orchestration.process import beside, cores
from pipeline.paths import INPUTS, REPORTS, RUNS, WORK
from pipeline.reporting import report
from pipeline.reporting.advice import Advice, Comparison, advice, compared_with_best
from pipeline.reporting.methods import Cost, Method, agreement, cost, methods
from pipeline.reporting.wording import Words, load
from pipeline.significance import wilson
from pipeline.studies import needs
from pipeline.studies.guess import guess
from pipeline.studies.probe import BUDGET, FULL, probe_params
from pipeline.studies.workspace import fit, repro, workspace

FOLDER = WORK / "which"
PREDICTION = WORK / "which.json"
PAGE = REPORTS / "which.html"


def predict(data: Path, command: Callable[[str], list[str]]) -> None:
    """Probes every method on a user's file, prints the table, keeps the predicted ranking.

    Args:
        data: the file.
        command: see `probe`.

    Raises:
        UserError: a file in which nothing can be recognised, or a stage or recipe that failed.
    """
    guessed = guess(data)
    print(f"{data}: guessed\n" + "\n".join(f"  {sentence}" for sentence in guessed.sentences), flush=True)
    params = probe_params(INPUTS / data.name, guessed)
    workspace(data, guessed, FOLDER, params)
    params = fit(FOLDER, params, guessed.kind, BUDGET, beside=cores())
    repro(FOLDER, "evaluate@base")
    probe(list(params["finetune"]), command)
    full = f"tohum profile files {FULL[guessed.kind]} --data {shlex.quote(str(data))}"
    ranked = show(FOLDER, lambda words: words("which.probe", command=full))
    prediction = {"data": data.name, "score": ranked[0].score, "ranking": [method.name for method in ranked]}
    files.write_json(PREDICTION, prediction)


def probe(names: list[str], command: Callable[[str], list[str]]) -> None:
    """Trains and measures every recipe in the probe's folder, one per core at a time, each in a process of its own.

    Args:
        command: a module and its arguments that train and measure one recipe in the working folder.

    Raises:
        UserError: one of them failed; the others are ended.
    """
    with contextlib.chdir(FOLDER):
        beside({name: command(name) for name in names}, cores())


def show(root: Path, note: Callable[[Words], str] | None = None) -> list[Method]:
    """Prints the table and the advice for a project, writes reports/which.html; returns the methods, best first.

    The last line says which method to take, that it cannot be told, or not to fine-tune.

    Args:
        root: the project's folder.
        note: of a probe, its use in the words of a language; printed before the advice.

    Raises:
        UserError: no recipe of several seeds ran there.
    """
    with contextlib.chdir(root):
        params = config.load()
        needs.methods(params)
        ranked = methods(report.all_models(params))
        runs = {path.stem.removeprefix("finetune@"): path for path in RUNS.glob("finetune@*.json")}
        records = {name: files.read_json(path) for name, path in runs.items()}
        # a probe's recipes run side by side, so a meter's reading cannot be attributed to one of them
        metered = root == Path()
        costs = {method.name: spent for method in ranked if (spent := cost(method, records, metered))}
        comparison, words = compared_with_best(ranked), load(params.report.language)
        said = advice(ranked, note is not None, words), _notes(ranked, note, words)
        files.write_text(PAGE, report.render_which(ranked, costs, *said, words))
        advised, notes = advice(ranked, note is not None), _notes(ranked, note, load())
    console = Console()
    for shown in (scores_table(ranked, comparison), costs_table(ranked, costs)):
        console.print(shown)
    paragraphs = [advised.reasons if advised else "", notes, f"page: {root / PAGE}", _last(advised)]
    console.print("\n\n".join(filter(None, paragraphs)), highlight=False, markup=False)
    return ranked


def _last(advised: Advice | None) -> str:
    return (
        advised.sentence if advised else "Nothing to advise: there is one method, or their scores are of several kinds."
    )


def _notes(ranked: list[Method], note: Callable[[Words], str] | None, words: Words) -> str:
    return " ".join([*scored(ranked, words), *([note(words)] if note else [])])


def scored(ranked: list[Method], words: Words) -> list[str]:
    """A sentence on how well the last probe or comparison predicted this; none where none of such records ran."""
    if not PREDICTION.exists():
        return []
    predicted = files.read_json(PREDICTION)
    if predicted.get("score") != ranked[0].score:
        return []
    if "means" in predicted:
        return _scored_means(predicted, ranked, words)
    value, names = agreement(predicted["ranking"], ranked)
    if value != value:
        return []
    value_in_words = words.signed(value, 2)
    return [words("which.predicted ranking", data=predicted["data"], n=len(names), value=value_in_words)]


def _scored_means(predicted: Mapping[str, Any], ranked: list[Method], words: Words) -> list[str]:
    """A sentence on the scores that a comparison beside a released model predicted."""
    measured = {method.name: method.mean / method.highest for method in ranked}
    means = predicted["means"]
    pairs = [
        words(
            "which.predicted score", name=name, predicted=words.number(means[name], 3), measured=words.number(mean, 3)
        )
        for name, mean in measured.items()
        if name in means
    ]
    if not pairs:
        return []
    take = predicted["take"]
    best = max(measured, key=lambda name: measured[name])
    if take in measured:
        advised = words("which.advised best" if best == take else "which.advised other", take=take, best=best)
    elif take:
        advised = words("which.advised simple", take=take, predicted=words.number(means[take], 3))
    else:
        advised = words("which.advised nothing")
    return [words("which.predicted scores", data=predicted["data"], scores=", ".join(pairs), advised=advised)]


def scores_table(ranked: list[Method], comparison: Comparison | None) -> Table:
    """Mean, 95 % interval and spread over the seeds of every method, its verdicts, and the baseline."""
    title = f"{', '.join(sorted({method.score for method in ranked}))}, held-out records"
    table = Table("method", "mean", "95 %", "spread", "beside best", title=title)
    baseline = next((method.baseline for method in ranked if method.baseline is not None), None)
    if baseline is not None:
        table.add_column("beside TF-IDF")
        if baseline.majority is not None:
            share = wilson(baseline.majority, baseline.records)
            table.add_row("majority", f"{baseline.majority:.3f}", _interval(share))
        mean, interval = f"{baseline.accuracy:.3f}", _interval(baseline.interval)
        table.add_row("TF-IDF", mean, interval, end_section=True)
    for method in ranked:
        verdicts = [comparison.beside_best.get(method.name, "best") if comparison else ""]
        verdicts += [comparison.beside_baseline.get(method.name, "")] if comparison and baseline is not None else []
        mean = f"{method.mean:.3f}"
        table.add_row(method.name, mean, _interval(method.interval), f"{method.spread:.3f}", *verdicts)
    return table


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.2f} to {bounds[1]:.2f}"


def costs_table(ranked: list[Method], costs: dict[str, Cost]) -> Table:
    """Trained share, epochs, forgetting, seconds, memory and energy of every method."""
    estimated = "" if all(spent.measured for spent in costs.values()) else " est."
    table = Table("method", "trained", "epochs", "forgets", "seconds", "MiB", f"Wh{estimated}", title="costs")
    for method in ranked:
        spent = costs.get(method.name)
        table.add_row(
            method.name, f"{100 * method.trained_share:.2f} %",
            "" if method.epochs is None else f"{method.epochs:.2g}",
            "" if method.forgotten is None else f"{method.forgotten:+.3f}",
            *(() if spent is None else (
                f"{spent.seconds:.1f}", f"{spent.peak_memory_mib:.0f}", f"{spent.energy_wh:.4f}",
            )),
        )  # fmt: skip
    return table
