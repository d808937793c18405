"""One trial of a study, run by `pipeline.studies`: `python -m stages.trial KEY TRIAL`."""

import json
import sys

from pipeline import config, studies
from pipeline.config import UserError
from stages import entry, pretrain


def main() -> None:
    """Trains and measures it; says what it found."""
    key, trial = sys.argv[1], studies.Trial(**json.loads(sys.argv[2]))
    params = config.load()
    if studies.keys(params, [trial]) != [key]:
        raise UserError("params.yaml, documents or code changed while the study ran; start it again")
    result = studies.train(params, trial, key, pretrain.start)
    print(f"{trial.name}, seed {trial.seed}: {result.loss_nats:.4f} nats a token")


if __name__ == "__main__":
    entry(main, without=["pandas"])
