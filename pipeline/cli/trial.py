"""One trial of a study, run by `pipeline.studies.trials`: `python -m pipeline.cli.trial KEY TRIAL`."""

import json
import sys

from pipeline import config
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.studies import trials
from pipeline.training.start import start


def main() -> None:
    """Trains and measures it; says what it found."""
    key, trial = sys.argv[1], trials.Trial(**json.loads(sys.argv[2]))
    params = config.load()
    if trials.keys(params, [trial]) != [key]:
        raise UserError("params.yaml, documents or code changed while the study ran; start it again")
    result = trials.train(params, trial, key, start)
    print(f"{trial.name}, seed {trial.seed}: {result.loss_nats:.4f} nats a token")


if __name__ == "__main__":
    entry(main)
