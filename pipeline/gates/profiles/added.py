"""Added columns of data/samples: groups in several splits, times out of order, records of each value by split."""

from collections import Counter
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline.config.recipe import Kind
from pipeline.data.external import DiskArray, group_starts, in_order
from pipeline.data.records import GROUP, RESERVED, ROLES, SPLITS, TIME, TWIN, added_columns
from pipeline.gates._rules import MOST_EXAMPLES, Example, Frame, Tally
from pipeline.gates.profiles.splits import Samples
from pipeline.gates.profiles.texts import excerpt

MOST_VALUES = 50
"""Values of a column that are listed; the rarer ones are added up."""
_MOST_COUNTED = 10_000
"""Different values of a column up to which they are counted: a column of free text has no slices."""
_PAIRS = (("validation", "train"), ("test", "train"), ("test", "validation"))
"""Later split, earlier split."""


def groups(samples: Samples, folder: Path) -> Frame:
    """Per kind with a column `group`, the number of groups, and those that occur in more than one split."""
    frame = Frame(("kind",), ("groups", "split_groups"))
    for kind in samples.sizes:
        if samples.records(kind) and GROUP in _columns(samples, kind):
            n, split_groups = _groups(samples, kind, folder)
            frame.add({"kind": kind, "groups": n, "split_groups": split_groups})
    return frame


def _groups(samples: Samples, kind: Kind, folder: Path) -> tuple[int, Tally]:
    """Groups are compared by 64 bits of their BLAKE2b hash; temporary files in `folder`."""
    rows, row = DiskArray(folder, np.uint64, 3), 0  # hash, split, row of each record with a group
    for split, batch in samples.batches(kind, [GROUP]):
        of_records = [(_hash(name), SPLITS.index(split), row + at) for at, name in enumerate(batch[GROUP].to_pylist())
                      if name is not None]  # fmt: skip
        rows.append(np.array(of_records, np.uint64).reshape(-1, 3))
        row += len(batch)
    n, tally, shown = 0, Tally(), np.empty((0, 2), np.int64)
    for part in in_order(rows):
        starts = group_starts(part)
        n += len(starts)
        if not len(starts):
            continue
        first, last = (ends.reduceat(part[:, 1], starts) for ends in (np.minimum, np.maximum))
        several = starts[first != last]
        tally.count += len(several)
        # the last record of a group, in a held-out split, and the first one, in an earlier file
        ends = np.append(starts, len(part))[np.searchsorted(starts, several) + 1] - 1
        shown = np.concatenate([shown, part[np.column_stack([ends, several]), 2].astype(np.int64)])
        shown = shown[np.argsort(shown[:, 0])][:MOST_EXAMPLES]
    for held, other in shown.tolist():
        example, twin = samples.example(kind, held), samples.example(kind, other)
        tally.examples.append(Example(example.id, example.origin, f"{example.text} (same group: {twin.origin})"))
    return n, tally


def time_order(samples: Samples) -> Frame:
    """Per kind that was split by time, the records of a later split that are not later than all of an earlier one."""
    frame = Frame(("kind", "split", "against"), ("out_of_order", "latest"))
    for kind in samples.sizes:
        if samples.row_counts.get(kind, {}).get("split", {}).get("by") != TIME:
            continue
        latest = {split: max(times, default="") for split, times in _times(samples, kind).items()}
        tallies = {pair: Tally() for pair in _PAIRS}
        row = 0
        for split, batch in samples.batches(kind, [TIME]):
            for at, moment in enumerate(batch[TIME].to_pylist()):
                for later, earlier in _PAIRS:
                    if later == split and moment is not None and moment <= latest[earlier]:
                        tally = tallies[later, earlier]
                        if tally.count < MOST_EXAMPLES:
                            example = samples.example(kind, row + at)
                            tally.examples.append(Example(example.id, example.origin, f"{moment}: {example.text}"))
                        tally.count += 1
            row += len(batch)
        for (later, earlier), tally in tallies.items():
            frame.add(
                {
                    "kind": kind,
                    "split": later,
                    "against": earlier,
                    "out_of_order": tally,
                    "latest": latest[earlier] or "none",
                }
            )
    return frame


def _times(samples: Samples, kind: Kind) -> dict[str, list[str]]:
    """The latest time of each batch of a kind's records, by split; times compare as texts."""
    times: dict[str, list[str]] = {split: [] for split in SPLITS}
    for split, batch in samples.batches(kind, [TIME]):
        times[split] += [max((moment for moment in batch[TIME].to_pylist() if moment is not None), default="")]
    return times


def slices(samples: Samples) -> Frame:
    """Per kind, added column and value, the number of records in each split; groups, times and twins are not listed.

    Personal data in a value is masked, as the table is shown on a page.
    """
    frame = Frame(("kind", "column", "value"), SPLITS)
    for kind in samples.sizes:
        for column in _columns(samples, kind):
            if column in (GROUP, TIME, TWIN) or not samples.records(kind):
                continue
            counts = _counts(samples, kind, column)
            total = Counter[str]()
            for (_, value), n in counts.items():
                total[value] += n
            ordered = sorted(total, key=lambda value: (-total[value], value))
            listed, rest = ordered[:MOST_VALUES], ordered[MOST_VALUES:]
            for value in sorted(listed):
                sizes = {split: counts[split, value] for split in SPLITS}
                frame.add({"kind": kind, "column": column, "value": excerpt(value), **sizes})
            if rest:
                sizes = {split: sum(counts[split, value] for value in rest) for split in SPLITS}
                frame.add({"kind": kind, "column": column, "value": f"{len(rest):,} more values", **sizes})
    return frame


def _counts(samples: Samples, kind: Kind, column: str) -> Counter[tuple[str, str]]:
    """Records per (split, value); beyond 10,000 values the further ones count as one."""
    counts: Counter[tuple[str, str]] = Counter()
    known: set[str] = set()
    for split, batch in samples.batches(kind, [column]):
        for cell in batch[column].to_pylist():
            value = "no value" if cell is None else cell
            if value not in known and len(known) >= _MOST_COUNTED:
                value = "others"
            known.add(value)
            counts[split, value] += 1
    return counts


def _columns(samples: Samples, kind: Kind) -> list[str]:
    """The added columns of a kind's records."""
    names = pq.read_schema(samples.folder / kind / "train.parquet").names
    return [name for name in added_columns(kind, names) if name not in RESERVED.difference(ROLES)]


def _hash(group: str) -> int:
    return int.from_bytes(blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
