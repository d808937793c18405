"""Stage merge@<name>: two models that were tuned from the same one -> models/<name>."""

import sys

from pipeline import config, files, integrity
from pipeline.merging import merge
from pipeline.model.device import set_up
from pipeline.paths import MODELS, TRAINING
from pipeline.tracking.stage import tracked_stage
from stages import entry


def main() -> None:
    """Merges the models of the entry of `merge` in params.yaml that is named on the command line."""
    params = config.load()
    name = config.choice("merge", sys.argv[1:], list(params.merge))
    chosen = params.merge[name]
    set_up(params.compute)
    with tracked_stage(f"merge@{name}", params) as run:
        with run.work():
            for model in (chosen.of, chosen.first, chosen.second):
                integrity.require_intact(MODELS / model)
            figures = merge(name, chosen, MODELS)
            files.write_json(TRAINING / f"{name}.json", figures)
            integrity.write_json(TRAINING / f"{name}.hashes.json", {}, beside=[TRAINING / f"{name}.json"])
        run.log(figures)
        run.model(MODELS / name, figures)
    print(
        f"  {chosen.first} lies {figures['task_norm_first']:.3g} from {chosen.of}, {chosen.second} "
        f"{figures['task_norm_second']:.3g}; cosine {figures['task_cosine']:.3f}, signs conflict in "
        f"{figures['sign_conflict_share']:.1%} of the weights that both moved"
    )


if __name__ == "__main__":
    entry(main)
