"""Held-out records that stand in another split too: word for word, but for case and spaces, or nearly.

Every record of the held-out split is judged, repeats included, so the counts are of records: how many of the
answers a model is measured on it may have read. Independent of what `sample` removes; both share only the
notion of near.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.config.params import Deduplicate
from pipeline.config.recipe import Kind
from pipeline.data.deduplicate import Forms
from pipeline.data.external import Digests
from pipeline.data.records import SPLITS
from pipeline.gates._rules import MOST_EXAMPLES, Example, Tally
from pipeline.gates.profiles.splits import Samples

WAYS = ("verbatim_overlap", "folded_overlap", "near_overlap")
PAIRS = (("test", "train"), ("validation", "train"), ("test", "validation"))
_Match = tuple[int, int, float]
"""A held-out record, one in the other split that it repeats, and how like they are."""


def overlaps(samples: Samples, kind: Kind, near: Deduplicate, folder: Path) -> dict[tuple[str, str], dict[str, Tally]]:
    """For each pair (held-out split, other split) of one kind, the held-out records that stand in the other.

    A record counts once a pair, in the closest of WAYS. `folder`: for temporary files.
    """
    letters = Digests(folder)
    forms = Forms(samples.compared(kind, letters), near, folder)
    counts = {pair: dict.fromkeys(WAYS, 0) for pair in PAIRS}
    firsts: dict[tuple[str, str], dict[str, list[_Match]]] = {pair: {way: [] for way in WAYS} for pair in PAIRS}
    for rows, form_of in forms.families():
        splits = samples.splits(kind, rows)
        for pair in PAIRS:
            held, other = (splits == SPLITS.index(split) for split in pair)
            if not held.any() or not other.any():
                continue
            mine, theirs = (rows[held], form_of[held]), (rows[other], form_of[other])
            for way, match in _matches(letters, forms, mine, theirs):
                counts[pair][way] += 1
                insort(firsts[pair][way], match)  # families are not in the order of their records
                del firsts[pair][way][MOST_EXAMPLES:]
    return {
        pair: {way: _tally(samples, kind, way, counts[pair][way], firsts[pair][way]) for way in WAYS} for pair in PAIRS
    }


def _matches(
    letters: Digests, forms: Forms, held: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[str, _Match]]:
    """What of one family's held-out records stands in the other split; rows and forms of both."""
    rows_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, form in zip(other[0].tolist(), other[1].tolist(), strict=True):
        rows_of[form].append(row)
    forms_in: defaultdict[int, list[int]] = defaultdict(list)
    for form in rows_of:
        for bucket in forms.buckets(form):
            forms_in[bucket].append(form)
    for row, form in zip(held[0].tolist(), held[1].tolist(), strict=True):
        if form in rows_of:
            own = letters[row]
            same = next((twin for twin in rows_of[form] if letters[twin] == own), None)
            yield (WAYS[0], (row, same, 1.0)) if same is not None else (WAYS[1], (row, rows_of[form][0], 1.0))
            continue
        others = {each for bucket in forms.buckets(form) for each in forms_in.get(bucket, ())}
        near = list(forms.near(form, np.array(sorted(others), np.int64))) if others else []
        if near:
            twin, similarity = max(near, key=lambda one: (one[1], -one[0]))
            yield WAYS[2], (row, rows_of[twin][0], similarity)


def _tally(samples: Samples, kind: Kind, way: str, count: int, firsts: list[_Match]) -> Tally:
    tally = Tally()
    for row, twin, similarity in firsts:
        alike = f"{similarity:.2f} like" if way == "near_overlap" else "also"
        example, other = samples.example(kind, row), samples.example(kind, twin)
        tally.add(Example(example.id, example.origin, f"{example.text} ({alike} {other.origin})"))
    tally.count = count
    return tally
