"""Answers of a model folder to prompts from standard input: the process that sources of data ask.

    python -m pipeline.inference.prompted FOLDER '{"max_tokens": 64, "temperature": 0.0, "seed": 1}'

Reads lines that are JSON lists of prompts, writes for each a line with the JSON list of its answers.
"""

import json
import sys
from pathlib import Path

from pipeline.entry import entry
from pipeline.errors import UserError


def main() -> None:
    """Answers until standard input ends. Raises UserError for a model that does not answer in text."""
    from pipeline.inference.predictor import Predictor
    from pipeline.tasks import Scoring

    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    predictor = Predictor(folder)
    if isinstance(predictor.task, Scoring):
        task = predictor.task.spec.name
        raise UserError(f"{folder}: its task is {task}, which answers with labels or a number; expected text")
    for line in sys.stdin:
        answers = predictor.answer(json.loads(line), settings)
        print(json.dumps([answer["completion"] for answer in answers]), flush=True)


if __name__ == "__main__":
    entry(main, again="the next `dvc repro` continues")
