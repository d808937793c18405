"""A first look at a user's records through the project's own readers, before any stage runs.

It counts records, labels and bytes of the first records, so that a file that cannot be learned from is refused at once,
and chooses split shares that leave enough records to validate and to test on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import plugins
from pipeline.config.params import Source, Split
from pipeline.config.recipe import Kind
from pipeline.data.label_cells import labels_of
from pipeline.data.ledger import RowLog
from pipeline.data.records import CONTENT, SPLITS, TEXTS, record_id
from pipeline.data.split import split_of
from pipeline.errors import UserError

_MOST_BYTES = 20 << 20
"""Bytes of text that are read of each source."""
HELD_OUT = 50
"""Records wanted in the validation split and in the test split."""
_SHARES = (0.05, 0.2)
"""Smallest and largest share of each of them."""
_FEWEST = 12
"""Different records below which no split is worth the name."""
_SEEDS = 200
_EVERYWHERE = 8
"""Records from which a label is expected in every split."""


@dataclass
class Survey:
    """The first records of a data set; equal records count once."""

    kind: Kind
    """Kind of the records; `documents` where there is nothing else."""
    place: str = "the data"
    """The file, for errors."""
    sizes: dict[Kind, dict[str, int]] = field(default_factory=dict)
    """Kind -> record id -> UTF-8 bytes of its text."""
    labels: dict[str, str] = field(default_factory=dict)
    """Record id -> label cell (pipeline/data/label_cells.py)."""
    answers: dict[str, int] = field(default_factory=dict)
    """Record id -> UTF-8 bytes of its answer."""
    rows: Counter[Kind] = field(default_factory=Counter)
    """Kind -> records read, equal ones included."""
    turns: bool = False
    """Whether some records have earlier messages."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rejected rows by reason."""

    def repeated(self) -> float:
        """The largest share of a kind's records that repeat another one."""
        return max(1 - len(self.sizes[kind]) / rows for kind, rows in self.rows.items())

    def label_counts(self) -> Counter[str]:
        """Number of records of every label; a record with several counts for each."""
        return Counter(label for cell in self.labels.values() for label in labels_of(cell))

    def splits(self, kind: Kind, split: Split) -> dict[str, list[str]]:
        """Split -> the ids of its records."""
        members: dict[str, list[str]] = {name: [] for name in SPLITS}
        for identity in self.sizes.get(kind, {}):
            members[split_of(identity, split)].append(identity)
        return members


def survey(sources: Mapping[str, Mapping[str, Any]], kind: Kind) -> Survey:
    """Reads the first records of sources that are files, relative to the working folder.

    Args:
        sources: entries of `download.sources`.
        kind: the kind of record that is learned from.

    Raises:
        UserError: a file that the readers refuse, too few different records, or labels that are no classes.
    """
    surveyed = Survey(kind, Path(next(iter(sources.values()))["path"]).name if sources else "the data")
    for entry, raw in sources.items():
        where = f"download.sources.{entry}"
        source = Source.model_validate(raw)
        log = RowLog(entry)
        _add(
            plugins.load("data/sources", source.name).read(source.settings("data/sources", where), entry, log), surveyed
        )
        for (of, reason), n in log.reasons.items():
            if of == kind:
                surveyed.rejected[reason] += n
    _require_enough(surveyed)
    return surveyed


def _add(tables: Iterable[tuple[Kind, Any]], surveyed: Survey) -> None:
    """Adds a source's records to the survey, up to _MOST_BYTES of text."""
    read = 0
    for kind, table in tables:
        columns = [name for name in TEXTS[kind] if name in table.column_names]
        known = surveyed.sizes.setdefault(kind, {})
        for row in table.select(columns).to_pylist():
            content, history = [row[name] for name in CONTENT[kind]], row.get("history")
            identity = record_id(kind, *content, history=history)
            known[identity] = sum(len(text.encode("utf-8", "surrogatepass")) for text in [*content, history or ""])
            surveyed.turns = surveyed.turns or bool(history)
            read += known[identity]
            surveyed.rows[kind] += 1
            if kind == "labelled":
                surveyed.labels[identity] = row["label"]
            if kind == "instructions":
                surveyed.answers[identity] = len(row["output"].encode("utf-8", "surrogatepass"))
        if read > _MOST_BYTES:
            return


def _require_enough(surveyed: Survey) -> None:
    """Raises UserError where nothing can be learned from the records."""
    different = len(surveyed.sizes.get(surveyed.kind, {}))
    rows = surveyed.rows[surveyed.kind]
    repeats = f" ({rows:,} rows, the others repeat them)" if rows > different else ""
    if different < _FEWEST:
        raise UserError(
            f"{surveyed.place}: holds {different} different {surveyed.kind}{repeats}; expected at least {_FEWEST}, to "
            "train, to validate and to test on: add records"
        )
    if surveyed.kind != "labelled":
        return
    counts = surveyed.label_counts()
    if len(counts) < 2:
        raise UserError(
            f"{surveyed.place}: every record has the label {next(iter(counts))!r}; expected two labels or more: name "
            "another column as the label, or add records of another class"
        )
    if len(counts) > different / 2:
        raise UserError(
            f"{surveyed.place}: the label column has {len(counts):,} different values in {different:,} "
            "records; expected a few classes that repeat: name another column as the label"
        )


def choose_split(surveyed: Survey, test: int = HELD_OUT) -> Split:
    """Split shares that leave about 50 records to validate and to test on, and a seed that serves every label.

    Each share is so many records' worth, within 5 % and 20 %. The seed is the first with which every split of every
    kind has records, the training split every label, and the other splits every label of eight records or more, if one
    of the first 200 has; else the last condition is dropped. No score enters the choice.

    Args:
        surveyed: the records.
        test: records wanted in the test split.

    Raises:
        UserError: a label that is too rare to be in the training split.
    """
    fewest = min(len(sizes) for sizes in surveyed.sizes.values())
    share, tested = (round(min(_SHARES[1], max(_SHARES[0], n / fewest)), 2) for n in (HELD_OUT, test))
    candidates = [Split(by="record", seed=seed, validation=share, test=tested) for seed in range(1, _SEEDS + 1)]
    usable: Split | None = None
    for split in candidates:
        filled = all(
            min(map(len, surveyed.splits(kind, split).values())) >= max(1.0, share * len(sizes) / 2)
            for kind, sizes in surveyed.sizes.items()
        )
        missing = _missing(surveyed, split)
        if filled and not missing:
            return split
        if filled and not any(name == "train" for name, _ in missing):
            usable = usable or split
    if usable is None:
        label, n = min(surveyed.label_counts().items(), key=lambda pair: pair[1], default=("", 0))
        raise UserError(
            f"{surveyed.place}: no split leaves records of every label to train on; the rarest label "
            f"{label!r} has {n} records: add records of it, or take it out"
        )
    return usable


def _missing(surveyed: Survey, split: Split) -> list[tuple[str, str]]:
    """(split, label) where a split lacks a label that it should have."""
    if surveyed.kind != "labelled":
        return []
    counts = surveyed.label_counts()
    missing = []
    for name, identities in surveyed.splits("labelled", split).items():
        present = {label for identity in identities for label in labels_of(surveyed.labels[identity])}
        expected = {label for label, n in counts.items() if name == "train" or n >= _EVERYWHERE}
        missing += [(name, label) for label in sorted(expected - present)]
    return missing


def total(sizes: Mapping[str, int], identities: Sequence[str]) -> int:
    """The bytes of some records."""
    return sum(sizes[identity] for identity in identities)
