"""The profile tables of data/raw: what its records, their sources and their accounts add up to."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.config import KINDS, Kind, UserError
from pipeline.data.records import SCHEMAS
from pipeline.gates import _texts
from pipeline.gates._rules import Example, Frame, Tally
from pipeline.gates._scan import COUNTS, Profiler

if TYPE_CHECKING:
    from pipeline.gates.raw import Settings

_BATCH = 4096


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
    for kind in KINDS:
        parquet = pq.ParquetFile(raw / f"{kind}.parquet")
        profilers[kind] = Profiler(kind, settings, parquet.metadata.num_rows)
        for batch in parquet.iter_batches(batch_size=_BATCH):
            profilers[kind].read(batch)
    return {
        "schema": _schema(raw),
        "records": _counts(raw, profilers),
        "languages": _languages(settings, profilers["documents"]),
        **_labels(profilers["labelled"]),
        "sources": _sources(raw, profilers),
        "ledger": _ledger(raw, profilers),
    }


def _schema(raw: Path) -> Frame:
    frame = Frame(("kind", "name"), ("found_type", "expected_type"))
    for kind in KINDS:
        found = {field.name: str(field.type) for field in pq.read_schema(raw / f"{kind}.parquet")}
        expected = {field.name: str(field.type) for field in SCHEMAS[kind]}
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
            "duplicates",
            "duplicate_share",
            "language_disagreements",
            "language_disagreement_share",
        ),
    )
    for kind, profiler in profilers.items():
        duplicates = _duplicates(raw / f"{kind}.parquet")
        disagreements = profiler.tallies["language_disagreements"]
        frame.add(
            {
                "kind": kind,
                "rows": profiler.row,
                "min_rows": getattr(profiler.settings.min_rows, kind),
                **{name: profiler.tallies[name] for name in COUNTS},
                "duplicates": duplicates,
                "duplicate_share": _share(duplicates.count, profiler.row),
                "language_disagreements": disagreements,
                "language_disagreement_share": _share(disagreements.count, profiler.decided),
            }
        )
    return frame


def _duplicates(path: Path) -> Tally:
    """Records whose id (hash of the content) stood earlier in the file."""
    tally = Tally()
    if not {"id", "origin"} <= set(pq.read_schema(path).names):
        return tally
    ids = pq.read_table(path, columns=["id"]).column("id").combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(ids, return_index=True)
    again = np.setdiff1d(np.arange(len(ids)), first)
    if len(again):
        table = pq.read_table(path, columns=["id", "origin"]).take(pa.array(again))
        for row, original in zip(table.to_pylist(), first[ids[again]].tolist(), strict=True):
            tally.add(Example(row["id"], row["origin"], f"repeats record {original + 1} of {path.name}"))
    return tally


def _languages(settings: "Settings", documents: Profiler) -> Frame:
    frame = Frame(("language",), ("documents", "document_share", "min_document_share"))
    if documents.row:
        for code in sorted({*documents.languages, *settings.language.min_share}):
            frame.add(
                {
                    "language": code,
                    "documents": documents.languages[code],
                    "document_share": documents.languages[code] / documents.row,
                    "min_document_share": settings.language.min_share.get(code, 0.0),
                }
            )
    return frame


def _labels(labelled: Profiler) -> dict[str, Frame]:
    balance, whole = (
        Frame(("label",), ("label_records", "label_share")),
        Frame((), ("n_labels", "contradictions")),
    )
    for label, count in sorted(labelled.labels.items()):
        balance.add({"label": label, "label_records": count, "label_share": count / labelled.row})
    if labelled.row:
        whole.add({"n_labels": len(labelled.labels), "contradictions": labelled.tallies["contradictions"]})
    return {"labels": balance, "label_set": whole}


def _sources(raw: Path, profilers: dict[Kind, Profiler]) -> Frame:
    known = files.read_json(raw / "provenance.json")["sources"]
    seen = {source for profiler in profilers.values() for source in profiler.sources}
    frame = Frame(("source",), ("licence", "consent", "licence_stated", "consent_stated"))
    for source in sorted({*known, *seen}):
        stated: dict[str, Any] = {
            key: str(known.get(source, {}).get(key) or "").strip() for key in ("licence", "consent")
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
    )
    account = files.read_json(raw / "ledger.json")["sources"]
    refused = _rejections(raw / "rejections.parquet")
    pairs = {(source, kind) for source, kinds in account.items() for kind in kinds} | set(refused)
    pairs |= {(source, kind) for kind, profiler in profilers.items() for source in profiler.sources}
    for source, kind in sorted(pairs):
        n = {"rows_in": 0, "kept": 0, "rejected": 0, "sampled_out": 0} | account.get(source, {}).get(kind, {})
        stored = profilers[kind].sources[source] if kind in profilers else 0
        frame.add(
            {
                "source": source,
                "kind": kind,
                "rows_in": n["rows_in"],
                "accounted": n["kept"] + n["rejected"] + n["sampled_out"],
                "kept": n["kept"],
                "rows_stored": stored,
                "rejected": n["rejected"],
                "rejections_listed": refused.get((source, kind), Tally()),
                "rejected_share": _share(n["rejected"], n["rows_in"]),
            }
        )
    return frame


def _rejections(path: Path) -> dict[tuple[str, Any], Tally]:
    found: dict[tuple[str, Any], Tally] = {}
    for row in _stream(path):
        place = f"{row['file']}:{row['line']}" if row["line"] is not None else str(row["file"])
        detail = _texts.excerpt(f"{row['reason']}: {row['detail'] or ''}")
        found.setdefault((row["source"], row["kind"]), Tally()).add(Example("", place, detail))
    return found


def _stream(path: Path) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH):
        yield from batch.to_pylist()


def _share(count: int, of: int) -> float:
    return count / of if of else 0.0
