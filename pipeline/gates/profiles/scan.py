"""One pass over the records of one kind: tallies of faults, and examples of offending records."""

from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.recipe import Kind
from pipeline.data import language
from pipeline.data.external import DiskArray, group_starts, in_order
from pipeline.data.records import CONTENT, SCHEMAS, SPLITS, TEXTS
from pipeline.data.tables import batches
from pipeline.gates._rules import MOST_EXAMPLES, Example, Tally
from pipeline.gates.profiles import texts as _texts
from pipeline.gates.profiles.texts import ENCODING, PERSONAL, SPELLED
from pipeline.gates.profiles.values import DistinctValues

if TYPE_CHECKING:
    from pipeline.gates.raw import Settings

DETECTORS = {**ENCODING, **PERSONAL, "spelled_specials": SPELLED}
COUNTS = ("nulls", "blank", "too_short", "too_long", "unknown_splits", "invalid_utf8", *DETECTORS)
_MAY_BE_BLANK = {"input", "history", "correction"}
Matches = dict[int, tuple[str, tuple[int, int]]]
"""Row of a batch -> column and span of the first match."""


class Profiler:
    """All counts that one pass over one kind's records makes."""

    def __init__(self, kind: Kind, settings: "Settings", n_rows: int, folder: Path) -> None:
        """Starts with zero counts.

        Args:
            kind: record kind.
            settings: gates.raw.
            n_rows: rows of the whole file.
            folder: for temporary files.
        """
        self.kind, self.settings = kind, settings
        self.tallies = {name: Tally() for name in (*COUNTS, "language_disagreements")}
        self.sources: Counter[str] = Counter()
        self.languages, self.labels = DistinctValues(folder), DistinctValues(folder)
        self.decided = self.row = self.longest = 0
        self.shortest: int | None = None
        self.stride = max(1, -(-n_rows // (settings.language.sample or n_rows or 1)))
        self._forms = DiskArray(
            folder, np.uint64, 4
        )  # of labelled records: both halves of the digest, record, label's hash

    def read(self, batch: pa.RecordBatch) -> None:
        """Counts one batch; missing columns are left to the schema's expectation."""
        columns = {name: batch.column(name) for name in batch.schema.names}
        texts, broken = _decodable(self.kind, batch)
        rows = _Rows(texts, len(batch))
        self._tally("invalid_utf8", rows, {row: (name, (0, 0)) for row, name in broken.items()})
        self._nulls(rows, columns)
        self._lengths(rows)
        content = [name for name in TEXTS[self.kind] if name in texts]
        for check, detector in DETECTORS.items():
            matches: Matches = {}
            for name in content:
                for row, _, span in _texts.matches(texts[name], detector):
                    matches.setdefault(row, (name, span))
            self._tally(check, rows, matches)
        self._languages(rows)
        self._labels(rows)
        self.sources.update(rows.values("source"))
        self.row += len(batch)

    def _tally(self, check: str, rows: "_Rows", matches: Matches) -> None:
        self.tallies[check].add_rows(sorted(matches), lambda row: rows.example(row, *matches[row]))

    def _nulls(self, rows: "_Rows", columns: dict[str, pa.Array]) -> None:
        required = [field.name for field in SCHEMAS[self.kind] if not field.nullable and field.name in columns]
        missing = {row: (name, (0, 0)) for name in reversed(required) for row in _true(columns[name].is_null())}
        self._tally("nulls", rows, missing)
        if "split" in rows.texts:
            known = pc.or_(rows.texts["split"].is_null(), pc.is_in(rows.texts["split"], pa.array(SPLITS)))
            self._tally("unknown_splits", rows, dict.fromkeys(_true(pc.invert(known)), ("split", (0, 0))))

    def _lengths(self, rows: "_Rows") -> None:
        names = [name for name in TEXTS[self.kind] if name in rows.texts]
        needed = [name for name in names if name not in _MAY_BE_BLANK]
        blank = {
            row: (name, (0, 0))
            for name in needed
            for row in _true(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(rows.texts[name])), 0))
        }
        self._tally("blank", rows, blank)
        total = np.zeros(rows.count, np.int64)
        for name in names:
            if name != "label":
                total += pc.fill_null(pc.utf8_length(rows.texts[name]), 0).to_numpy(zero_copy_only=False)
        least = int(total.min(initial=np.iinfo(np.int64).max))
        self.shortest = least if self.shortest is None else min(self.shortest, least)
        self.longest = max(self.longest, int(total.max(initial=0)))
        bounds = getattr(self.settings.characters, self.kind)
        first = next(iter(names), "id")
        for check, outside in (("too_short", total < bounds.at_least), ("too_long", total > bounds.at_most)):
            self._tally(check, rows, {int(row): (first, (0, 0)) for row in np.flatnonzero(outside)})

    def _languages(self, rows: "_Rows") -> None:
        declared = rows.values("language")
        self.languages.add(pa.array(declared, pa.string()), self.row)
        name = next((name for name in CONTENT[self.kind] if name in rows.texts), None)
        if name is None or not declared:
            return
        for row in range(-self.row % self.stride, rows.count, self.stride):
            text = rows.texts[name][row].as_py()
            guess = language.guess(text) if text and declared[row] != "und" else "und"
            if guess == "und":
                continue
            self.decided += 1
            if guess != declared[row]:
                self._tally("language_disagreements", rows, {row: (name, (0, 0))})

    def _labels(self, rows: "_Rows") -> None:
        if self.kind != "labelled" or not {"text", "label"} <= set(rows.texts):
            return
        texts = rows.texts["text"].to_pylist()
        labels = self.labels.add(pa.array(rows.values("label"), pa.string()), self.row)
        forms = [language.normal(text or "", code) for text, code in zip(texts, rows.values("language"), strict=True)]
        digests = [blake2b(form.encode("utf-8", "surrogatepass"), digest_size=16).digest() for form in forms]
        halves = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
        records = np.arange(self.row, self.row + rows.count, dtype=np.uint64)
        self._forms.append(np.column_stack([halves, records, labels]))

    def contradictions(self, path: Path) -> Tally:
        """Records whose text occurs earlier in the file with another label; `path`: the file that was read."""
        tally, shown = Tally(), np.empty(0, np.int64)
        for part in in_order(self._forms, keys=2):
            starts = group_starts(part, keys=2)
            first = np.repeat(part[starts, 3], np.diff(starts, append=len(part)))
            records = part[part[:, 3] != first, 2].astype(np.int64)
            tally.count += len(records)
            shown = np.sort(np.concatenate([shown, records]))[:MOST_EXAMPLES]
        before = 0
        for batch in batches(path) if len(shown) else ():
            inside = shown[(shown >= before) & (shown < before + len(batch))] - before
            rows = _Rows(_decodable(self.kind, batch.take(pa.array(inside)))[0], len(inside))
            tally.examples += [rows.example(row, "text") for row in range(len(inside))]
            before += len(batch)
        return tally


def _decodable(kind: Kind, batch: pa.RecordBatch) -> tuple[dict[str, pa.Array], dict[int, str]]:
    """The schema's text columns that the batch has, made valid; and rows with invalid UTF-8 -> column."""
    texts: dict[str, pa.Array] = {}
    broken: dict[int, str] = {}
    for name in SCHEMAS[kind].names:
        if name in batch.schema.names and _is_text(batch.column(name).type):
            texts[name], faulty = _texts.decodable(batch.column(name).cast(pa.string()))
            broken |= dict.fromkeys(faulty, name)
    return texts, broken


class _Rows:
    """The text columns of a batch, and examples of its records."""

    def __init__(self, texts: dict[str, pa.Array], count: int) -> None:
        self.texts, self.count = texts, count

    def values(self, name: str) -> list[str]:
        """A column as texts, with empty ones for missing values or a missing column."""
        return [value or "" for value in self.texts[name].to_pylist()] if name in self.texts else [""] * self.count

    def example(self, row: int, column: str, span: tuple[int, int] = (0, 0)) -> Example:
        """The record's id and origin, and the masked text around a span of a column."""
        values = {
            name: self.texts[name][row].as_py() if name in self.texts else None for name in ("id", "origin", column)
        }
        value = values[column]
        text = "null" if value is None else _texts.excerpt(value, span)
        return Example(values["id"] or "", values["origin"] or "", f"{column}: {text}")


def _true(mask: pa.Array) -> list[int]:
    """Rows for which the mask holds; null counts as false."""
    return np.flatnonzero(pc.fill_null(mask, False)).tolist()


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))
