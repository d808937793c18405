"""Evidence of quality: labels that arrive later, ratings, and the texts and answers of consented requests.

All of it is in the journal of the server (pipeline/data/journal.py). Labels come into it by a file (`tohum watch MODEL
--labels FILE`), by `POST /v1/labels`, or from assessments in MLflow.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.data import journal, language
from pipeline.data.served import asked_text, label_text, labels_of
from pipeline.errors import UserError
from pipeline.paths import JOURNAL, OBSERVATIONS
from pipeline.watching import observations

_COLUMNS = ("request", "label")


@dataclass(frozen=True)
class Evidence:
    """What a look reads besides observations."""

    texts: Mapping[str, str]
    """Request -> text, of consented requests."""
    labels: Mapping[str, str]
    """Request -> label that arrived later."""
    answers: Mapping[str, tuple[str, str]]
    """Request -> answer of a text model and its language, of consented requests."""
    ratings: Sequence[Mapping[str, Any]] = ()
    """Ratings that stand."""


NOTHING = Evidence({}, {}, {})


def of_journal(folder: Path = JOURNAL) -> Evidence:
    """The evidence in a journal; what is about other models is left out later, by the ids of the observed requests."""
    said = list(journal.read(folder, kinds=("rating", "label")))
    texts, answers = {}, {}
    for entry in journal.read(folder, kinds=("request",)):  # one at a time: its ids and log-probabilities are long
        if not entry["consent"]:
            continue
        text, _ = asked_text(entry["messages"] if "messages" in entry else entry.get("text", ""))
        texts[str(entry["id"])] = text
        if given := [answer["text"] for answer in entry["answers"] if answer.get("text")]:
            answers[str(entry["id"])] = (str(given[0]), language.guess(text))
    return Evidence(texts, labels_of(said), answers, journal.standing(said))


def read_labels(path: Path) -> dict[str, str]:
    """Request -> label of a CSV file with the columns request and label, or a JSONL file with these keys.

    Raises:
        UserError: another file, or a row without both.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a CSV or JSONL file with the columns {', '.join(_COLUMNS)}")
    rows = _json_rows(path) if path.suffix in (".jsonl", ".ndjson", ".json") else _csv_rows(path)
    labels: dict[str, str] = {}
    for number, row in rows:
        request, label = row.get("request"), label_text(row.get("label"))
        if not isinstance(request, str) or not request or label is None or (label == "" and path.suffix == ".csv"):
            lacking = "label" if isinstance(request, str) and request else "request"
            raise UserError(
                f"{path}: line {number}: {lacking} is {row.get(lacking)!r:.40}; expected the id of a request, as the "
                "server answered it, and its label"
            )
        labels[request] = label
    return labels


def observed_requests(folder: Path = OBSERVATIONS) -> set[str]:
    """Ids of all observed requests, which labels are joined by."""
    return {one.request for one in observations.read(folder)}


def keep_labels(labels: Mapping[str, Any], by: str, folder: Path = JOURNAL) -> int:
    """Appends labels to the journal, those that it does not have already; returns their number.

    Raises:
        UserError: the journal cannot be written.
    """
    known = labels_of(journal.read(folder, kinds=("label",)))
    fresh = {request: label for request, label in labels.items() if known.get(request) != label_text(label)}
    if fresh:
        kept = journal.Journal(folder, journal.UNBOUNDED, 0)  # only the server drops entries, by its own bounds
        for request, label in fresh.items():
            kept.append({"kind": "label", "request": request, "label": label, "by": by})
        kept.close()
    return len(fresh)


def keep_labels_of_mlflow(folder: Path = JOURNAL) -> int:
    """Appends the labels that people gave to traces in MLflow to the journal; returns the number of new ones.

    Raises:
        UserError: MLflow does not answer, or the journal cannot be written.
    """
    from pipeline.tracking import mlflow_labels  # mlflow costs 3 s

    tracking = config.load().runtime.tracking
    return keep_labels(mlflow_labels.given(tracking.uri, tracking.experiment), "mlflow", folder)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
                found = ", ".join(reader.fieldnames or ()) or "no header"
                raise UserError(f"{path}: line 1: no column {missing[0]}, found {found:.80}; expected request,label")
            for row in reader:
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: {error}; expected CSV in UTF-8 with the columns request and label") from None


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines: Iterable[bytes] = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(
                f'{path}: line {number}: found {line[:40]!r}; expected one object a line, {{"request": "req-...", '
                '"label": "..."}'
            )
        yield number, row
