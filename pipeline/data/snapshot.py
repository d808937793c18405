"""Snapshots of the journal: a JSONL file below inputs/ that a source reads, so that a run can be repeated.

A line is a request with consent, the ratings of it that stand and have consent, and its late label, if there is one:

    {"id", "time", "model", "model_sha256", "task", "user", "consent", "settings", "messages" or "text",
     "answers": [{"text", "ids", "logprobs", "finish"}], "label", "late_label", "ratings": [{"id", "time", "rater",
     "form", "value", "consent"}]}

Requests come in the order of the journal. Snapshots may overlap: of several lines about one request the last counts.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import segments
from pipeline.errors import UserError
from pipeline.files import replacing, sha256_of
from pipeline.rated import standing
from pipeline.segments import Entry

_REQUEST = (
    "id", "time", "model", "version", "model_sha256", "task", "user", "consent", "settings", "messages", "text",
    "answers", "label",
)  # fmt: skip
_RATING = ("id", "time", "rater", "form", "value", "consent")


@dataclass(frozen=True)
class Written:
    """A written snapshot."""

    path: Path
    sha256: str
    requests: int
    ratings: int
    labels: int
    until: int
    """Number of the journal's last entry before the snapshot was begun: all ratings up to it are in the file."""


def write(journal: Path, path: Path) -> Written:
    """Writes a snapshot of the whole journal; equal journals give equal bytes.

    Raises:
        UserError: the journal has no request with consent.
    """
    until = segments.last_number(journal)
    ratings, labels = _about(journal)
    n_ratings = n_labels = n_requests = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for entry in _requests(journal):
            line = {name: entry[name] for name in _REQUEST if name in entry}
            if entry["id"] in labels:
                line["late_label"] = labels[entry["id"]]
                n_labels += 1
            line["ratings"] = [{name: one[name] for name in _RATING} for one in ratings.get(entry["id"], [])]
            n_ratings += len(line["ratings"])
            n_requests += 1
            file.write(dumped(line) + "\n")
        if not n_requests:
            raise UserError(
                f"{journal}: has no request with consent; only what people allow is journaled (the switch of the page, "
                "or `store: true` of a request)"
            )
    return Written(path, sha256_of(path), n_requests, n_ratings, n_labels, until)


def mark(written: Written) -> Entry:
    """The journal's entry about a snapshot that stays: its ratings may go where the journal needs room."""
    return {
        "kind": "export", "file": written.path.as_posix(), "file_sha256": written.sha256, "until": written.until,
    }  # fmt: skip


def read(path: Path) -> Iterator[tuple[int, Entry | str]]:
    """Line number and content of each line of a snapshot; for a line that is none, the fault in words."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                yield number, f"no JSON: {error}"
                continue
            yield number, _fault(entry) or entry


def holders(folder: Path, user: str) -> list[tuple[Path, list[int]]]:
    """Files of a folder that still hold a user's requests or ratings, each with the lines."""
    found = []
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open("rb") as file:
            lines = [number for number, line in enumerate(file, 1) if user.encode() in line]
        if lines:
            found.append((path, lines))
    return found


def _about(journal: Path) -> tuple[Mapping[str, list[Entry]], dict[str, Any]]:
    """Ratings with consent that stand, and the last label, by request."""
    said: list[Entry] = []
    labels: dict[str, Any] = {}
    for entry in segments.read(journal, kinds=("rating", "label")):
        if entry["kind"] == "rating":
            said.append(entry)
        elif entry["kind"] == "label":
            labels[entry["request"]] = entry["label"]
    ratings: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in standing(said):
        if entry["consent"] is not None:
            ratings[entry["request"]].append(entry)
    return ratings, labels


def _requests(journal: Path) -> Iterable[Entry]:
    seen: set[str] = set()
    for entry in segments.read(journal, kinds=("request",)):
        if entry["consent"] is not None and entry["id"] not in seen:
            seen.add(entry["id"])
            yield entry


def dumped(line: Entry) -> str:
    """A line of a snapshot, without its line feed; ASCII where the text holds half of a surrogate pair."""
    text = json.dumps(line, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(line, allow_nan=False)
    return text


def _fault(entry: Any) -> str | None:
    """The first fault of a line; None if it is a request."""
    if not isinstance(entry, dict):
        return f"found {type(entry).__name__}; expected an object"
    texts = {"id": str, "model_sha256": str, "consent": str, "time": str, "answers": list, "ratings": list}
    for name, kind in texts.items():
        if not isinstance(entry.get(name), kind):
            return f"{name} is {entry.get(name)!r:.40}; expected {'a list' if kind is list else 'text'}"
    if not isinstance(entry.get("messages"), list) and not isinstance(entry.get("text"), str):
        return "has neither messages nor a text"
    if not all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in entry["answers"]):
        return "has an answer without a text"
    if not all(isinstance(one, dict) and {"id", "rater", "form", "value"} <= one.keys() for one in entry["ratings"]):
        return "has a rating without id, rater, form or value"
    return None
