"""Ablation of pretrain's defaults: variations of one setting each, over several seeds and the same tokens.

Every variation of infra/ablation.yaml is trained on this project's documents and compared with params.yaml as it is:
the held-out loss, and its mean difference over the same seeds with a 95 % interval.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from pipeline import files
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import REPORTS, VARIATIONS
from pipeline.studies import trials as study_trials
from pipeline.studies.trials import Result, Trial, deviation, mean_and_error, recipe_of, tokens_of

PAGE = REPORTS / "ablation.md"
DEFAULT = "as it is"
BETTER = "variation significantly better"
# A schedule with a growing batch consists of whole micro-batches and cannot always end on the same token.
_SAME_TOKENS = 0.01


class Comparison(NamedTuple):
    """One variation compared with the default over the same seeds."""

    name: str
    loss: float
    deviation: float
    gain: float
    """The default's advantage, nats per token in the mean over the seeds; negative: the variation is better."""
    error: float
    """Half the width of its 95 % interval."""
    weights: int
    seconds: float

    @property
    def verdict(self) -> str:
        """The conclusion about the default."""
        if self.name == DEFAULT:
            return ""
        if math.isinf(self.loss):
            return "diverged"
        if math.isnan(self.error):
            return "one seed"
        if self.gain > self.error:
            return "default significantly better"
        return BETTER if -self.gain > self.error else "no significant difference"


def study(params: Params, seeds: int, only: list[str] | None = None) -> None:
    """Trains the trials that are left, prints the table and writes it to reports/ablation.md.

    Args:
        seeds: of each variation.
        only: names of variations; None takes all.
    """
    trials, left_out = fitting(params, planned(VARIATIONS, seeds, only))
    print("\n".join(f"left out: {reason}" for reason in left_out), end="\n" * bool(left_out))
    results = study_trials.run(params, trials)
    rows = compared(dict(study_trials.by_name(trials, results)))
    Console().print(table(rows))
    files.write_text(PAGE, markdown(rows))
    better = [row.name for row in rows if row.verdict == BETTER]
    conclusion = (
        f"better than params.yaml: {', '.join(better)}" if better else "no variation is better than params.yaml"
    )
    print(f"{conclusion} (95 % intervals of {len(rows) - 1} differences: one in twenty is significant by chance)")
    print(PAGE)


def planned(path: Path, seeds: int, only: list[str] | None = None) -> list[Trial]:
    """The trials of a file of variations, the default first.

    Raises:
        UserError: no such file, a file that holds no variations, or a name in `only` that it does not hold.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; it names the variations to compare with params.yaml")
    variations: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(variations, dict) or not all(isinstance(changes, dict) for changes in variations.values()):
        raise UserError(f"{path}: expected names, each with the settings below `pretrain` that it changes")
    if unknown := sorted(set(only or []) - set(variations)):
        raise UserError(f"{path} has no {', '.join(unknown)}; one of: {', '.join(variations)}")
    chosen = {DEFAULT: {}} | {name: changes for name, changes in variations.items() if only is None or name in only}
    # seed by seed: a study that is stopped has compared all variations on the first seeds
    return [Trial(name, seed, changes) for seed in range(1, seeds + 1) for name, changes in chosen.items()]


def fitting(params: Params, trials: list[Trial]) -> tuple[list[Trial], list[str]]:
    """The trials that fit these params, and the reasons why others do not, such as a key that the family lacks.

    Raises:
        UserError: one would train on another number of tokens, which by itself changes the loss.
    """
    fit, reasons = [], {}
    default = tokens_of(params.pretrain)
    for trial in trials:
        try:
            tokens = tokens_of(recipe_of(params, trial))
        except UserError as error:
            reasons[trial.name] = str(error)
            continue
        if abs(tokens / default - 1) > _SAME_TOKENS:
            raise UserError(
                f"{VARIATIONS}: {trial.name!r} trains on {tokens:,} tokens, params.yaml on {default:,}; change its "
                "schedule.steps so that both see as many"
            )
        fit.append(trial)
    return fit, list(reasons.values())


def compared(results: dict[str, list[Result]]) -> list[Comparison]:
    """A comparison per variation, the best first. Raises UserError where the default itself diverged."""
    default = results[DEFAULT]
    if not all(math.isfinite(result.loss_nats) for result in default):
        raise UserError("params.yaml: pretrain as it is diverges; lower optimizer.learning_rate")
    rows = []
    for name, seeds in results.items():
        losses = [result.loss_nats for result in seeds]
        seconds = sum(result.seconds for result in seeds) / len(seeds)
        if not all(map(math.isfinite, losses)):
            rows.append(Comparison(name, math.inf, math.nan, math.inf, math.nan, seeds[0].weights, seconds))
            continue
        gain, error = mean_and_error([a - b.loss_nats for a, b in zip(losses, default, strict=True)])
        mean = sum(losses) / len(losses)
        rows.append(Comparison(name, mean, deviation(losses), gain, error, seeds[0].weights, seconds))
    return sorted(rows, key=lambda row: row.loss)


_COLUMNS = (
    "pretrain",
    "held-out loss, nats per token (deviation)",
    "default better by",
    "weights",
    "seconds",
    "verdict",
)


def cells(row: Comparison) -> list[str]:
    """The comparison as the cells of a row."""
    gain = "" if row.name == DEFAULT else f"{row.gain:+.4f}" + f" ± {row.error:.4f}" * (not math.isnan(row.error))
    loss = f"{row.loss:.4f}" + f" ({row.deviation:.4f})" * (not math.isnan(row.deviation))
    return [row.name, loss, gain, f"{row.weights:,}", f"{row.seconds:.0f}", row.verdict]


def table(rows: list[Comparison]) -> Table:
    """The comparisons for the terminal."""
    table = Table(*_COLUMNS)
    for row in rows:
        table.add_row(*cells(row), style="bold" if row.name == DEFAULT else None)
    return table


def markdown(rows: list[Comparison]) -> str:
    """The comparisons for a page."""
    lines = [_COLUMNS, ["---"] * len(_COLUMNS), *(cells(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
