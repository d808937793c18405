"""Profile tables of data/raw: records, languages, labels, sources and row counts."""

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.config.recipe import KINDS, Kind
from pipeline.data.external import DiskArray, group_starts, in_order
from pipeline.data.label_cells import labels_of
from pipeline.data.records import schema
from pipeline.data.tables import batches
from pipeline.errors import UserError
from pipeline.gates._rules import MOST_EXAMPLES, Example, Frame, Tally
from pipeline.gates.profiles import texts as _texts
from pipeline.gates.profiles.scan import COUNTS, Profiler
from pipeline.gates.profiles.values import MOST_VALUES, Rest
from pipeline.integrity import kinds_in

if TYPE_CHECKING:
    from pipeline.gates.raw import Settings

_BATCH = 1024
_EXAMPLES_PER_REASON = 10


def profile(settings: "Settings", raw: Path) -> dict[str, Frame]:
    """Profile tables of a folder of raw records: schema, records, languages, labels, sources, ledger.

    Raises:
        UserError: a file of data/raw is missing.
    """
    for name in (
        *(f"{kind}.parquet" for kind in KINDS),
        "provenance.json",
        "ledger.json",
        "rejections.parquet",
    ):
        if not (raw / name).exists():
            raise UserError(f"{raw / name}: no such file; run `dvc repro download`")
    profilers: dict[Kind, Profiler] = {}
    for kind in kinds_in(raw):
        path = raw / f"{kind}.parquet"
        profilers[kind] = Profiler(kind, settings, pq.read_metadata(path).num_rows, raw.parent)
        for batch in batches(path, rows=_BATCH):
            profilers[kind].read(batch)
    return {
        "schema": _schema(raw),
        "records": _counts(raw, profilers),
        "languages": _languages(settings, raw / "documents.parquet", profilers["documents"]),
        **_labels(settings, raw / "labelled.parquet", profilers["labelled"]),
        "sources": _sources(raw, profilers),
        "ledger": _ledger(raw, profilers),
    }


def _schema(raw: Path) -> Frame:
    frame = Frame(("kind", "name"), ("found_type", "expected_type"))
    sources = files.read_json(raw / "provenance.json")["sources"]
    for kind in kinds_in(raw):
        found = {field.name: str(field.type) for field in pq.read_schema(raw / f"{kind}.parquet")}
        declared = chain.from_iterable(source.get("columns", {}).get(kind, ()) for source in sources.values())
        expected = {field.name: str(field.type) for field in schema(kind, declared)}
        for name in dict.fromkeys([*expected, *found]):
            frame.add(
                {
                    "kind": kind,
                    "name": name,
                    "found_type": found.get(name, "no such column"),
                    "expected_type": expected.get(name, "no such column"),
                }
            )
    return frame


def _counts(raw: Path, profilers: dict[Kind, Profiler]) -> Frame:
    frame = Frame(
        ("kind",),
        (
            "rows",
            "min_rows",
            *COUNTS,
            "shortest",
            "longest",
            "least_characters",
            "most_characters",
            "duplicates",
            "duplicate_share",
            "languages_detected",
            "language_disagreements",
            "language_disagreement_share",
        ),
        counts={"duplicate_share": "duplicates", "language_disagreement_share": "language_disagreements"},
    )
    for kind, profiler in profilers.items():
        duplicates = _duplicates(raw / f"{kind}.parquet")
        disagreements = profiler.tallies["language_disagreements"]
        characters = getattr(profiler.settings.characters, kind)
        frame.add(
            {
                "kind": kind,
                "rows": profiler.row,
                "min_rows": getattr(profiler.settings.min_rows, kind, 0),
                **{name: profiler.tallies[name] for name in COUNTS},
                "shortest": profiler.shortest or 0,
                "longest": profiler.longest,
                "least_characters": characters.at_least,
                "most_characters": characters.at_most,
                "duplicates": duplicates,
                "duplicate_share": _share(duplicates.count, profiler.row),
                "languages_detected": profiler.decided,
                "language_disagreements": disagreements,
                "language_disagreement_share": _share(disagreements.count, profiler.decided),
            }
        )
    return frame


def _duplicates(path: Path) -> Tally:
    """Records whose id (hash of the content) occurs earlier in the file."""
    tally = Tally()
    if not {"id", "origin"} <= set(pq.read_schema(path).names):
        return tally
    digests, first = DiskArray(path.parents[1], np.uint64, 3), 0
    for batch in batches(path, ["id"], _BATCH):
        ids = [identity or b"" for identity in batch["id"].cast(pa.binary()).to_pylist()]
        halves = np.frombuffer(b"".join(blake2b(identity, digest_size=16).digest() for identity in ids), np.uint64)
        rows = np.arange(first, first + len(batch), dtype=np.uint64)
        digests.append(np.column_stack([halves.reshape(-1, 2), rows]))
        first += len(batch)
    shown = np.empty((0, 2), np.int64)  # rows of the first records that repeat another, and of that other
    for part in in_order(digests, keys=2):
        starts = group_starts(part, keys=2)
        rows = part[:, 2].astype(np.int64)
        repeated = np.ones(len(part), np.bool_)
        repeated[starts] = False
        pairs = np.column_stack([rows, np.repeat(rows[starts], np.diff(starts, append=len(part)))])[repeated]
        tally.count += len(pairs)
        shown = np.concatenate([shown, pairs])
        shown = shown[np.argsort(shown[:, 0])][:MOST_EXAMPLES]
    for record, original in zip(_records(path, shown[:, 0]), shown[:, 1].tolist(), strict=True):
        tally.examples.append(Example(record["id"], record["origin"], f"repeats record {original + 1} of {path.name}"))
    return tally


def _records(path: Path, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """Id and origin of the records at ascending `rows`."""
    first = 0
    for batch in batches(path, ["id", "origin"], _BATCH) if len(rows) else ():
        inside = rows[(rows >= first) & (rows < first + len(batch))] - first
        yield from batch.take(pa.array(inside)).to_pylist()
        first += len(batch)


def _languages(settings: "Settings", file: Path, documents: Profiler) -> Frame:
    frame = Frame(("language",), ("documents", "document_share", "min_document_share"), kind="documents")
    if not documents.row:
        return frame
    listed, rest = documents.languages.most_frequent(file, "language")
    counts = documents.languages.counts_of(list(settings.language.min_share)) | listed
    for code in sorted(counts):
        frame.add(_language(settings, documents, code, counts[code]))
    if rest.values:
        frame.add(_language(settings, documents, f"{rest.values:,} more languages", rest.records))
    return frame


def _language(settings: "Settings", documents: Profiler, code: str, count: int) -> dict[str, Any]:
    return {
        "language": code,
        "documents": count,
        "document_share": count / documents.row,
        "min_document_share": settings.language.min_share.get(code, 0.0),
    }


def _labels(settings: "Settings", file: Path, labelled: Profiler) -> dict[str, Frame]:
    """Shares of the labels, and of all of them number and contradictions; numbers (regression) have no shares."""
    columns = ("label_records", "label_share")
    balance = Frame(("label",), columns, counts={"label_share": "label_records"}, kind="labelled")
    label_set = Frame((), ("n_labels", "contradictions"), kind="labelled")
    forms = _label_forms(file.parent, labelled)
    if labelled.row and (n_labels := labelled.labels.number()):
        fewest = math.ceil(settings.labels.min_share * labelled.row)
        if "number" in forms:
            listed, rare, other = dict[str, int](), Rest(0, 0, 0), Rest(0, 0, 0)
        elif "several" in forms:
            n_labels, listed, rare, other = _several_labels(file, fewest)
        else:
            listed, rare, other = labelled.labels.rarest(file, "label", fewest)
        for label, count in sorted(listed.items()):
            balance.add({"label": label, "label_records": count, "label_share": count / labelled.row})
        for rest, words in ((rare, "rarer than that"), (other, "not rarer than that")):
            if rest.values:
                name = f"{rest.values:,} more labels, {words}"
                share = rest.fewest / labelled.row
                balance.add({"label": name, "label_records": rest.records, "label_share": share})
        label_set.add({"n_labels": n_labels, "contradictions": labelled.contradictions(file)})
    return {"labels": balance, "label_set": label_set}


def _label_forms(raw: Path, labelled: Profiler) -> set[str]:
    """The forms of the label column of the sources that have labelled records (`label_form`)."""
    stated = files.read_json(raw / "provenance.json")["sources"]
    return {stated.get(source, {}).get("label_form", "one") for source in labelled.sources}


def _several_labels(file: Path, fewest: int) -> tuple[int, dict[str, int], Rest, Rest]:
    """Number of distinct labels of records with several, and the rarest of them as of `DistinctValues.rarest`."""
    counts: Counter[str] = Counter()
    for batch in batches(file, ["label"], _BATCH):
        for cell in batch["label"].to_pylist():
            counts.update(labels_of(cell or ""))
    order = sorted(counts, key=lambda label: (counts[label], label))
    rest = [counts[label] for label in order[MOST_VALUES:]]
    rare, other = (
        Rest(len(part), sum(part), min(part, default=0))
        for part in ([n for n in rest if n < fewest], [n for n in rest if n >= fewest])
    )
    return len(counts), {label: counts[label] for label in order[:MOST_VALUES]}, rare, other


def _sources(raw: Path, profilers: dict[Kind, Profiler]) -> Frame:
    provenance = files.read_json(raw / "provenance.json")["sources"]
    of_records = {source for profiler in profilers.values() for source in profiler.sources}
    frame = Frame(("source",), ("licence", "consent", "licence_stated", "consent_stated"))
    for source in sorted({*provenance, *of_records}):
        stated: dict[str, Any] = {
            key: str(provenance.get(source, {}).get(key) or "").strip() for key in ("licence", "consent")
        }
        frame.add(
            {
                "source": source,
                **stated,
                **{f"{key}_stated": int(bool(value)) for key, value in stated.items()},
            }
        )
    return frame


def _ledger(raw: Path, profilers: dict[Kind, Profiler]) -> Frame:
    frame = Frame(
        ("source", "kind"),
        ("rows_in", "accounted", "kept", "rows_stored", "rejected", "rejections_listed", "rejected_share"),
        counts={"rejected_share": "rejections_listed"},
    )
    counts = files.read_json(raw / "ledger.json")["sources"]
    rejected = _rejections(raw / "rejections.parquet")
    pairs = {(source, kind) for source, kinds in counts.items() for kind in kinds} | set(rejected)
    pairs |= {(source, kind) for kind, profiler in profilers.items() for source in profiler.sources}
    for source, kind in sorted(pairs):
        n = {"rows_in": 0, "kept": 0, "rejected": 0, "sampled_out": 0} | counts.get(source, {}).get(kind, {})
        stored = profilers[kind].sources[source] if kind in profilers else 0
        frame.add(
            {
                "source": source,
                "kind": kind,
                "rows_in": n["rows_in"],
                "accounted": n["kept"] + n["rejected"] + n["sampled_out"] + n.get("forgotten", 0),
                "kept": n["kept"],
                "rows_stored": stored,
                "rejected": n["rejected"],
                "rejections_listed": _together(rejected.get((source, kind), {})),
                "rejected_share": _share(n["rejected"], n["rows_in"]),
            }
        )
    return frame


def _rejections(path: Path) -> dict[tuple[str, Any], dict[str, Tally]]:
    """(source, kind) -> reason -> its rejected rows, the first of them as examples."""
    tallies: dict[tuple[str, Any], dict[str, Tally]] = {}
    for batch in batches(path, rows=_BATCH):
        groups = [batch[name].fill_null("").dictionary_encode() for name in ("source", "kind", "reason")]
        codes = np.column_stack([group.indices.to_numpy() for group in groups])
        for code in np.unique(codes, axis=0):
            source, kind, reason = (group.dictionary[int(i)].as_py() for group, i in zip(groups, code, strict=True))
            rows = np.flatnonzero((codes == code).all(axis=1)).tolist()
            tally = tallies.setdefault((source, kind), {}).setdefault(reason, Tally())
            tally.add_rows(rows, partial(_rejected, batch), _EXAMPLES_PER_REASON)
    return tallies


def _rejected(batch: pa.RecordBatch, row: int) -> Example:
    values = {name: batch[name][row].as_py() for name in batch.schema.names}
    place = f"{values['file']}:{values['line']}" if values["line"] is not None else str(values["file"])
    return Example("", place, _texts.excerpt(f"{values['reason']}: {values['detail'] or ''}"))


def _together(by_reason: dict[str, Tally]) -> Tally:
    """One tally of all reasons, the most frequent one's examples first."""
    ordered = sorted(by_reason.values(), key=lambda tally: -tally.count)
    examples = [example for tally in ordered for example in tally.examples]
    return Tally(sum(tally.count for tally in ordered), examples[:MOST_EXAMPLES])


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
