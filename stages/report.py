"""Stage report: every evaluation -> reports/report.html. The page of costs is outside the graph: `tohum report`."""

from pipeline import config, files
from pipeline.paths import REPORTS
from pipeline.reporting import report
from pipeline.tracking.stage import tracked_stage
from stages import entry


def main() -> None:
    """Renders the comparison."""
    params = config.load()
    with tracked_stage("report", params) as run:
        with run.work():
            files.write_text(REPORTS / "report.html", report.render(params))
        run.page(REPORTS / "report.html")
        for model in params.evaluations:
            run.headline({f"{model}/{key}": value for key, value in report.leading_scores(model)})
    print(REPORTS / "report.html")


if __name__ == "__main__":
    entry(main)
