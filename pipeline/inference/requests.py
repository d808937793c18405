"""Requests to a registered model: a table of texts and generation settings, checked, and a table of answers.

    answers(predictor, table, {"max_tokens": 20})  ->  [{"completion": "..."}]

Columns: `text`, and for a task with a prompt template the optional `input` and `history`, as records of instructions
have them; of a reward model `answer` too, the text to score. Faults name the row and the column, for the 400 of
MLflow's scoring server.
"""

import math
from collections.abc import Mapping
from typing import Any

from pipeline.data import conversations
from pipeline.errors import UserError
from pipeline.inference.predictor import GENERATION, Predictor
from pipeline.prompts.request import Request
from pipeline.prompts.spec import REWARD, TaskSpec
from pipeline.tasks import Scoring

TEXT = "text"
INPUT, HISTORY, ANSWER = "input", "history", "answer"


def columns(task: TaskSpec) -> dict[str, bool]:
    """Name -> whether it is required, for each column of a model's requests."""
    scored = {ANSWER: True} if task.name == REWARD else {}
    return {TEXT: True} | scored | ({INPUT: False, HISTORY: False} if task.template else {})


def answers(predictor: Predictor, table: Any, settings: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """One answer per row.

    `label`, `score` and the `probabilities` of all labels; `labels` and `probabilities` (multi_label); `value`
    (regress); `reward` (reward); or `completion`.

    Args:
        predictor: a loaded model.
        table: a pandas DataFrame.
        settings: generation settings, for a model that answers in text.

    Raises:
        UserError: other columns, a missing text or one that is no string, an impossible setting.
    """
    requests = _requests(table, columns(predictor.task.spec))
    if isinstance(predictor.task, Scoring):
        return predictor.scored(requests)
    return predictor.answer(requests, _settings(settings or {}))


def _requests(table: Any, known: Mapping[str, bool]) -> list[Request]:
    if not hasattr(table, "to_dict"):
        raise UserError(f"the request is {type(table).__name__}; expected a table (a DataFrame) with a column {TEXT}")
    there = [str(name) for name in table.columns]
    fault = next((f"a column {name!r}" for name in there if name not in known), None)
    fault = fault or next((f"two columns {name!r}" for name in there if there.count(name) > 1), None)
    missing = next((name for name, required in known.items() if required and name not in there), None)
    if fault or missing:
        needed = " and ".join(repr(name) for name, required in known.items() if required)
        optional = "".join(f" and optionally {name}" for name, required in known.items() if not required)
        raise UserError(f"the request has {fault or f'no column {missing!r}'}; expected {needed}{optional}")
    return [_request(number, row) for number, row in enumerate(table.to_dict("records"), start=1)]


def _request(number: int, row: Mapping[str, Any]) -> Request:
    text, given, history = (_cell(number, name, row.get(name)) for name in (TEXT, INPUT, HISTORY))
    try:
        earlier = conversations.earlier(history)
    except ValueError as error:
        raise UserError(
            f"row {number}: {HISTORY}: {error}; expected the earlier messages as JSON, "
            '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
        ) from None
    return Request(text, given, earlier, _cell(number, ANSWER, row[ANSWER]) if ANSWER in row else None)


def _cell(number: int, name: str, value: Any) -> str:
    """The text in a cell; an empty one only where the column is optional."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    if missing and name not in (TEXT, ANSWER):
        return ""
    if not isinstance(value, str):
        found = "null" if missing else f"{value!r:.40} ({type(value).__name__})"
        raise UserError(f"row {number}: {name} is {found}; expected a string")
    return value


_LEAST = {"max_tokens": 1, "temperature": 0, "top_k": 0, "top_p": 0}


def _settings(settings: Mapping[str, Any]) -> dict[str, int | float]:
    """Generation settings, each a finite number in its range."""
    checked: dict[str, int | float] = {}
    for name, value in settings.items():
        if name not in GENERATION:
            raise UserError(f"{name} is no setting of an answer; one of: {', '.join(GENERATION)}")
        whole = isinstance(GENERATION[name], int)
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise UserError(f"{name} is {number!r:.40}; expected a {'whole ' if whole else ''}number")
        if whole and number != int(number):
            raise UserError(f"{name} is {number}; expected a whole number")
        least = _LEAST.get(name)
        above = name == "top_p"  # 0 would keep no token
        if least is not None and (number < least or (above and number == least)):
            raise UserError(f"{name} is {number}; expected {'more than' if above else 'at least'} {least}")
        if name == "top_p" and number > 1:
            raise UserError(f"{name} is {number}; expected at most 1")
        checked[name] = int(number) if whole else float(number)
    return checked
