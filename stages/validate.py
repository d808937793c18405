"""Stages validate@<gate> and validate-model@<model>: gates on the outs of the stage before.

`python -m stages.validate raw|tokens|samples` exits 1 when the gate fails, and the graph stops there.
`python -m stages.validate model <name>` exits 0 either way: a weak model is kept out of the registry, not the
others.
"""

import sys

from pipeline import config
from pipeline.gates import _run, _verdict
from pipeline.paths import DATA, REPORTS
from pipeline.tracking.stage import tracked_stage
from stages import entry


def main() -> None:
    """Runs the gate named on the command line; prints the failed expectations."""
    params = config.load()
    what, *rest = sys.argv[1:] or [""]
    if what == "model":
        name = config.choice("model", rest, list(params.evaluations))
        with tracked_stage(f"validate-model@{name}", params) as run:
            verdict = _run.judge_model(name, params, reports=REPORTS, work=run.work)
            run.page(REPORTS / "gates" / name / "page.html", f"gates/{name}")
            print(_verdict.table(verdict, REPORTS / "gates" / name))
    else:
        name = config.choice("gate", sys.argv[1:], [*_run.DATA_GATES, "model"])
        with tracked_stage(f"validate@{name}", params) as run:
            verdict = _run.judge_data(name, params, data=DATA, reports=REPORTS, work=run.work)
            run.page(REPORTS / "gates" / name / "page.html", f"gates/{name}")
            print(_verdict.table(verdict, REPORTS / "gates" / name))
            if not verdict["passed"]:
                sys.exit(1)


if __name__ == "__main__":
    entry(main)
