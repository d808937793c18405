"""Is each default of pretrain the best of its kind? One thing changed at a time, five seeds, the same tokens.

`make ablation` trains every variation of infra/ablation.yaml on this project's documents and shows each beside
params.yaml as it is: the held-out loss, and how much it differs over the same seeds. What has run is kept, so it can be
stopped.
"""

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from pipeline import config, files
from pipeline.config.params import Params
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.paths import REPORTS, VARIATIONS
from pipeline.studies import trials as studies
from pipeline.studies.trials import Result, Trial, deviation, mean_and_error, recipe_of, tokens_of

PAGE = REPORTS / "ablation.md"
DEFAULT = "as it is"
# Whole micro-batches: a schedule with a growing batch cannot always end on the same token.
_SAME_TOKENS = 0.01


class Row(NamedTuple):
    """One variation beside the default, over the same seeds."""

    name: str
    loss: float
    deviation: float
    gain: float
    """How much lower the default's loss is, in the mean over the seeds; negative: the variation is better."""
    error: float
    """Half the width of its 95 % interval."""
    weights: int
    seconds: float

    @property
    def verdict(self) -> str:
        """What follows for the default."""
        if self.name == DEFAULT:
            return ""
        if math.isinf(self.loss):
            return "diverged"
        if math.isnan(self.error):
            return "one seed"
        if self.gain > self.error:
            return "default better"
        return "VARIATION BETTER" if -self.gain > self.error else "alike"


def main() -> None:
    """Runs what is left and shows the table."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.ablation", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=5, choices=range(1, 100), metavar="N", help="of each (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these variations")
    options = parser.parse_args()
    params = config.load()
    trials, left_out = fitting(params, planned(VARIATIONS, options.seeds, options.only))
    print("\n".join(f"left out: {reason}" for reason in left_out), end="\n" * bool(left_out))
    results = studies.run(params, trials)
    rows = compared(dict(studies.by_name(trials, results)))
    Console().print(table(rows))
    files.write_text(PAGE, markdown(rows))
    better = [row.name for row in rows if row.verdict == "VARIATION BETTER"]
    said = f"better than params.yaml: {', '.join(better)}" if better else "no variation is better than params.yaml"
    print(f"{said} (95 % intervals of {len(rows) - 1} differences: one in twenty would stand out by chance)")
    print(PAGE)


def planned(path: Path, seeds: int, only: list[str] | None = None) -> list[Trial]:
    """The trials of a file of variations, the default first. Raises UserError on a file or name that is none."""
    if not path.exists():
        raise UserError(f"{path}: no such file; it names the variations to compare with params.yaml")
    variations: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(variations, dict) or not all(isinstance(one, dict) for one in variations.values()):
        raise UserError(f"{path}: expected names, each with the settings below `pretrain` that it changes")
    if odd := sorted(set(only or []) - set(variations)):
        raise UserError(f"{path} has no {', '.join(odd)}; one of: {', '.join(variations)}")
    chosen = {DEFAULT: {}} | {name: one for name, one in variations.items() if only is None or name in only}
    # seed by seed: a study that is stopped has compared all of them on the first seeds
    return [Trial(name, seed, one) for seed in range(1, seeds + 1) for name, one in chosen.items()]


def fitting(params: Params, trials: list[Trial]) -> tuple[list[Trial], list[str]]:
    """The trials that fit these params, and why others do not: an unknown key, a family that has no such thing.

    Raises:
        UserError: one would see another number of tokens; more text is better whatever was changed.
    """
    there, reasons = [], {}
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
        there.append(trial)
    return there, list(reasons.values())


def compared(results: dict[str, list[Result]]) -> list[Row]:
    """A row a variation, the best first. Raises UserError where params.yaml as it is diverged."""
    default = results[DEFAULT]
    if not all(math.isfinite(one.loss_nats) for one in default):
        raise UserError("params.yaml: pretrain as it is diverges; lower optimizer.learning_rate")
    rows = []
    for name, found in results.items():
        losses = [one.loss_nats for one in found]
        seconds = sum(one.seconds for one in found) / len(found)
        if not all(map(math.isfinite, losses)):
            rows.append(Row(name, math.inf, math.nan, math.inf, math.nan, found[0].weights, seconds))
            continue
        gain, error = mean_and_error([a - b.loss_nats for a, b in zip(losses, default, strict=True)])
        mean = sum(losses) / len(losses)
        rows.append(Row(name, mean, deviation(losses), gain, error, found[0].weights, seconds))
    return sorted(rows, key=lambda row: row.loss)


_COLUMNS = ("pretrain", "held-out loss, nats a token (deviation)", "default better by", "weights", "seconds", "verdict")


def cells(row: Row) -> list[str]:
    """The row in words."""
    gain = "" if row.name == DEFAULT else f"{row.gain:+.4f}" + f" ± {row.error:.4f}" * (not math.isnan(row.error))
    loss = f"{row.loss:.4f}" + f" ({row.deviation:.4f})" * (not math.isnan(row.deviation))
    return [row.name, loss, gain, f"{row.weights:,}", f"{row.seconds:.0f}", row.verdict]


def table(rows: list[Row]) -> Table:
    """For the terminal."""
    made = Table(*_COLUMNS)
    for row in rows:
        made.add_row(*cells(row), style="bold" if row.name == DEFAULT else None)
    return made


def markdown(rows: list[Row]) -> str:
    """For a page."""
    lines = [_COLUMNS, ["---"] * len(_COLUMNS), *(cells(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    entry(main, again="the same command goes on with what is left")
