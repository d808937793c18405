"""Stage report: every evaluation -> reports/report.html and reports/models. Costs are in the page of `tohum report`."""

from pipeline import config, files
from pipeline.paths import MODEL_PAGES, REPORTS
from pipeline.reporting import model_page, report
from pipeline.tracking.stage import tracked_stage
from stages import entry


def main() -> None:
    """Renders the comparison and the page of every model."""
    params = config.load()
    with tracked_stage("report", params) as run:
        with run.work():
            files.write_text(REPORTS / "report.html", report.render(params))
            model_page.write(params)
        run.page(REPORTS / "report.html")
        for model in params.evaluations:
            run.page(MODEL_PAGES / f"{model}.html", "models")
        for model in params.evaluations:
            run.headline({f"{model}/{key}": value for key, value in report.leading_scores(model)})
    print(REPORTS / "report.html")


if __name__ == "__main__":
    entry(main)
