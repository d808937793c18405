"""What share of a training run is not training: batches, validation, checkpoints, the run record, as JSON.

    python -m tests.bench.shares [--updates 330]

Pretrain of params.yaml with its own cadence, on data/samples (`dvc repro sample` first), nothing kept. CPU time of the
process, so that neighbours on the machine do not count.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any

from pipeline import config


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shares", description=__doc__)
    parser.add_argument("--updates", type=int, help="pretrain.schedule.steps by default")
    options = parser.parse_args()
    if not Path("data/samples/documents").exists():
        print(json.dumps({"bench": "shares", "skipped": "data/samples is not there: dvc repro sample first"}))
        return
    updates = options.updates or config.load().pretrain.schedule.steps
    print(json.dumps({"bench": "shares", "updates": updates, **shares(updates)}))


def shares(updates: int) -> dict[str, Any]:
    """Seconds of the run and the share of each part that is not an update."""
    from pipeline.paths import TOKENIZER
    from pipeline.training.build import build
    from pipeline.training.run import Trainer
    from pipeline.training.start import start
    from pipeline.training.state import State
    from tests.learners import records

    params = config.load()
    recipe = params.pretrain
    schedule = recipe.schedule.model_copy(update={"steps": updates})
    built = build("pretrain", recipe, "documents", start(recipe)[0], params, TOKENIZER)
    spent: Counter[str] = Counter()

    def timed(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            began = process_time()
            try:
                return run(*given, **named)
            finally:
                spent[name] += process_time() - began

        return call

    class Examples:
        def __len__(self) -> int:
            return len(built.train)

        __getitem__ = staticmethod(timed("batches", built.train.__getitem__))

    parts = replace(built.parts, schedule=schedule)
    log = SimpleNamespace(record={}, log=None)
    trainer = Trainer(
        built.model,
        parts,
        records(built.model, parts, Examples()),
        built.validation,
        recipe.validation,
        params.runtime,
        log,
        "shares",
    )
    collate, validate = parts.task.collate, trainer._validate
    parts.task.collate = timed("batches", collate)

    def validated(state_of: int) -> None:
        parts.task.collate = collate  # its batches are validation's
        timed("validation", validate)(state_of)
        parts.task.collate = timed("batches", collate)

    trainer._validate = validated
    trainer._save = timed("checkpoints", trainer._save)
    with tempfile.TemporaryDirectory() as folder:
        trainer.log.log = timed("record", _written(Path(folder) / "metrics.jsonl"))
        began = process_time()
        trainer.run(State(Path(folder)))
        whole = process_time() - began
    found = {name: round(spent[name] / whole, 4) for name in ("batches", "validation", "checkpoints", "record")}
    return {"cpu_seconds": round(whole, 1), "shares": found}


def _written(path: Path) -> Callable[..., None]:
    """As the tracker keeps a step: a line appended to a file."""

    def log(metrics: dict[str, float], step: int | None = None) -> None:
        with path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    return log


if __name__ == "__main__":
    main()
