"""State of a model's watch, `.tohum/watch/<model>/state.json`: looks, the error rate that they have spent, episodes.

It is written once a look, atomically, before anything is printed. A kill before the write spends nothing, for nobody
has seen the result; a kill after it loses nothing: the next look finds no new request and returns the stored one.

An episode begins with the first look that finds evidence and ends when two looks in a row find none (p > 0.05). It is
announced once; a new one can begin after it. A new model begins anew; its looks follow those of the last one on the
page.
"""

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from pipeline import files
from pipeline.errors import UserError
from pipeline.watching import spending
from pipeline.watching.observations import timestamp

FILE = "state.json"
CALM = 0.05
"""p-value above which a look finds no evidence; an episode ends after two such looks in a row."""
_CALM_LOOKS = 2
_KEPT_LOOKS = 400
_KEPT_EPISODES = 100
Kind = Literal["warning", "alarm"]


class Episode(BaseModel):
    """A run of looks with evidence of one kind."""

    id: str
    kind: Kind
    """warning: inputs have changed; alarm: quality has become worse."""
    began: str
    look: int
    """Number of the look that opened it."""
    evidence: list[str]
    """Names of the statistics or measures that opened it."""
    ended: str | None = None
    announced: bool = False
    calm: int = 0
    """Looks in a row without evidence."""


class State(BaseModel):
    """Of one model."""

    model_sha256: str = ""
    """Of the model that answered the requests of the last look."""
    looks: int = 0
    """Looks of all models so far."""
    period_began: str = ""
    period_looks: int = 0
    """Looks of the present period, which have spent a part of its rate."""
    seen: str = ""
    """Time of the newest request that was looked at."""
    judged: dict[str, int] = {}
    """Labelled and rated requests that were looked at."""
    history: list[dict[str, Any]] = []
    """The newest looks as JSON (looking.Look)."""
    episodes: list[Episode] = []

    @classmethod
    def read(cls, folder: Path) -> "State":
        """The state of a watch; an empty one where there is none.

        Raises:
            UserError: a damaged file.
        """
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except ValidationError:
            raise UserError(
                f"{path}: damaged; restore it from a copy, or remove it: the watch then begins a new period"
            ) from None

    def write(self, folder: Path) -> None:
        """Writes the state atomically."""
        self.history = self.history[-_KEPT_LOOKS:]
        self.episodes = self.episodes[-_KEPT_EPISODES:]
        files.write_json(folder / FILE, self.model_dump())

    def begin(self, model_sha256: str, now: datetime) -> int:
        """Counts a look; returns its number in the period. Another model, or 30 days, begin a new period."""
        moment = timestamp(now)
        if model_sha256 != self.model_sha256:
            for episode in self.episodes:
                episode.ended = episode.ended or moment
            self.model_sha256, self.seen, self.judged, self.period_began = model_sha256, "", {}, ""
        ends = self.period_began and datetime.fromisoformat(self.period_began) + timedelta(days=spending.DAYS)
        if not self.period_began or (ends and now >= ends):
            self.period_began, self.period_looks = moment, 0
        self.looks += 1
        self.period_looks += 1
        return self.period_looks

    def open_episode(self, kind: Kind) -> Episode | None:
        """The episode of a kind that has not ended."""
        return next((one for one in self.episodes if one.kind == kind and one.ended is None), None)

    def advance(self, kind: Kind, evidence: list[str], p_value: float | None, now: datetime) -> None:
        """Opens, continues or ends the episode of a kind after a look.

        Args:
            kind: of the episode.
            evidence: names of significant statistics; empty: none.
            p_value: of the evidence of this kind; None: not tested in this look, which ends nothing.
            now: time of the look.
        """
        current = self.open_episode(kind)
        if evidence and current is None:
            identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.model_sha256}/{kind}/{self.looks}").hex
            self.episodes.append(
                Episode(id=identity, kind=kind, began=timestamp(now), look=self.looks, evidence=evidence)
            )
        elif current is not None and p_value is not None:
            current.calm = current.calm + 1 if p_value > CALM else 0
            if current.calm >= _CALM_LOOKS:
                current.ended = timestamp(now)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One look at a model at a time: a second one waits, then finds what the first has done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
