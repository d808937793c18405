"""Contamination between splits: held-out records that occur in another split word for word, folded or nearly.

Every record of the held-out split counts, repeats included: the number of test answers that a model may have read.
Independent of the records that `sample` removes; both share only the definition of near duplicates.
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
"""Row of a held-out record, row of the record in the other split that it repeats, and their similarity."""


def overlaps(samples: Samples, kind: Kind, near: Deduplicate, folder: Path) -> dict[tuple[str, str], dict[str, Tally]]:
    """Per pair (held-out split, other split), the held-out records of one kind that occur in the other split.

    A record counts once per pair, in the closest of WAYS. `folder`: for temporary files.
    """
    digests = Digests(folder)
    forms = Forms(samples.compared(kind, digests), near, folder)
    counts = {pair: dict.fromkeys(WAYS, 0) for pair in PAIRS}
    firsts: dict[tuple[str, str], dict[str, list[_Match]]] = {pair: {way: [] for way in WAYS} for pair in PAIRS}
    for rows, form_of in forms.families():
        splits = samples.splits(kind, rows)
        for pair in PAIRS:
            in_held, in_other = (splits == SPLITS.index(split) for split in pair)
            if not in_held.any() or not in_other.any():
                continue
            held, other = (rows[in_held], form_of[in_held]), (rows[in_other], form_of[in_other])
            for way, match in _matches(digests, forms, held, other):
                counts[pair][way] += 1
                insort(firsts[pair][way], match)  # families are not in the order of their records
                del firsts[pair][way][MOST_EXAMPLES:]
    return {
        pair: {way: _tally(samples, kind, way, counts[pair][way], firsts[pair][way]) for way in WAYS} for pair in PAIRS
    }


def _matches(
    digests: Digests, forms: Forms, held: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[str, _Match]]:
    """Matches of one family's held-out records with its records in the other split, each a pair (rows, forms)."""
    rows_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, form in zip(other[0].tolist(), other[1].tolist(), strict=True):
        rows_of[form].append(row)
    forms_in: defaultdict[int, list[int]] = defaultdict(list)
    for form in rows_of:
        for bucket in forms.buckets(form):
            forms_in[bucket].append(form)
    for row, form in zip(held[0].tolist(), held[1].tolist(), strict=True):
        if form in rows_of:
            digest = digests[row]
            same = next((twin for twin in rows_of[form] if digests[twin] == digest), None)
            yield (WAYS[0], (row, same, 1.0)) if same is not None else (WAYS[1], (row, rows_of[form][0], 1.0))
            continue
        others = {other_form for bucket in forms.buckets(form) for other_form in forms_in.get(bucket, ())}
        near = list(forms.near(form, np.array(sorted(others), np.int64))) if others else []
        if near:
            twin, similarity = max(near, key=lambda match: (match[1], -match[0]))
            yield WAYS[2], (row, rows_of[twin][0], similarity)


def _tally(samples: Samples, kind: Kind, way: str, count: int, firsts: list[_Match]) -> Tally:
    tally = Tally()
    for row, twin, similarity in firsts:
        alike = f"{similarity:.2f} like" if way == "near_overlap" else "also"
        example, other = samples.example(kind, row), samples.example(kind, twin)
        tally.add(Example(example.id, example.origin, f"{example.text} ({alike} {other.origin})"))
    tally.count = count
    return tally
