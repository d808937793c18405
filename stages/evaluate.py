"""Stage evaluate@<model>: a model folder and the samples -> reports/evaluation/<model>."""

import sys

from pipeline import config, files, integrity, outcomes
from pipeline.evaluation import open_subject
from pipeline.evaluation._measure_all import measure_all
from pipeline.paths import EVALUATION, MEASURES, MODELS
from pipeline.tracking.stage import tracked_stage
from stages import entry


def main() -> None:
    """Evaluates the model named on the command line by its entry in `evaluations`."""
    params = config.load()
    name = config.choice("model", sys.argv[1:], list(params.evaluations))
    with tracked_stage(f"evaluate@{name}", params) as run, run.work():
        subject = open_subject(name, params.compute)
        metrics, details, by_measure = measure_all(subject, params.evaluations[name], MEASURES)
        with files.replace_folder(EVALUATION / name) as folder:
            files.write_json(folder / "metrics.json", metrics)
            files.write_table(folder / "outcomes.parquet", outcomes.table(by_measure))
            beside = [folder / "metrics.json", folder / "outcomes.parquet"]
            integrity.write_json(folder / "details.json", details, beside=beside)
        run.log(metrics)
        run.model(MODELS / name, metrics)
        width = max(map(len, metrics), default=0)
        print(f"{name}:")
        print("\n".join(f"  {key:<{width}}  {value:.4f}" for key, value in sorted(metrics.items())))


if __name__ == "__main__":
    entry(main)
