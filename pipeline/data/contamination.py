"""Which records must go: those that repeat another of their split, and those that repeat one of a guarded
split.

Test guards against validation and training, validation against training: what stands in both is removed
from the less guarded one, never the other way. Records are judged in that order, then in input order, each
against the kept ones alone: no two kept records are near each other, and every removed one names a kept one
that it is itself near to (clusters by chains of near pairs would also remove records that resemble nothing
that stays). Families of records that have forms or buckets in common are judged one after the other, so that what is
remembered is as large as the largest family.
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
from pipeline.data.records import SPLITS

Reason = Literal["duplicate", "near_duplicate", "contamination"]
REASONS: tuple[Reason, ...] = ("duplicate", "near_duplicate", "contamination")

_GUARD = np.array([("test", "validation", "train").index(split) for split in SPLITS])
_TRAIN = SPLITS.index("train")

# What makes two records one across splits; and what must be equal besides for one to be superfluous in its
# own split (several ranked answers to one prompt are several records).
COMPARED: dict[Kind, tuple[str, ...]] = {
    "documents": ("text",),
    "labelled": ("text",),
    "instructions": ("instruction", "input"),
    "preferences": ("instruction", "input"),
}
BESIDES: dict[Kind, tuple[str, ...]] = {
    "documents": (),
    "labelled": (),
    "instructions": (),
    "preferences": ("chosen", "rejected"),
}


@dataclass(frozen=True)
class Removal:
    """A record that repeats one that stays."""

    row: int
    of: int
    """The row of the kept record that it repeats."""
    reason: Reason
    exact: bool
    """Equal normal forms; else near."""
    similarity: float
    """Jaccard similarity of word shingles, 1 when exact."""


@dataclass(frozen=True)
class Removals:
    """The records to remove, ascending by row; one entry of each array a record."""

    rows: npt.NDArray[np.int64]
    of: npt.NDArray[np.int64]
    reasons: npt.NDArray[np.uint8]
    """Places in REASONS."""
    exact: npt.NDArray[np.bool_]
    similarities: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Removal]:
        for row, of, reason, exact, similarity in zip(
            self.rows, self.of, self.reasons, self.exact, self.similarities, strict=True
        ):
            yield Removal(int(row), int(of), REASONS[reason], bool(exact), float(similarity))


def removals(
    texts: Iterable[Text],
    splits: npt.NDArray[np.uint8],
    settings: Deduplicate,
    *,
    across_splits: bool,
    besides: Sequence[bytes] | None = None,
    pinned: npt.NDArray[np.bool_] | None = None,
    folder: Path | None = None,
) -> Removals:
    """The records to remove, by row.

    Args:
        texts: the compared fields and the language of each record, read once.
        splits: the resolved split of each record, in the same order: its place in records.SPLITS.
        across_splits: whether to find what stands in two splits as well (reason `contamination`).
        besides: what must also be equal within a split, one per record (see `besides_of`); absent: nothing.
        pinned: whether the source itself put the record where it is; absent: no record. What a source put in
            validation or test is a benchmark that others report figures on, so repeats inside it stay.
        folder: where temporary files may lie; none: the system's folder for such.

    A samples folder that is clean gives none with `across_splits=True`.
    """
    forms = Forms(texts, settings, folder)
    assert forms.texts == len(splits), "one split per text"
    found = _Found()
    for rows, form_of in forms.families():
        judge = _Judge(forms, splits, across_splits, besides, pinned)
        order = np.argsort(_GUARD[splits[rows]], kind="stable")
        for row, form in zip(rows[order].tolist(), form_of[order].tolist(), strict=True):
            if (removal := judge.verdict(row, form)) is not None:
                found.add(removal)
    return found.sorted()


class _Found:
    """Removals in the order in which they are found, 26 bytes each."""

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


class _Judge:
    """Keeps or removes one record of a family after the other, and remembers the kept ones."""

    def __init__(
        self,
        forms: Forms,
        splits: npt.NDArray[np.uint8],
        across: bool,
        besides: Sequence[bytes] | None,
        pinned: npt.NDArray[np.bool_] | None,
    ) -> None:
        self.forms = forms
        self._splits, self._across, self._besides, self._pinned = splits, across, besides, pinned
        self._kept: defaultdict[int, list[int]] = defaultdict(list)  # form -> rows
        # (bucket, scope) -> forms with a kept row
        self._buckets: defaultdict[tuple[int, int], set[int]] = defaultdict(set)

    def verdict(self, row: int, form: int) -> Removal | None:
        """None when the record stays; it then counts for those that follow."""
        found = [self._removal(row, of, 1.0, True) for of in self._kept.get(form, ()) if self._repeats(row, of)]
        if not found and not self._shows_a_leak(row, form):
            found = [self._removal(row, of, similarity, False) for of, similarity in self._near(row, form)]
        if not found:
            self._keep(row, form)
            return None
        return max(found, key=lambda r: (r.reason == "contamination", r.similarity, -r.of))

    def _shows_a_leak(self, row: int, form: int) -> bool:
        """Whether dropping `row` as a near copy would hide a leak that the samples gate has to name."""
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
        """The records among which a row is judged: its own split's, or all."""
        return -1 if self._across else int(self._splits[row])

    def _repeats(self, row: int, of: int) -> bool:
        """Whether `row` would be superfluous beside `of` if their texts are one."""
        if self._splits[row] != self._splits[of]:
            return self._across
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
    """The compared fields and the language of each record of a kind, from batches that hold these columns."""
    for batch in batches:
        columns = [batch.column(name).to_pylist() for name in COMPARED[kind]]
        yield from zip(zip(*columns, strict=True), batch.column("language").to_pylist(), strict=True)


def besides_of(kind: Kind, batches: Iterable[pa.RecordBatch], folder: Path | None = None) -> Digests | None:
    """Digests of what must also be equal within a split, for `removals`; None for kinds without such."""
    if not BESIDES[kind]:
        return None
    found = Digests(folder)
    for batch in batches:
        columns = [batch.column(name).to_pylist() for name in BESIDES[kind]]
        texts = [
            FIELD_MARK.join(normal(field, tongue) for field in fields).encode("utf-8", "surrogatepass")
            for *fields, tongue in zip(*columns, batch.column("language").to_pylist(), strict=True)
        ]
        found.append([hashlib.blake2b(text, digest_size=16).digest() for text in texts])
    return found
