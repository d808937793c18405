"""How the loss falls with size and tokens on this project's documents: a law, a rule, a page.

`make scaling` trains infra/scaling.yaml's sizes, tokens, rates and batches, fits the law and draws it
(reports/scaling.html); `make budget` proposes from it. What has run is kept, so it can be stopped.
"""

import argparse
import dataclasses
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from pipeline import config, files
from pipeline.config.params import Params
from pipeline.config.section import validated
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.paths import REPORTS, SCALING
from pipeline.reporting import report
from pipeline.studies import budget, scaling, trials
from pipeline.studies.scaling import Law, Plan, Study

PLAN = SCALING
FOUND = REPORTS / "scaling.json"
PAGE = REPORTS / "scaling.html"


def main() -> None:
    """Trains what is left, fits, shows, writes the page."""
    argparse.ArgumentParser(prog="python -m pipeline.cli.scaling", description=__doc__).parse_args()
    study(config.load())


def study(params: Params) -> None:
    """Trains what is left, fits, shows, writes the page."""
    if not PLAN.exists():
        raise UserError(f"{PLAN}: no such file; it names the widths, tokens, rates and batches to try")
    plan: Plan = validated(Plan, yaml.safe_load(PLAN.read_text(encoding="utf-8")), "", PLAN.name)
    parts = scaling.planned(params, plan)
    results = iter(trials.run(params, [trial for part in parts for trial in part]))
    found = Study(*([(trial, next(results)) for trial in part] for part in parts))
    grid = [result for _, result in found.grid]
    law, rule = scaling.fit(grid), scaling.rule_of(params, found)
    console = Console()
    console.print(table(found, law))
    said = scaling.told(law, rule, grid)
    console.print(*said, sep="\n")
    kept: dict[str, Any] = {"law": dataclasses.asdict(law), "rule": dataclasses.asdict(rule), "of": budget.of(params)}
    kept |= {"pretrain": params.pretrain.model_dump(mode="json"), "largest": max(one.flops for one in grid)}
    files.write_json(FOUND, kept)
    files.write_text(PAGE, report.render_scaling([one._asdict() for one in grid], law.loss, said))
    console.print(PAGE)


def table(found: Study, law: Law) -> Table:
    """Every trial with what the law says of it."""
    made = Table("trial", "weights", "tokens", "operations", "loss", "law", "seconds")
    for trial, one in {trial.name: (trial, one) for part in found for trial, one in part}.values():
        foretold = f"{law.loss(one.weights, one.tokens):.4f}" if (trial, one) in found.grid else ""
        made.add_row(trial.name, f"{one.weights:,}", f"{one.tokens:,}", f"{one.flops:.2e}", f"{one.loss_nats:.4f}",
                     foretold, f"{one.seconds:.0f}")  # fmt: skip
    return made


if __name__ == "__main__":
    entry(main, again="the same command goes on with what is left")
