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

from pipeline import config, files, studies
from pipeline.config import UserError
from pipeline.studies import Result, Trial, mean_and_error
from stages import entry

VARIATIONS = Path("infra/ablation.yaml")
PAGE = Path("reports/ablation.md")
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
    """Two standard errors of that."""
    weights: int
    seconds: float

    @property
    def verdict(self) -> str:
        """What follows for the default."""
        if self.name == DEFAULT:
            return ""
        if math.isnan(self.error):
            return "one seed"
        if self.gain > self.error:
            return "default better"
        return "VARIATION BETTER" if -self.gain > self.error else "alike"


def main() -> None:
    """Runs what is left and shows the table."""
    parser = argparse.ArgumentParser(prog="python -m stages.ablation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these variations")
    options = parser.parse_args()
    params, trials = config.load(), planned(VARIATIONS, options.seeds, options.only)
    results = studies.run(params, trials)
    rows = compared(dict(studies.by_name(trials, results)))
    Console().print(table(rows))
    files.write_text(PAGE, markdown(rows))
    better = [row.name for row in rows if row.verdict == "VARIATION BETTER"]
    print(f"better than params.yaml: {', '.join(better)}" if better else "no variation is better than params.yaml")
    print(PAGE)


def planned(path: Path, seeds: int, only: list[str] | None = None) -> list[Trial]:
    """The trials of a file of variations, the default first. Raises UserError on a file or name that is none."""
    variations: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(variations, dict) or not all(isinstance(one, dict) for one in variations.values()):
        raise UserError(f"{path}: expected names, each with the settings below `pretrain` that it changes")
    if odd := sorted(set(only or []) - set(variations)):
        raise UserError(f"{path} has no {', '.join(odd)}; one of: {', '.join(variations)}")
    chosen = {DEFAULT: {}} | {name: one for name, one in variations.items() if only is None or name in only}
    # seed by seed: a study that is stopped has compared all of them on the first seeds
    return [Trial(name, seed, one) for seed in range(1, seeds + 1) for name, one in chosen.items()]


def compared(results: dict[str, list[Result]]) -> list[Row]:
    """A row a variation, the best first. Raises UserError where one saw another number of tokens."""
    default = results[DEFAULT]
    rows = []
    for name, found in results.items():
        for one, other in zip(found, default, strict=True):
            if abs(one.tokens / other.tokens - 1) > _SAME_TOKENS:
                raise UserError(
                    f"{VARIATIONS}: {name!r} trains on {one.tokens:,} tokens, params.yaml on {other.tokens:,}; change "
                    "schedule.steps so that both see as many"
                )
        gain, error = mean_and_error([a.loss_nats - b.loss_nats for a, b in zip(found, default, strict=True)])
        loss, twice = mean_and_error([one.loss_nats for one in found])
        deviation = twice / 2 * math.sqrt(len(found))
        seconds = sum(one.seconds for one in found) / len(found)
        rows.append(Row(name, loss, deviation, gain, error, found[0].weights, seconds))
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
    entry(main)
