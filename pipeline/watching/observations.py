"""Observations: counts and scores of every request to a served model, without its text.

    log = ObservationLog(Path("journal/observations"))
    vocabulary = Vocabulary.read(WATCH / "chat-lora")          # None where there is none yet
    log.append(observe("Where is Ayşe?", Facts(request="req-1", model="chat-lora", tokens=7), vocabulary))

They are kept for all requests, consented or not, because no text can be read back from them: they hold numbers, a
language, an answered label, and the request's id, by which labels that arrive later are joined. The watch compares
their distribution with that of the reference records (pipeline/watching/reference.py). A file per UTC day, one JSON
object a line; a line that a killed process left unfinished is skipped.
"""

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data import language
from pipeline.data.served import asked_text, label_text
from pipeline.watching.vocabulary import Vocabulary, folded_words

__all__ = [
    "Facts",
    "Observation",
    "ObservationLog",
    "Vocabulary",
    "asked_text",
    "folded_words",
    "label_text",
    "observe",
    "read",
    "timestamp",
]

_LANGUAGE_SEEN = 400  # characters; `language.guess` reads more, at a cost of 0.1 ms a thousand
_DAY = "%Y-%m-%d"


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a request and its answer that the server knows; None where it does not."""

    request: str = ""
    """Id of the request."""
    model: str = ""
    """Name of the model that answered."""
    version: str | None = None
    """Its registered version."""
    model_sha256: str | None = None
    """Hash of its folder."""
    tokens: int | None = None
    """Tokens of the text (of a conversation its last message), without the template's."""
    label: str | None = None
    """Answered label."""
    confidence: float | None = None
    """Probability of the answered label."""
    value: float | None = None
    """Answered number (regress)."""
    nats_per_token: float | None = None
    """Mean loss of the request's text under the model, in nats: -ln p of each of its tokens. Of text models only."""
    answer_tokens: int | None = None
    """Tokens of the answer."""
    answer_nats: float | None = None
    """Mean of -ln p over the answer's own tokens, at temperature 1: the model's uncertainty, no loss."""
    embedding: Sequence[float] | npt.NDArray[np.float32] | None = None
    """Embedding of the text; only its distance from the reference's centre is kept."""

    @classmethod
    def of_answer(cls, answer: Mapping[str, Any], **known: Any) -> "Facts":
        """Facts with the label, confidence or value of one of the predictor's answers (inference/predictor.py)."""
        label = label_text(answer["label"] if "label" in answer else answer.get("labels"))
        return cls(label=label, confidence=answer.get("score"), value=answer.get("value"), **known)


@dataclass(frozen=True, slots=True)
class Observation:
    """The counts and scores of one request. `None` is left out of its line."""

    time: str
    """ISO 8601 in UTC with milliseconds."""
    request: str
    model: str
    version: str | None
    model_sha256: str | None
    characters: int
    words: int
    language: str
    """`tr`, `en`, or `und` (pipeline/data/language.py)."""
    turns: int
    """Messages of the user in the conversation; 1 for a text."""
    unknown_words: float | None = None
    """Share of words that the reference vocabulary does not have."""
    tokens: int | None = None
    fertility: float | None = None
    """Tokens a word."""
    label: str | None = None
    confidence: float | None = None
    value: float | None = None
    nats_per_token: float | None = None
    answer_tokens: int | None = None
    answer_nats: float | None = None
    distance: float | None = None
    """Cosine distance of the embedding from the reference's centre, 0 to 2."""

    def plain(self) -> dict[str, Any]:
        """The observation as JSON values, without what is None or not finite."""
        return {
            key: value
            for key, value in asdict(self).items()
            if value is not None and (not isinstance(value, float) or math.isfinite(value))
        }


_FIELDS = frozenset(field.name for field in fields(Observation))
_TEXTS = ("time", "request", "model", "language")
_WORDS = frozenset((*_TEXTS, "version", "model_sha256", "label"))


def observe(
    asked: str | Sequence[Mapping[str, Any]],
    facts: Facts | None = None,
    vocabulary: Vocabulary | None = None,
    now: datetime | None = None,
) -> Observation:
    """The observation of one request; below 0.1 ms of a CPU for a message, 0.2 ms for a page of text.

    Args:
        asked: a text, or the messages of a conversation (`role`, `content`), whose last message of the user counts: the
            earlier ones were observed with their own requests.
        facts: known about request and answer; None: nothing.
        vocabulary: of the reference; None: `unknown_words` and `distance` stay None.
        now: time of the request; None: the present.
    """
    facts = facts or Facts()
    text, turns = asked_text(asked)
    words = folded_words(text)
    embedded = vocabulary is not None and facts.embedding is not None
    return Observation(
        time=timestamp(now or datetime.now(UTC)), request=facts.request, model=facts.model, version=facts.version,
        model_sha256=facts.model_sha256, characters=len(text), words=len(words),
        language=language.guess(text[:_LANGUAGE_SEEN]), turns=turns,
        unknown_words=None if vocabulary is None else vocabulary.unknown(words), tokens=facts.tokens,
        fertility=facts.tokens / len(words) if facts.tokens is not None and words else None,
        label=facts.label, confidence=facts.confidence, value=facts.value, nats_per_token=facts.nats_per_token,
        answer_tokens=facts.answer_tokens, answer_nats=facts.answer_nats,
        distance=vocabulary.distance(facts.embedding) if embedded else None,  # type: ignore[union-attr, arg-type]
    )  # fmt: skip


def timestamp(moment: datetime) -> str:
    """A time as observations and states have it: UTC with milliseconds, `2026-11-29T20:40:00.000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


class ObservationLog:
    """Observations on disk, appended by the threads of one server; several servers may share a folder.

    A line is one write to a file opened for appending, so it survives the kill of the process, though not a power cut:
    the watch needs no single observation, and a flush to the disk would cost more than the observation.
    """

    def __init__(self, folder: Path, keep_days: int = 90) -> None:
        """`folder`: journal/observations; `keep_days`: files of earlier days are removed when a day begins."""
        self._folder, self._keep_days = folder, keep_days
        self._lock = threading.Lock()
        self._day, self._handle = "", -1

    def append(self, observation: Observation) -> None:
        """Writes one line.

        Raises:
            OSError: the disk refuses it, for example because it is full; a part of the line is ended by the next one.
        """
        line = json.dumps(observation.plain(), ensure_ascii=False, separators=(",", ":")) + "\n"
        with self._lock:
            if observation.time[:10] != self._day:
                self._open(observation.time[:10])
            data = line.encode("utf-8", "surrogatepass")
            written = os.write(self._handle, data)
            if written < len(data):
                os.write(self._handle, b"\n")
                raise OSError(f"{self._folder}: only {written} of {len(data)} bytes of an observation were written")

    def close(self) -> None:
        """Closes the file; a later append opens it again."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
            self._day, self._handle = "", -1

    def _open(self, day: str) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{day}.jsonl"
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._day = day
        size = os.fstat(self._handle).st_size
        if size and os.pread(self._handle, 1, size - 1) != b"\n":
            os.write(self._handle, b"\n")  # ends the line that a killed process left
        first = (datetime.strptime(day, _DAY).replace(tzinfo=UTC) - timedelta(days=self._keep_days)).strftime(_DAY)
        for old in self._folder.glob("????-??-??.jsonl"):
            if old.stem < first:
                old.unlink(missing_ok=True)


def read(folder: Path, model: str | None = None, since: str = "") -> Iterator[Observation]:
    """The observations in a folder, in the order of their files and lines.

    A line that is no observation (left by a killed process, or damaged) is skipped.

    Args:
        folder: journal/observations; a missing one has none.
        model: only of this model; None: of all.
        since: only those with a later time than this `timestamp`.
    """
    for path in sorted(folder.glob("????-??-??.jsonl")):
        if path.stem < since[:10]:
            continue
        with path.open("rb") as file:
            for line in file:
                found = _parsed(line)
                if found is not None and (model is None or found.model == model) and found.time > since:
                    yield found


def _parsed(line: bytes) -> Observation | None:
    try:
        content = json.loads(line)
    except ValueError:  # also bytes that are no UTF-8
        return None
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str) for name in _TEXTS):
        return None
    known = {key: value for key, value in content.items() if key in _FIELDS}
    if not all(isinstance(value, str if key in _WORDS else int | float) for key, value in known.items()):
        return None
    try:
        return Observation(**{"version": None, "model_sha256": None} | known)
    except TypeError:  # a count is missing
        return None
