"""Deduplication and decontamination: records to remove because they repeat a kept record of their or a guarded split.

Test is guarded against validation and training, validation against training: a record in both is removed from the less
guarded split, never the other way. Records are decided in that order, then in input order, each against the kept ones
only: no two kept records are near duplicates, and every removed record names a kept one that it is itself near to
(removing all but one of a chain of near pairs would also remove records unlike any kept one). Families of records with
common forms or buckets are decided one after the other, so memory is bounded by the largest family.
"""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.params import Deduplicate
from pipeline.config.recipe import Kind
from pipeline.data.deduplicate import FIELD_MARK, Forms, Text
from pipeline.data.external import Digests
from pipeline.data.language import normal
from pipeline.data.records import CONTENT, SPLITS, TEXTS

Reason = Literal["duplicate", "near_duplicate", "contamination"]
REASONS: tuple[Reason, ...] = ("duplicate", "near_duplicate", "contamination")

_GUARD = np.array([("test", "validation", "train").index(split) for split in SPLITS])
_TRAIN = SPLITS.index("train")

# COMPARED: fields whose equality makes two records duplicates. BESIDES: fields that must be equal too for duplicates
# within one split (several ranked answers to one prompt are several records).
COMPARED: dict[Kind, tuple[str, ...]] = {
    "documents": ("text",),
    "labelled": ("text",),
    "instructions": ("instruction", "input"),
    "preferences": ("instruction", "input"),
    "ratings": ("prompt",),
}
BESIDES: dict[Kind, tuple[str, ...]] = {
    "documents": (),
    "labelled": (),
    "instructions": (),
    "preferences": ("chosen", "rejected"),
    "ratings": ("answers", "verdict", "correction", "rater"),
}


@dataclass(frozen=True)
class Removal:
    """A record to remove."""

    row: int
    of: int
    """Row of the kept record that it repeats."""
    reason: Reason
    exact: bool
    """Whether the normal forms are equal; else near."""
    similarity: float
    """Jaccard similarity of word shingles, 1 when exact."""


@dataclass(frozen=True)
class Scope:
    """Restrictions of a deduplication; arrays of shape (records)."""

    absent: npt.NDArray[np.bool_]
    """Records that are neither removed nor compared with."""
    families: npt.NDArray[np.int64]
    """Records with equal numbers are no duplicates of each other within a split."""
    last: npt.NDArray[np.bool_]
    """Records that are decided after the others of their split, so that they never remove one of them."""

    @classmethod
    def of_kept(cls, kept: npt.NDArray[np.bool_]) -> "Scope":
        """The kept records alone, compared as without a scope."""
        return cls(absent=~kept, families=np.arange(len(kept)), last=np.zeros(len(kept), np.bool_))


@dataclass(frozen=True)
class Removals:
    """The records to remove, ascending by row; arrays of shape (records)."""

    rows: npt.NDArray[np.int64]
    of: npt.NDArray[np.int64]
    reasons: npt.NDArray[np.uint8]
    """Indices into REASONS."""
    exact: npt.NDArray[np.bool_]
    similarities: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def joined(self, other: "Removals") -> "Removals":
        """Both, by row; no record is in both."""
        rows = np.concatenate([self.rows, other.rows])
        order = np.argsort(rows)
        return Removals(
            rows[order],
            np.concatenate([self.of, other.of])[order],
            np.concatenate([self.reasons, other.reasons])[order],
            np.concatenate([self.exact, other.exact])[order],
            np.concatenate([self.similarities, other.similarities])[order],
        )

    def __iter__(self) -> Iterator[Removal]:
        for row, of, reason, exact, similarity in zip(
            self.rows, self.of, self.reasons, self.exact, self.similarities, strict=True
        ):
            yield Removal(int(row), int(of), REASONS[reason], bool(exact), float(similarity))


def removals(  # noqa: PLR0913 - columns of one table, each optional one by name
    texts: Iterable[Text],
    splits: npt.NDArray[np.uint8],
    settings: Deduplicate,
    *,
    across_splits: bool,
    besides: Sequence[bytes] | None = None,
    pinned: npt.NDArray[np.bool_] | None = None,
    folder: Path | None = None,
    scope: Scope | None = None,
) -> Removals:
    """The records to remove, by row.

    Args:
        texts: compared fields and language of each record, read once.
        splits: resolved split of each record, in the same order, as an index into records.SPLITS.
        settings: params.yaml: sample.deduplicate.
        across_splits: whether duplicates in two splits count as well (reason `contamination`).
        besides: digest of the fields that must also be equal within a split (`besides_of`), one per record; None: no
            such fields.
        pinned: whether the source pinned the record to its split; None: no record. The validation and test sets of a
            source are benchmarks for which others report figures, so duplicates inside them stay.
        folder: for temporary files; None: the system's temporary folder.
        scope: records that are left aside or are decided last; None: all are compared.

    Clean samples give none with `across_splits=True`.
    """
    forms = Forms(texts, settings, folder)
    assert forms.texts == len(splits), "one split per text"
    collected = _Collected()
    for rows, form_of in forms.families():
        family = _Family(forms, splits, across_splits, besides, pinned, scope)
        places = _GUARD[splits[rows]]
        order = np.argsort(places if scope is None else 2 * places + scope.last[rows], kind="stable")
        for row, form in zip(rows[order].tolist(), form_of[order].tolist(), strict=True):
            if scope is not None and scope.absent[row]:
                continue
            if (removal := family.decide(row, form)) is not None:
                collected.add(removal)
    return collected.sorted()


class _Collected:
    """Removals in the order of their decision, 26 bytes each."""

    def __init__(self) -> None:
        self._rows, self._of, self._similarities = array("q"), array("q"), array("d")
        self._reasons, self._exact = array("B"), array("B")

    def add(self, removal: Removal) -> None:
        self._rows.append(removal.row)
        self._of.append(removal.of)
        self._reasons.append(REASONS.index(removal.reason))
        self._exact.append(removal.exact)
        self._similarities.append(removal.similarity)

    def sorted(self) -> Removals:
        rows = np.frombuffer(self._rows, np.int64)
        order = np.argsort(rows)
        return Removals(
            rows[order],
            np.frombuffer(self._of, np.int64)[order],
            np.frombuffer(self._reasons, np.uint8)[order],
            np.frombuffer(self._exact, np.bool_)[order],
            np.frombuffer(self._similarities, np.float64)[order],
        )


class _Family:
    """The kept records of one family, and the decision on its next record."""

    def __init__(  # noqa: PLR0913 - the columns of `removals`
        self,
        forms: Forms,
        splits: npt.NDArray[np.uint8],
        across: bool,
        besides: Sequence[bytes] | None,
        pinned: npt.NDArray[np.bool_] | None,
        scope: Scope | None,
    ) -> None:
        self.forms, self._scoped = forms, scope
        self._splits, self._across, self._besides, self._pinned = splits, across, besides, pinned
        self._kept: defaultdict[int, list[int]] = defaultdict(list)  # form -> rows
        # (bucket, scope) -> forms with a kept row
        self._buckets: defaultdict[tuple[int, int], set[int]] = defaultdict(set)

    def decide(self, row: int, form: int) -> Removal | None:
        """The removal of a record; None keeps it, and later records are compared with it."""
        candidates = [self._removal(row, of, 1.0, True) for of in self._kept.get(form, ()) if self._repeats(row, of)]
        if not candidates and not self._shows_a_leak(row, form):
            candidates = [self._removal(row, of, similarity, False) for of, similarity in self._near(row, form)]
        if not candidates:
            self._keep(row, form)
            return None
        return max(candidates, key=lambda removal: (removal.reason == "contamination", removal.similarity, -removal.of))

    def _shows_a_leak(self, row: int, form: int) -> bool:
        """Whether removing `row` as a near duplicate would hide a leak that the samples gate has to report."""
        return not self._across and any(self._splits[row] != self._splits[of] for of in self._kept.get(form, ()))

    def _near(self, row: int, form: int) -> list[tuple[int, float]]:
        scope = self._scope(row)
        buckets = self.forms.buckets(form)
        others = {other for bucket in buckets for other in self._buckets.get((bucket, scope), ())} - {form}
        if not others:
            return []
        near = self.forms.near(form, np.array(sorted(others), dtype=np.int64))
        return [(of, similarity) for other, similarity in near for of in self._kept[other] if self._repeats(row, of)]

    def _scope(self, row: int) -> int:
        """The split whose kept records a row is compared with; -1: all."""
        return -1 if self._across else int(self._splits[row])

    def _repeats(self, row: int, of: int) -> bool:
        """Whether `row` duplicates the kept record `of`, given that their texts are equal or near."""
        if self._splits[row] != self._splits[of]:
            return self._across
        if self._scoped is not None and self._scoped.families[row] == self._scoped.families[of]:
            return False
        if self._pinned is not None and self._pinned[row] and self._splits[row] != _TRAIN:
            return False
        return self._besides is None or self._besides[row] == self._besides[of]

    def _removal(self, row: int, of: int, similarity: float, exact: bool) -> Removal:
        if self._splits[row] != self._splits[of]:
            return Removal(row, of, "contamination", exact, similarity)
        return Removal(row, of, "duplicate" if exact else "near_duplicate", exact, similarity)

    def _keep(self, row: int, form: int) -> None:
        self._kept[form].append(row)
        for bucket in self.forms.buckets(form):
            self._buckets[bucket, self._scope(row)].add(form)


def texts_of(kind: Kind, batches: Iterable[pa.RecordBatch]) -> Iterator[Text]:
    """Compared fields and language of each record of a kind, from batches with these columns and, where the kind has
    one, `history`: part of a question that follows earlier ones, empty where none do.
    """
    for batch in batches:
        columns = [batch.column(name).to_pylist() for name in COMPARED[kind]]
        fields = list(zip(*columns, strict=True))
        if "history" in batch.schema.names:
            histories = batch.column("history").to_pylist()
            fields = [(*own, history or "") for own, history in zip(fields, histories, strict=True)]
        yield from zip(fields, batch.column("language").to_pylist(), strict=True)


def compared_columns(kind: Kind) -> list[str]:
    """The columns that `texts_of` reads."""
    return [*COMPARED[kind], *(name for name in TEXTS[kind] if name not in CONTENT[kind]), "language"]


def besides_of(kind: Kind, batches: Iterable[pa.RecordBatch], folder: Path | None = None) -> Digests | None:
    """Digests of the fields BESIDES, for `removals`; None for a kind without such fields."""
    if not BESIDES[kind]:
        return None
    digests = Digests(folder)
    for batch in batches:
        columns = [batch.column(name).to_pylist() for name in BESIDES[kind]]
        texts = [
            FIELD_MARK.join(normal(field, language) for field in fields).encode("utf-8", "surrogatepass")
            for *fields, language in zip(*columns, batch.column("language").to_pylist(), strict=True)
        ]
        digests.append([hashlib.blake2b(text, digest_size=16).digest() for text in texts])
    return digests
