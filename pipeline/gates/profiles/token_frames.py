"""Profile tables of data/tokens: ids, index, round trips, unknown text, rejected documents, languages, vocabulary.

pipeline.gates.tokens has the conditions on them.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data.tables import batches
from pipeline.gates._rules import Example, Frame, Tally
from pipeline.gates.profiles import texts as _texts
from pipeline.gates.profiles.tokens import IndexRows, TokenFolder


def ids(tokens: TokenFolder, folder: Path) -> Frame:
    """Ids outside of the vocabulary, special tokens inside of documents, documents without an end; one row.

    Args:
        tokens: data/tokens.
        folder: for temporary files.
    """
    frame = Frame((), ("ids_outside_vocabulary", "specials_inside", "missing_ends"), kind="documents")
    outside, inside, unclosed = Tally(), Tally(), Tally()
    for places, values in tokens.outside_vocabulary():
        if len(places):
            tokens.tally_places(outside, places, [f"id {value}, vocab_size {tokens.vocab_size}" for value in values])
    ends = tokens.ends(folder)
    without_end = [*ends.outside]
    for after, places, values in tokens.specials():
        end_places, rows = ends.before(after)
        stray = ~((values == tokens.end_of_text) & np.isin(places, end_places))
        if stray.any():
            faults = [f"{tokens.name_of(number)} inside the document" for number in values[stray].tolist()]
            tokens.tally_places(inside, places[stray], faults)
        end_tokens = places[values == tokens.end_of_text]
        without_end.append(rows[~np.isin(end_places, end_tokens)])
    without_end.append(ends.before(1 << 62)[1])  # beyond the file
    rows = np.sort(np.concatenate(without_end)).tolist()
    tokens.tally(unclosed, rows, lambda _: "does not end with the end-of-text token")
    frame.add({"ids_outside_vocabulary": outside, "specials_inside": inside, "missing_ends": unclosed})
    return frame


def index(tokens: TokenFolder, documents: Path) -> Frame:
    """Places and order of documents in the index, and totals by index, ids file, meta.json and raw file; one row."""
    frame = Frame(
        (),
        (
            "misplaced",
            "other_order",
            "tokens_in_file",
            "tokens_in_index",
            "tokens_in_meta",
            "documents_in_index",
            "documents_in_raw",
            "documents_in_meta",
        ),
        kind="documents",
    )
    misplaced, other_order, n_tokens = Tally(), Tally(), 0
    for part in tokens.documents():
        expected = n_tokens + np.cumsum(part.lengths) - part.lengths
        wrong = np.flatnonzero((expected != part.starts) | (part.lengths < 1)) + part.first
        tokens.tally(misplaced, wrong.tolist(), _moved(part, expected))
        n_tokens += int(part.lengths.sum())
    first = 0
    for indexed, raw in zip(batches(tokens.index, ["id"]), batches(documents, ["id"]), strict=False):
        n = min(len(indexed), len(raw))
        expected_ids = raw["id"][:n]
        wrong = np.flatnonzero(pc.not_equal(indexed["id"][:n], expected_ids).to_numpy(zero_copy_only=False)) + first
        tokens.tally(other_order, wrong.tolist(), _replaced(first, expected_ids))
        first += n
    frame.add(
        {
            "misplaced": misplaced,
            "other_order": other_order,
            "tokens_in_file": len(tokens.ids),
            "tokens_in_index": n_tokens,
            "tokens_in_meta": int(tokens.meta["n_tokens"]),
            "documents_in_index": tokens.n_documents,
            "documents_in_raw": int(pq.read_metadata(documents).num_rows),
            "documents_in_meta": int(tokens.meta["n_documents"]),
        }
    )
    return frame


def _moved(part: IndexRows, expected: np.ndarray) -> Callable[[int], str]:
    return lambda row: f"starts at {part.starts[row - part.first]}, expected {expected[row - part.first]}"


def _replaced(first: int, ids: pa.Array) -> Callable[[int], str]:
    return lambda row: f"stands where {ids[row - first].as_py()} was expected"


def round_trips(tokens: TokenFolder, documents: Path, most: int) -> Frame:
    """Texts compared with their decoded ids, and sizes in the index; one row.

    With a vocabulary that changes text (`lossless` is False) the ids are compared with the tokenizers library's.

    Args:
        tokens: data/tokens.
        documents: data/raw/documents.parquet.
        most: number of documents to compare, evenly spaced; all that spell a special token are compared too.
    """
    columns = ("compared", "changed_texts", "other_ids", "wrong_sizes", "spelled_specials")
    frame = Frame((), columns, kind="documents")
    tallies = {name: Tally() for name in frame.columns[1:]}
    detector = _texts.spelled(tokens.specials_by_name)
    lossless, rejected_rows = tokens.tokenizer.lossless, set(tokens.rejections()["row"].to_pylist())
    compared, every = 0, max(1, tokens.n_documents // most)
    for part, batch in zip(tokens.documents(), batches(documents, ["id", "origin", "text"]), strict=False):
        texts, _ = _texts.decodable(batch.column("text").cast(pa.string()))
        spelled = {row: span for row, _, span in _texts.matches(texts, detector)} if detector else {}
        chosen = {*spelled, *range(-part.first % every, len(batch), every)}
        for row in sorted(row for row in chosen if row < len(part.starts)):
            if part.first + row in rejected_rows:
                continue
            text = texts[row].as_py() or ""
            raw, start, length = text.encode("utf-8"), int(part.starts[row]), int(part.lengths[row])
            faults = {
                "spelled_specials": row in spelled,
                "changed_texts": lossless and tokens.decoded(start, length) != raw,
                "other_ids": not lossless and not tokens.library_agrees(text, start, length),
                "wrong_sizes": part.sizes[row] != len(raw),
            }
            compared += 1
            for name in (name for name, present in faults.items() if present):
                excerpt = _texts.excerpt(text, spelled.get(row, (0, 0)))
                identity, origin = (str(batch.column(key)[row].as_py()) for key in ("id", "origin"))
                tallies[name].add(Example(identity, origin, excerpt))
    frame.add({"compared": compared, **tallies})
    return frame


def unknown(tokens: TokenFolder) -> Frame:
    """Tokens of unknown text, and their share of all tokens without the ends of documents; one row."""
    columns = ("unknown_tokens", "text_tokens", "unknown_share")
    frame = Frame((), columns, counts={"unknown_share": "unknown_tokens"}, kind="documents")
    tally, number = Tally(), tokens.tokenizer.unknown
    if number is not None:
        for first, chunk in tokens.ids.chunks():
            places = first + np.flatnonzero(chunk == number)
            tokens.tally_places(tally, places, ["a text that the vocabulary does not know"] * len(places))
    n_tokens = max(len(tokens.ids) - tokens.n_documents, 0)
    share = tally.count / n_tokens if n_tokens else 0.0
    frame.add({"unknown_tokens": tally, "text_tokens": n_tokens, "unknown_share": share})
    return frame


def rejected(tokens: TokenFolder) -> Frame:
    """Documents that the vocabulary cannot encode; one row."""
    columns = ("rejected", "documents", "rejected_share")
    frame = Frame((), columns, counts={"rejected_share": "rejected"}, kind="documents")
    tally, table = Tally(), tokens.rejections()

    def example(place: int) -> Example:
        row = table.slice(place, 1).to_pylist()[0]
        return Example(row["id"], f"data/raw/documents.parquet:{row['row'] + 1}", row["detail"])

    tally.add_rows(range(len(table)), example)
    share = tally.count / tokens.n_documents if tokens.n_documents else 0.0
    frame.add({"rejected": tally, "documents": tokens.n_documents, "rejected_share": share})
    return frame


def languages(tokens: TokenFolder) -> Frame:
    """Documents, bytes and tokens of each language; a row a language."""
    frame = Frame(("language",), ("documents", "text_bytes", "text_tokens", "bytes_per_token"), kind="documents")
    sums: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))
    for batch in batches(tokens.index, ["language", "length", "bytes"]):
        codes = batch["language"].dictionary_encode()
        lengths, sizes = (batch[name].to_numpy().astype(np.int64) for name in ("length", "bytes"))
        for number, code in enumerate(codes.dictionary.to_pylist()):
            chosen = codes.indices.to_numpy() == number
            sums[code] += [chosen.sum(), sizes[chosen].sum(), (lengths[chosen] - 1).sum()]
    for code in sorted(sums):
        n, size, count = sums[code].tolist()
        frame.add(
            {
                "language": code,
                "documents": n,
                "text_bytes": size,
                "text_tokens": count,
                "bytes_per_token": size / count if count > 0 else 0.0,
            }
        )
    return frame


def compression(tokens: TokenFolder, below: float, min_tokens: int) -> Frame:
    """Documents that compress badly; one row.

    Args:
        tokens: data/tokens.
        below: bytes per token under which a document is an outlier.
        min_tokens: documents with fewer tokens are no outliers.
    """
    frame = Frame((), ("outliers", "outlier_share"), counts={"outlier_share": "outliers"}, kind="documents")
    tally = Tally()
    for part in tokens.documents():
        rate = part.sizes / np.maximum(part.lengths - 1, 1)
        outlier = (rate < below) & (part.lengths > min_tokens)
        tokens.tally(tally, (np.flatnonzero(outlier) + part.first).tolist(), _compressed(tokens, part, rate))
    share = tally.count / tokens.n_documents if tokens.n_documents else 0.0
    frame.add({"outliers": tally, "outlier_share": share})
    return frame


def _compressed(tokens: TokenFolder, part: IndexRows, rate: np.ndarray) -> Callable[[int], str]:
    def fault(row: int) -> str:
        at = row - part.first
        text = tokens.decoded(int(part.starts[at]), int(part.lengths[at])).decode("utf-8", "replace")
        return f"{rate[at]:.2f} bytes per token: {_texts.excerpt(text)}"

    return fault


def vocabulary(tokens: TokenFolder) -> Frame:
    """Ids that no document uses; one row."""
    frame = Frame(
        (), ("vocab_size", "unused_ids", "unused_share"), counts={"unused_share": "unused_ids"}, kind="documents"
    )
    special = set(tokens.specials_by_name.values())
    ordinary = [number for number in range(tokens.vocab_size) if number not in special]
    unused = int((tokens.counts()[ordinary] == 0).sum())
    frame.add(
        {
            "vocab_size": tokens.vocab_size,
            "unused_ids": unused,
            "unused_share": unused / len(ordinary) if ordinary else 0.0,
        }
    )
    return frame
