"""The journal of a served model as the sender sees it: where it is delivered to, and how far it was.

The server writes `.tohum/tracking/journal.json` (`announce`): tracking URI, experiment, and the journal's folder. The
cursor beside it holds the number of the last delivered entry. Numbers outlive rewritten segments, so an erasure or a
size bound moves nothing.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline import files, segments
from pipeline.paths import JOURNAL, QUEUE
from pipeline.rated import standing
from pipeline.segments import Entry

_SLICE = 200
USE = "-use"
"""Ending of the name of the experiment that holds traces, beside that of the runs."""


@dataclass
class JournalCursor:
    """The delivered part of the journal."""

    number: int = 0
    """Number of the last delivered entry."""
    store: str = ""
    """Identity of the store that it was delivered to."""


@dataclass
class About:
    """What people said of one request."""

    ratings: list[Entry] = field(default_factory=list)
    """The ratings that no later one of the same rater has superseded or taken back."""
    known: set[str] = field(default_factory=set)
    """Ids of all ratings in the journal, superseded ones too."""
    label: Any = None
    """The last label; None without."""


def announce(uri: str, experiment: str, journal: Path = JOURNAL, folder: Path = QUEUE) -> None:
    """Says where the journal is delivered to; the server calls it at its start.

    Args:
        uri: tracking URI of MLflow (`runtime.tracking.uri`).
        experiment: name of the runs' experiment (`runtime.tracking.experiment`); traces go to one called `<name>-use`.
        journal: the journal's folder.
        folder: the delivery queue.
    """
    address = {"uri": uri, "experiment": f"{experiment}{USE}", "journal": str(journal.absolute())}
    path = folder / "journal.json"
    if not path.exists() or files.read_json(path) != address:
        files.write_json(path, address)


class JournalBox:
    """The announced journal and its cursor."""

    def __init__(self, folder: Path = QUEUE) -> None:
        self._address, self._path = folder / "journal.json", folder / "journal.cursor.json"
        self._seen: tuple[Any, ...] = ()
        self.cursor = self._read()

    def address(self) -> tuple[str, str] | None:
        """Tracking URI and experiment; None where no server has announced a journal."""
        known = self._known()
        return (known["uri"], known["experiment"]) if known else None

    def is_waiting(self) -> bool:
        """Whether there may be entries that were not delivered; cheap while nothing has changed."""
        found = segments.segments(self._folder()) if self._known() else []
        if not found:
            return False
        stamp = (found[-1].path, found[-1].path.stat().st_size, self.cursor.number)
        if stamp == self._seen:
            return False
        if segments.last_number(self._folder()) < self.cursor.number:  # a new journal: the old folder was removed
            self.cursor = JournalCursor()
        if next(iter(self.entries(1)), None) is None:
            self._seen = stamp
            return False
        return True

    def entries(self, most: int = _SLICE) -> list[Entry]:
        """The next entries."""
        return list(islice(segments.read(self._folder(), self.cursor.number), most))

    def about(self, requests: Collection[str]) -> dict[str, About]:
        """What people said of these requests, by the whole journal."""
        found: defaultdict[str, About] = defaultdict(About)
        said: list[Entry] = []
        for entry in segments.read(self._folder(), kinds=("rating", "label"), on_damage=lambda _: None):
            if entry["request"] in requests:
                if entry["kind"] == "label":
                    found[entry["request"]].label = entry["label"] if entry["by"] != "mlflow" else None
                else:
                    said.append(entry)
                    found[entry["request"]].known.add(entry["id"])
        for entry in standing(said):
            found[entry["request"]].ratings.append(entry)
        return found

    def save(self) -> None:
        """Stores the cursor: after a delivery, never before."""
        files.write_json(self._path, asdict(self.cursor))

    def _folder(self) -> Path:
        return Path(self._known()["journal"])

    def _known(self) -> dict[str, str]:
        try:
            known = files.read_json(self._address)
            return {name: str(known[name]) for name in ("uri", "experiment", "journal")}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def _read(self) -> JournalCursor:
        """The stored cursor; the beginning where there is none or it is damaged, which delivers nothing twice."""
        try:
            cursor = JournalCursor(**files.read_json(self._path))
        except (OSError, ValueError, TypeError):
            return JournalCursor()
        fits = type(cursor.number) is int and cursor.number >= 0 and isinstance(cursor.store, str)
        return cursor if fits else JournalCursor()
