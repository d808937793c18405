"""What token ids must be before they are sampled and learned from.

`profile` reads data/tokens (the ids as a memory map, in chunks) and the texts they came from; `expectations`
says what must hold: ids within the vocabulary, special tokens only where code placed them, an index that fits
the ids, texts that come back unharmed, and a vocabulary that suits the text.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import integrity
from pipeline.config import Count, Kind, Positive, Section, Share, UserError
from pipeline.gates import _texts
from pipeline.gates._rules import Example, Frame, Rule, Tally, between, equal
from pipeline.gates._tokens import Tokens

_BATCH = 2048


class BytesPerToken(Section):
    """Compression: UTF-8 bytes of text per token, the end-of-text tokens not counted."""

    at_least: float
    at_most: float


class Outliers(Section):
    """Documents that compress much worse than text does: binary data, other scripts, gibberish."""

    below: float
    """Bytes per token under which a document is an outlier."""
    min_tokens: Positive
    """Shorter documents are not judged."""
    max_share: Share
    """Of all documents."""


class Settings(Section):
    """gates.tokens: the bounds of every expectation that has one."""

    min_documents: Count
    bytes_per_token: BytesPerToken
    """For each language."""
    outliers: Outliers
    max_unused_vocabulary_share: Share
    """Of the vocabulary without special tokens, ids that no document uses."""
    round_trip_documents: Positive
    """Documents decoded and compared with their text: evenly spaced, and all that spell a special."""
    max_spelled_specials: Count
    """Documents that spell a special token as text (harmless here, odd in a corpus): a warning."""


def profile(settings: Settings, data: Path) -> dict[str, Frame]:
    """Profile tables of `<data>/tokens`: the ids, the index, round trips, languages, vocabulary.

    Raises:
        UserError: a file is missing, or the ids file is no whole number of ids.
    """
    tokens = Tokens.open(data / "tokens")
    documents = data / "raw" / "documents.parquet"
    if not documents.exists():
        raise UserError(f"{documents}: no such file; run `dvc repro download`")
    return {
        "ids": _ids(tokens),
        "index": _index(tokens, documents),
        "texts": _texts_back(settings, tokens, documents),
        "languages": _languages(tokens),
        "compression": _compression(settings, tokens),
        "vocabulary": _vocabulary(tokens),
    }


def expectations(settings: Settings) -> list[Rule]:
    """What must hold of `profile`'s frames."""
    code = "no bound: mend pipeline/tokenizer.py or pipeline/data/tokens.py"
    bounds = settings.bytes_per_token
    return [
        between("ids", "ids_outside_vocabulary", code, "every id is below vocab_size", at_most=0),
        between(
            "ids",
            "specials_inside",
            code,
            "no special token came out of text: they stand only where code puts them",
            at_most=0,
        ),
        between("ids", "missing_ends", code, "every document ends with the end-of-text token", at_most=0),
        between("index", "misplaced", code, "documents lie one after the other, without gap or overlap", at_most=0),
        between(
            "index",
            "other_order",
            code,
            "documents stand in the order of data/raw/documents.parquet",
            at_most=0,
        ),
        equal("index", "tokens_in_file", "tokens_in_index", code, "the index covers the ids file exactly"),
        equal("index", "tokens_in_meta", "tokens_in_index", code, "meta.json counts the tokens right"),
        equal("index", "documents_in_index", "documents_in_raw", code, "every document was tokenized"),
        equal("index", "documents_in_meta", "documents_in_index", code, "meta.json counts the documents right"),
        between(
            "index",
            "documents_in_index",
            "gates.tokens.min_documents",
            "there are enough documents",
            at_least=settings.min_documents,
        ),
        between("texts", "changed_texts", code, "decoding gives every sampled text back, byte for byte", at_most=0),
        between("texts", "wrong_sizes", code, "the index counts each text's bytes right", at_most=0),
        between(
            "texts",
            "spelled_specials",
            "gates.tokens.max_spelled_specials",
            "texts seldom spell a special token",
            at_most=settings.max_spelled_specials,
            severity="warning",
        ),
        between(
            "languages",
            "bytes_per_token",
            "gates.tokens.bytes_per_token",
            "the vocabulary compresses each language as a vocabulary should",
            at_least=bounds.at_least,
            at_most=bounds.at_most,
        ),
        between(
            "compression",
            "outlier_share",
            "gates.tokens.outliers",
            "few documents are no text to this vocabulary",
            at_most=settings.outliers.max_share,
            count="outliers",
        ),
        between(
            "vocabulary",
            "unused_share",
            "gates.tokens.max_unused_vocabulary_share",
            "the vocabulary is not too large for the text",
            at_most=settings.max_unused_vocabulary_share,
            count="unused_ids",
        ),
    ]


def admits(data: Path) -> dict[Kind, str]:
    """The SHA-256 of what a pass lets through: ids, index, meta.json and tokenizer."""
    return integrity.admits("tokens", data)


def _ids(tokens: Tokens) -> Frame:
    frame = Frame((), ("ids_outside_vocabulary", "specials_inside", "missing_ends"))
    outside, inside, ends = Tally(), Tally(), Tally()
    last = tokens.starts + tokens.lengths - 1
    allowed = np.sort(last)
    for at, ids in tokens.outside_vocabulary():
        outside.add(tokens.example(at, f"id {ids}, vocab_size {tokens.vocab_size}"))
    for at, number in tokens.specials():
        place = np.searchsorted(allowed, at)
        if number == tokens.end_of_text and place < len(allowed) and allowed[place] == at:
            continue
        inside.add(tokens.example(at, f"{tokens.name_of(number)} inside the document"))
    valid = (last >= 0) & (last < len(tokens.ids))
    closed = np.zeros(len(last), bool)
    closed[valid] = tokens.ids[last[valid]] == tokens.end_of_text
    for row in np.flatnonzero(~closed).tolist():
        ends.add(tokens.document_example(row, "does not end with the end-of-text token"))
    frame.add({"ids_outside_vocabulary": outside, "specials_inside": inside, "missing_ends": ends})
    return frame


def _index(tokens: Tokens, documents: Path) -> Frame:
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
    )
    misplaced, other_order = Tally(), Tally()
    expected = np.concatenate([[0], np.cumsum(tokens.lengths)])[:-1]
    for row in np.flatnonzero((expected != tokens.starts) | (tokens.lengths < 1)).tolist():
        misplaced.add(tokens.document_example(row, f"starts at {tokens.starts[row]}, expected {expected[row]}"))
    raw = pq.read_table(documents, columns=["id"]).column("id").to_pylist()
    for row, (mine, theirs) in enumerate(zip(tokens.names, raw, strict=False)):
        if mine != theirs:
            other_order.add(tokens.document_example(row, f"stands where {theirs} was expected"))
    frame.add(
        {
            "misplaced": misplaced,
            "other_order": other_order,
            "tokens_in_file": len(tokens.ids),
            "tokens_in_index": int(tokens.lengths.sum()),
            "tokens_in_meta": int(tokens.meta["n_tokens"]),
            "documents_in_index": len(tokens.names),
            "documents_in_raw": len(raw),
            "documents_in_meta": int(tokens.meta["n_documents"]),
        }
    )
    return frame


def _texts_back(settings: Settings, tokens: Tokens, documents: Path) -> Frame:
    frame = Frame((), ("compared", "changed_texts", "wrong_sizes", "spelled_specials"))
    tallies = {name: Tally() for name in frame.columns[1:]}
    detector = _texts.spelled(tokens.specials_by_name)
    n_rows, first, compared = len(tokens.names), 0, 0
    every = max(1, n_rows // settings.round_trip_documents)
    for batch in pq.ParquetFile(documents).iter_batches(batch_size=_BATCH, columns=["id", "origin", "text"]):
        texts, _ = _texts.decodable(batch.column("text").cast(pa.string()))
        spelled = {row: span for row, _, span in _texts.matches(texts, detector)} if detector else {}
        chosen = {*spelled, *range(-first % every, len(batch), every)}
        for row in sorted(row for row in chosen if first + row < n_rows):
            text, place = texts[row].as_py() or "", first + row
            raw = text.encode("utf-8")
            faults = {
                "spelled_specials": row in spelled,
                "changed_texts": tokens.decoded(place) != raw,
                "wrong_sizes": tokens.sizes[place] != len(raw),
            }
            compared += 1
            for name in (name for name, found in faults.items() if found):
                shown = _texts.excerpt(text, spelled.get(row, (0, 0)))
                tallies[name].add(Example(batch.column("id")[row].as_py(), batch.column("origin")[row].as_py(), shown))
        first += len(batch)
    frame.add({"compared": compared, **tallies})
    return frame


def _languages(tokens: Tokens) -> Frame:
    frame = Frame(("language",), ("documents", "text_bytes", "text_tokens", "bytes_per_token"))
    for code in sorted(set(tokens.languages)):
        chosen = np.flatnonzero(np.array(tokens.languages) == code)
        size, count = int(tokens.sizes[chosen].sum()), int((tokens.lengths[chosen] - 1).sum())
        frame.add(
            {
                "language": code,
                "documents": len(chosen),
                "text_bytes": size,
                "text_tokens": count,
                "bytes_per_token": size / count if count > 0 else 0.0,
            }
        )
    return frame


def _compression(settings: Settings, tokens: Tokens) -> Frame:
    frame = Frame((), ("outliers", "outlier_share"))
    rate = tokens.sizes / np.maximum(tokens.lengths - 1, 1)
    tally = Tally()
    odd = (rate < settings.outliers.below) & (tokens.lengths > settings.outliers.min_tokens)
    for row in np.flatnonzero(odd).tolist():
        shown = _texts.excerpt(tokens.decoded(row).decode("utf-8", "replace"))
        tally.add(tokens.document_example(row, f"{rate[row]:.2f} bytes per token: {shown}"))
    frame.add({"outliers": tally, "outlier_share": tally.count / len(rate) if len(rate) else 0.0})
    return frame


def _vocabulary(tokens: Tokens) -> Frame:
    frame = Frame((), ("vocab_size", "unused_ids", "unused_share"))
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
