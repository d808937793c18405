"""Gate on data/tokens: the expectations on token ids before sampling and training.

`profile` reads data/tokens and the source texts in parts; `EXPECTATIONS` is the table of conditions: ids within the
vocabulary, special tokens only where code placed them, an index that fits the ids, texts that decode to themselves, and
a vocabulary that suits the text.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import integrity
from pipeline.config.recipe import Kind
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.data.tables import batches
from pipeline.errors import UserError
from pipeline.gates._rules import (
    Example,
    Expectation,
    Frame,
    Row,
    Tally,
    at_least,
    at_most,
    equals,
    suite,
    warning,
    within,
    zero,
)
from pipeline.gates.profiles import texts as _texts
from pipeline.gates.profiles.tokens import IndexRows, TokenFolder


class BytesPerToken(Section):
    """Compression: UTF-8 bytes of text per token, the end-of-text tokens not counted."""

    at_least: float
    at_most: float


class Outliers(Section):
    """Documents that compress much worse than ordinary text: binary data, other scripts, gibberish."""

    below: float
    """Bytes per token under which a document is an outlier."""
    min_tokens: Positive
    """Documents with fewer tokens are no outliers."""
    max_share: Share
    """Of all documents."""


class Settings(Section):
    """gates.tokens: the bounds of every expectation that has one."""

    min_documents: Count
    """Fewest documents."""
    bytes_per_token: BytesPerToken
    """Bounds for each language."""
    outliers: Outliers
    max_unused_vocabulary_share: Share
    """Of the vocabulary without special tokens, ids that no document uses."""
    round_trip_documents: Positive
    """Documents decoded and compared with their text: evenly spaced ones, and all that spell a special token."""
    max_spelled_specials: Count
    """Documents that spell a special token as text (harmless here, odd in a corpus): a warning."""


CODE = "no bound: fix pipeline/tokenizer or pipeline/data/tokens.py"
COMPRESSION = within("bytes_per_token.at_least", "bytes_per_token.at_most", "gates.tokens.bytes_per_token")
MARKERS = warning(at_most("max_spelled_specials"))
# Frame, column, condition (with the setting below gates.tokens that holds the bound), condition and values in words.
EXPECTATIONS: list[Row] = [
    (
        "ids",
        "ids_outside_vocabulary",
        zero(CODE),
        "every id is below vocab_size",
        "{ids_outside_vocabulary} ids are not below vocab_size",
    ),
    (
        "ids",
        "specials_inside",
        zero(CODE),
        "no special token came out of text",
        "{specials_inside} special tokens stand inside documents",
    ),
    (
        "ids",
        "missing_ends",
        zero(CODE),
        "every document ends with the end-of-text token",
        "{missing_ends} documents do not end with it",
    ),
    (
        "index",
        "misplaced",
        zero(CODE),
        "documents lie one after the other, without gap or overlap",
        "{misplaced} documents start elsewhere",
    ),
    (
        "index",
        "other_order",
        zero(CODE),
        "documents have the order of data/raw/documents.parquet",
        "{other_order} documents are out of order",
    ),
    (
        "index",
        "tokens_in_file",
        equals("tokens_in_index", CODE),
        "the index covers the ids file exactly",
        "{tokens_in_file} tokens in ids.bin, {tokens_in_index} in the index",
    ),
    (
        "index",
        "tokens_in_meta",
        equals("tokens_in_index", CODE),
        "meta.json counts the tokens right",
        "{tokens_in_meta} tokens in meta.json, {tokens_in_index} in the index",
    ),
    (
        "index",
        "documents_in_index",
        equals("documents_in_raw", CODE),
        "every document was tokenized",
        "{documents_in_index} documents of {documents_in_raw} were tokenized",
    ),
    (
        "index",
        "documents_in_meta",
        equals("documents_in_index", CODE),
        "meta.json counts the documents right",
        "{documents_in_meta} documents in meta.json, {documents_in_index} in the index",
    ),
    (
        "index",
        "documents_in_index",
        at_least("min_documents"),
        "there are enough documents",
        "{documents_in_index} documents",
    ),
    (
        "texts",
        "changed_texts",
        zero(CODE),
        "decoding gives every sampled text back, byte for byte",
        "{changed_texts} of {compared} texts are not what their ids decode to",
    ),
    (
        "texts",
        "wrong_sizes",
        zero(CODE),
        "the index counts each text's bytes right",
        "{wrong_sizes} of {compared} sizes in the index are wrong",
    ),
    (
        "texts",
        "spelled_specials",
        MARKERS,
        "texts seldom spell a special token",
        "{spelled_specials} texts spell a special token such as <|endoftext|>",
    ),
    (
        "languages",
        "bytes_per_token",
        COMPRESSION,
        "the vocabulary compresses each language well, not too well",
        "{bytes_per_token} bytes per token in language {language}",
    ),
    (
        "compression",
        "outlier_share",
        at_most("outliers.max_share", "gates.tokens.outliers"),
        "few documents compress badly",
        "{outliers} documents compress badly, a share of {outlier_share}",
    ),
    (
        "vocabulary",
        "unused_share",
        at_most("max_unused_vocabulary_share"),
        "the vocabulary is not too large for the text",
        "{unused_ids} of {vocab_size} ids are never used, a share of {unused_share}",
    ),
]


def profile(settings: Settings, data: Path) -> dict[str, Frame]:
    """Profile tables of `<data>/tokens`: the ids, the index, round trips, languages, vocabulary.

    Raises:
        UserError: a file is missing, or the ids file is no whole number of ids.
    """
    tokens = TokenFolder.open(data / "tokens")
    documents = data / "raw" / "documents.parquet"
    if not documents.exists():
        raise UserError(f"{documents}: no such file; run `dvc repro download`")
    return {
        "ids": _ids(tokens, data),
        "index": _index(tokens, documents),
        "texts": _round_trips(settings, tokens, documents),
        "languages": _languages(tokens),
        "compression": _compression(settings, tokens),
        "vocabulary": _vocabulary(tokens),
    }


def expectations(settings: Settings) -> list[Expectation]:
    """The expectations on `profile`'s frames."""
    return suite("gates.tokens", settings, EXPECTATIONS)


def admits(data: Path) -> dict[Kind, str]:
    """The SHA-256 of the files that a pass admits: ids, index, meta.json and tokenizer."""
    return integrity.admits("tokens", data)


def _ids(tokens: TokenFolder, folder: Path) -> Frame:
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


def _index(tokens: TokenFolder, documents: Path) -> Frame:
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


def _round_trips(settings: Settings, tokens: TokenFolder, documents: Path) -> Frame:
    """Compares texts with their decoded ids, every n-th and all that spell a special token."""
    frame = Frame((), ("compared", "changed_texts", "wrong_sizes", "spelled_specials"), kind="documents")
    tallies = {name: Tally() for name in frame.columns[1:]}
    detector = _texts.spelled(tokens.specials_by_name)
    compared, every = 0, max(1, tokens.n_documents // settings.round_trip_documents)
    for part, batch in zip(tokens.documents(), batches(documents, ["id", "origin", "text"]), strict=False):
        texts, _ = _texts.decodable(batch.column("text").cast(pa.string()))
        spelled = {row: span for row, _, span in _texts.matches(texts, detector)} if detector else {}
        chosen = {*spelled, *range(-part.first % every, len(batch), every)}
        for row in sorted(row for row in chosen if row < len(part.starts)):
            text = texts[row].as_py() or ""
            raw = text.encode("utf-8")
            faults = {
                "spelled_specials": row in spelled,
                "changed_texts": tokens.decoded(int(part.starts[row]), int(part.lengths[row])) != raw,
                "wrong_sizes": part.sizes[row] != len(raw),
            }
            compared += 1
            for name in (name for name, present in faults.items() if present):
                excerpt = _texts.excerpt(text, spelled.get(row, (0, 0)))
                identity, origin = (str(batch.column(key)[row].as_py()) for key in ("id", "origin"))
                tallies[name].add(Example(identity, origin, excerpt))
    frame.add({"compared": compared, **tallies})
    return frame


def _languages(tokens: TokenFolder) -> Frame:
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


def _compression(settings: Settings, tokens: TokenFolder) -> Frame:
    frame = Frame((), ("outliers", "outlier_share"), counts={"outlier_share": "outliers"}, kind="documents")
    tally = Tally()
    for part in tokens.documents():
        rate = part.sizes / np.maximum(part.lengths - 1, 1)
        outlier = (rate < settings.outliers.below) & (part.lengths > settings.outliers.min_tokens)
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


def _vocabulary(tokens: TokenFolder) -> Frame:
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
