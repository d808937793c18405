"""Held-out records that stand in another split too: word for word, but for case and spaces, or nearly.

Every record of the held-out split is judged, repeats included, so the counts are of records: how many of the
answers a model is measured on it may have read. Independent of what `sample` removes; both share only the
notion of near.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from pipeline.config import Deduplicate, Kind
from pipeline.data.deduplicate import Forms
from pipeline.gates._rules import Example, Tally
from pipeline.gates._splits import Samples

WAYS = ("verbatim_overlap", "folded_overlap", "near_overlap")
PAIRS = (("test", "train"), ("validation", "train"), ("test", "validation"))


def overlaps(samples: Samples, kind: Kind, near: Deduplicate) -> dict[tuple[str, str], dict[str, Tally]]:
    """For each pair (held-out split, other split) of one kind, the held-out records that stand in the other.

    A record counts once a pair, in the closest of WAYS.
    """
    forms = Forms(samples.compared(kind), near)
    splits = np.array(samples.splits(kind))
    found = {pair: {way: Tally() for way in WAYS} for pair in PAIRS}
    for pair in PAIRS:
        held, other = (np.flatnonzero(splits == split) for split in pair)
        for row, way, twin, similarity in _matches(samples, kind, forms, held, other):
            alike = f"{similarity:.2f} like" if way == "near_overlap" else "also"
            found[pair][way].add(_example(samples, kind, row, twin, alike))
    return found


def _matches(
    samples: Samples, kind: Kind, forms: Forms, held: np.ndarray, other: np.ndarray
) -> Iterator[tuple[int, str, int, float]]:
    rows_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, form in zip(other.tolist(), forms.form_of[other].tolist(), strict=True):
        rows_of[form].append(row)
    forms_in: defaultdict[int, list[int]] = defaultdict(list)
    for form in rows_of:
        for bucket in forms.buckets(form):
            forms_in[bucket].append(form)
    for row, form in zip(held.tolist(), forms.form_of[held].tolist(), strict=True):
        if form in rows_of:
            own = _letters(samples, kind, row)
            same = next((twin for twin in rows_of[form] if _letters(samples, kind, twin) == own), None)
            yield (row, WAYS[0], same, 1.0) if same is not None else (row, WAYS[1], rows_of[form][0], 1.0)
            continue
        others = {each for bucket in forms.buckets(form) for each in forms_in.get(bucket, ())}
        near = list(forms.near(form, np.array(sorted(others), np.int64))) if others else []
        if near:
            twin, similarity = max(near, key=lambda one: (one[1], -one[0]))
            yield row, WAYS[2], rows_of[twin][0], similarity


def _letters(samples: Samples, kind: Kind, row: int) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", field) for field in samples.fields(kind, row))


def _example(samples: Samples, kind: Kind, row: int, twin: int, alike: str) -> Example:
    example, other = samples.example(kind, row), samples.example(kind, twin)
    return Example(example.id, example.origin, f"{example.text} ({alike} {other.origin})")
