"""Candidates for near duplicates: normal forms that share a bucket, and their true similarities.

Shingles, signatures and buckets lie on disk, family after family, so a family of usual size is read at once. A family
is a connected component of forms with common buckets. Memory: 40 bytes per form here, and the families read at once.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.data.external import DiskArray, group_starts, in_order
from pipeline.data.minhash import Signatures, families

_DOUBT = 4.0  # standard deviations by which an estimated similarity may be below the true one
_COPIED = 1024  # forms copied at a time
_HELD = 1 << 20  # 32-bit numbers read at once
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shingled:
    """The shingles of many forms, per (form, field)."""

    values: DiskArray
    """32-bit hashes, sorted within a field; the fields of a form follow each other."""
    extents: DiskArray
    """Start and size of each field's range in `values`, shape (forms, 2 * fields)."""

    def of(self, form: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """All shingles of a form, and their number per field, shape (fields)."""
        extents = self.extents.read(form, form + 1)[0]
        sizes = extents[1::2]
        return self.values.read(int(extents[0]), int(extents[0] + sizes.sum()))[:, 0], sizes


@dataclass(frozen=True)
class _InMemory:
    """Candidates of whole families from place `first` on, in memory."""

    first: int
    sizes: npt.NDArray[np.int64]
    signatures: npt.NDArray[np.uint32]
    shingles: npt.NDArray[np.uint32]
    buckets: npt.NDArray[np.int64]


class Candidates:
    """The forms in `pairs` (form, bucket; sorted by bucket), and the near duplicates among them."""

    def __init__(
        self, pairs: DiskArray, shingled: Shingled, signatures: Signatures, threshold: float, folder: Path | None
    ) -> None:
        self._threshold = threshold
        self.forms, offsets, buckets = _by_form(pairs, folder)
        """Numbers of the forms, ascending."""
        family = families(pairs, self.forms)
        self.family = self.forms[family]
        """First form of each form's family, shape of `forms`."""
        order = np.argsort(family, kind="stable")
        self._place = np.empty_like(order)
        self._place[order] = np.arange(len(order))
        self._families = self.family[order]
        self._sizes = DiskArray(folder, np.int64, shingled.extents.width // 2)
        self._signatures = DiskArray(folder, np.uint32, signatures.permutations)
        self._shingles, self._buckets = DiskArray(folder, np.uint32), DiskArray(folder, np.int64)
        self._begins, self._bucket_begins = np.zeros((2, len(order) + 1), np.int64)
        for first in range(0, len(order), _COPIED):
            chosen = order[first : first + _COPIED]
            values, sizes = zip(*(shingled.of(form) for form in self.forms[chosen].tolist()), strict=True)
            numbers = [buckets.read(int(offsets[at]), int(offsets[at + 1]))[:, 0] for at in chosen.tolist()]
            self._copy(first, list(values), np.stack(sizes), numbers, signatures)
        self._range = range(0)  # places that were read last, or that are too many to read
        self._held: _InMemory | None = None

    def _copy(
        self,
        first: int,
        values: list[npt.NDArray[np.uint32]],
        sizes: npt.NDArray[np.int64],
        buckets: list[npt.NDArray[np.int64]],
        signatures: Signatures,
    ) -> None:
        shingles, total = np.concatenate(values), sizes.sum(axis=1)
        places = slice(first + 1, first + 1 + len(values))
        self._begins[places] = len(self._shingles) + np.cumsum(total)
        self._bucket_begins[places] = len(self._buckets) + np.cumsum([len(numbers) for numbers in buckets])
        self._sizes.append(sizes)
        self._shingles.append(shingles)
        self._signatures.append(signatures.of(shingles, total))
        self._buckets.append(np.concatenate(buckets))

    def buckets(self, form: int) -> list[int]:
        """Buckets that a form shares with another form; empty for a form that is no candidate."""
        at = int(np.searchsorted(self.forms, form))
        if at == len(self.forms) or self.forms[at] != form:
            return []
        place = int(self._place[at])
        first, last = self._bucket_begins[place : place + 2].tolist()
        if (held := self._holding(place)) is None:
            return list(self._buckets.read(first, last)[:, 0].tolist())
        return list(held.buckets[first - self._bucket_begins[held.first] :][: last - first].tolist())

    def near(self, form: int, others: Places) -> list[tuple[int, float]]:
        """(form, similarity) of the `others` whose similarity to `form` reaches the threshold, in their order.

        All must be of the form's family.
        """
        place, *rest = self._place[np.searchsorted(self.forms, [form, *others.tolist()])].tolist()
        places = np.array(rest, np.int64)
        own, sizes = self._sizes_of(np.array([place]))[0], self._sizes_of(places)
        total, totals = own.sum(), sizes.sum(axis=1)
        close = np.minimum(totals, total) >= self._threshold * np.maximum(totals, total)
        others, places, sizes = others[close], places[close], sizes[close]
        if not len(others):
            return []
        signatures = self._signatures_of(np.concatenate([[place], places]))
        equal = signatures[1:] == signatures[0]
        slack = _DOUBT * math.sqrt(self._threshold * (1 - self._threshold) / equal.shape[1])
        close = equal.mean(axis=1) >= self._threshold - slack
        others, places, sizes = others[close], places[close], sizes[close]
        similar = self._similarities(place, own, places, sizes)
        return [(int(others[i]), float(similar[i])) for i in np.flatnonzero(similar >= self._threshold)]

    def _similarities(
        self, place: int, own: npt.NDArray[np.int64], places: Places, sizes: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """The smallest Jaccard similarity over the fields, shape (places); empty fields are equal."""
        mine, theirs = self._shingles_of(place), [self._shingles_of(other) for other in places.tolist()]
        smallest = np.ones(len(places))
        ends, own_ends = np.cumsum(sizes, axis=1), np.cumsum(own)
        for field in range(len(own)):
            ordered = mine[own_ends[field] - own[field] : own_ends[field]]
            counts = sizes[:, field]
            begins = (ends[:, field] - counts).tolist()
            parts = [values[at : at + n] for values, at, n in zip(theirs, begins, counts.tolist(), strict=True)]
            known = _contained(np.concatenate([mine[:0], *parts]), ordered)
            shared = np.bincount(np.repeat(np.arange(len(places)), counts)[known], minlength=len(places))
            union = len(ordered) + counts - shared
            jaccard = np.divide(shared, union, out=np.ones(len(places)), where=union > 0)
            smallest = np.minimum(smallest, jaccard)
        return smallest

    def _sizes_of(self, places: Places) -> npt.NDArray[np.int64]:
        held = self._holding(int(places[0])) if len(places) else None
        return self._sizes.take(places) if held is None else held.sizes[places - held.first]

    def _signatures_of(self, places: Places) -> npt.NDArray[np.uint32]:
        held = self._holding(int(places[0]))
        return self._signatures.take(places) if held is None else held.signatures[places - held.first]

    def _shingles_of(self, place: int) -> npt.NDArray[np.uint32]:
        first, last = self._begins[place : place + 2].tolist()
        if (held := self._holding(place)) is None:
            return self._shingles.read(first, last)[:, 0]
        return held.shingles[first - self._begins[held.first] :][: last - first]

    def _holding(self, place: int) -> _InMemory | None:
        """Memory with the whole family of a place; None for a family that is too large."""
        if place not in self._range:
            self._range, self._held = self._read_families(place)
        return self._held

    def _read_families(self, place: int) -> tuple[range, _InMemory | None]:
        """Places of the family of `place` and of the next ones that fit, and their data; None where it does not fit."""
        family = self._families[place]
        first, last = np.searchsorted(self._families, [family, family + 1]).tolist()
        # Shingles and signatures before each place.
        cost = self._begins + np.arange(len(self._begins)) * self._signatures.width
        fits = int(np.searchsorted(cost, cost[first] + _HELD, side="right")) - 1
        if fits < last:
            return range(first, last), None
        if fits < len(self._families):
            last = int(np.searchsorted(self._families, self._families[fits]))
        held = _InMemory(
            first,
            self._sizes.read(first, last),
            self._signatures.read(first, last),
            self._shingles.read(int(self._begins[first]), int(self._begins[last]))[:, 0],
            self._buckets.read(int(self._bucket_begins[first]), int(self._bucket_begins[last]))[:, 0],
        )
        return range(first, last), held


def _by_form(pairs: DiskArray, folder: Path | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], DiskArray]:
    """Forms, ascending; offsets of their buckets, shape (forms + 1); the buckets, form after form."""
    forms, offsets, buckets, n = [np.empty(0, np.int64)], [np.empty(0, np.int64)], DiskArray(folder, np.int64), 0
    for part in in_order(pairs):
        starts = group_starts(part)
        forms.append(part[starts, 0].astype(np.int64))
        offsets.append(n + starts)
        buckets.append(part[:, 1])
        n += len(part)
    return np.concatenate(forms), np.concatenate([*offsets, [n]]), buckets


def _contained(values: npt.NDArray[np.uint32], ordered: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Whether each value occurs in the sorted array `ordered`."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    return np.equal(ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)], values)
