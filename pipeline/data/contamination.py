"""Which records must go: those that repeat another of their split, and those that repeat one of a guarded
split.

Test guards against validation and training, validation against training: what stands in both is removed
from the less guarded one, never the other way. Records are judged in that order, then in input order, each
against the kept ones alone: no two kept records are near each other, and every removed one names a kept one
that it is itself near to (clusters by chains of near pairs would also remove records that resemble nothing
that stays).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.config import Deduplicate, Kind
from pipeline.data.deduplicate import FIELD_MARK, Forms, Text
from pipeline.data.language import normal

Reason = Literal["duplicate", "near_duplicate", "contamination"]
REASONS: tuple[Reason, ...] = ("duplicate", "near_duplicate", "contamination")

_GUARD = {"test": 0, "validation": 1, "train": 2}

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


def removals(
    texts: Iterable[Text],
    splits: Sequence[str],
    settings: Deduplicate,
    *,
    across_splits: bool,
    besides: Sequence[bytes] | None = None,
    pinned: Sequence[bool] | None = None,
) -> list[Removal]:
    """The records to remove, by row.

    Args:
        texts: the compared fields and the language of each record, read once.
        splits: the resolved split of each record, in the same order.
        across_splits: whether to find what stands in two splits as well (reason `contamination`).
        besides: what must also be equal within a split, one per record (see `besides_of`); absent: nothing.
        pinned: whether the source itself put the record where it is; absent: no record. What a source put in
            validation or test is a benchmark that others report figures on, so repeats inside it stay.

    A samples folder that is clean gives an empty list with `across_splits=True`.
    """
    judge = _Judge(Forms(texts, settings), splits, across_splits, besides, pinned)
    assert len(judge.forms.form_of) == len(splits), "one split per text"
    return sorted(filter(None, map(judge.verdict, judge.suspects())), key=lambda removal: removal.row)


class _Judge:
    """Keeps or removes one record after the other, and remembers the kept ones."""

    def __init__(
        self,
        forms: Forms,
        splits: Sequence[str],
        across: bool,
        besides: Sequence[bytes] | None,
        pinned: Sequence[bool] | None,
    ) -> None:
        self.forms = forms
        self._splits, self._across, self._besides, self._pinned = splits, across, besides, pinned
        self._kept: defaultdict[int, list[int]] = defaultdict(list)  # form -> rows
        # (bucket, scope) -> forms with a kept row
        self._buckets: defaultdict[tuple[int, str], set[int]] = defaultdict(set)

    def suspects(self) -> list[int]:
        """The rows that could repeat another, most guarded first; all others stay without a look."""
        form_of = self.forms.form_of
        repeated = np.bincount(form_of, minlength=len(self.forms)) > 1
        guard = np.array([_GUARD[split] for split in self._splits], dtype=np.int64)
        rows = np.flatnonzero((repeated | self.forms.shares())[form_of])
        return rows[np.argsort(guard[rows], kind="stable")].tolist()

    def verdict(self, row: int) -> Removal | None:
        """None when the record stays; it then counts for those that follow."""
        form = int(self.forms.form_of[row])
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

    def _scope(self, row: int) -> str:
        """The records among which a row is judged: its own split's, or all."""
        return "" if self._across else self._splits[row]

    def _repeats(self, row: int, of: int) -> bool:
        """Whether `row` would be superfluous beside `of` if their texts are one."""
        if self._splits[row] != self._splits[of]:
            return self._across
        if self._pinned is not None and self._pinned[row] and self._splits[row] != "train":
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


def besides_of(kind: Kind, batches: Iterable[pa.RecordBatch]) -> list[bytes] | None:
    """Digests of what must also be equal within a split, for `removals`; None for kinds without such."""
    if not BESIDES[kind]:
        return None
    found = []
    for batch in batches:
        columns = [batch.column(name).to_pylist() for name in BESIDES[kind]]
        for *fields, tongue in zip(*columns, batch.column("language").to_pylist(), strict=True):
            text = FIELD_MARK.join(normal(field, tongue) for field in fields)
            found.append(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
    return found
