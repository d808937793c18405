"""What token ids must be before they are sampled and learned from.

`profile` reads data/tokens and the texts they came from, in parts; `expectations`
says what must hold: ids within the vocabulary, special tokens only where code placed them, an index that fits
the ids, texts that come back unharmed, and a vocabulary that suits the text.
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
from pipeline.gates._rules import Example, Frame, Rule, Tally, between, equal
from pipeline.gates.profiles import texts as _texts
from pipeline.gates.profiles.tokens import Documents, Tokens


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
        "ids": _ids(tokens, data),
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


def _ids(tokens: Tokens, folder: Path) -> Frame:
    frame = Frame((), ("ids_outside_vocabulary", "specials_inside", "missing_ends"))
    outside, inside, unclosed = Tally(), Tally(), Tally()
    for places, values in tokens.outside_vocabulary():
        if len(places):
            tokens.tally_places(outside, places, [f"id {value}, vocab_size {tokens.vocab_size}" for value in values])
    ends = tokens.ends(folder)
    open_ended = [*ends.outside]
    for after, places, values in tokens.specials():
        allowed, rows = ends.before(after)
        stray = ~((values == tokens.end_of_text) & np.isin(places, allowed))
        if stray.any():
            says = [f"{tokens.name_of(number)} inside the document" for number in values[stray].tolist()]
            tokens.tally_places(inside, places[stray], says)
        closing = places[values == tokens.end_of_text]
        open_ended.append(rows[~np.isin(allowed, closing)])
    open_ended.append(ends.before(1 << 62)[1])  # beyond the file
    rows = np.sort(np.concatenate(open_ended)).tolist()
    tokens.tally(unclosed, rows, lambda row: "does not end with the end-of-text token")
    frame.add({"ids_outside_vocabulary": outside, "specials_inside": inside, "missing_ends": unclosed})
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
    misplaced, other_order, n_tokens = Tally(), Tally(), 0
    for part in tokens.documents():
        expected = n_tokens + np.cumsum(part.lengths) - part.lengths
        wrong = np.flatnonzero((expected != part.starts) | (part.lengths < 1)) + part.first
        tokens.tally(misplaced, wrong.tolist(), _moved(part, expected))
        n_tokens += int(part.lengths.sum())
    first = 0
    for mine, theirs in zip(batches(tokens.index, ["id"]), batches(documents, ["id"]), strict=False):
        n = min(len(mine), len(theirs))
        found, expected_ids = mine["id"][:n], theirs["id"][:n]
        wrong = np.flatnonzero(pc.not_equal(found, expected_ids).to_numpy(zero_copy_only=False)) + first
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


def _moved(part: Documents, expected: np.ndarray) -> Callable[[int], str]:
    return lambda row: f"starts at {part.starts[row - part.first]}, expected {expected[row - part.first]}"


def _replaced(first: int, ids: pa.Array) -> Callable[[int], str]:
    return lambda row: f"stands where {ids[row - first].as_py()} was expected"


def _texts_back(settings: Settings, tokens: Tokens, documents: Path) -> Frame:
    frame = Frame((), ("compared", "changed_texts", "wrong_sizes", "spelled_specials"))
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
            for name in (name for name, found in faults.items() if found):
                shown = _texts.excerpt(text, spelled.get(row, (0, 0)))
                tallies[name].add(Example(batch.column("id")[row].as_py(), batch.column("origin")[row].as_py(), shown))
    frame.add({"compared": compared, **tallies})
    return frame


def _languages(tokens: Tokens) -> Frame:
    frame = Frame(("language",), ("documents", "text_bytes", "text_tokens", "bytes_per_token"))
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


def _compression(settings: Settings, tokens: Tokens) -> Frame:
    frame = Frame((), ("outliers", "outlier_share"))
    tally = Tally()
    for part in tokens.documents():
        rate = part.sizes / np.maximum(part.lengths - 1, 1)
        odd = (rate < settings.outliers.below) & (part.lengths > settings.outliers.min_tokens)
        tokens.tally(tally, (np.flatnonzero(odd) + part.first).tolist(), _compressed(tokens, part, rate))
    share = tally.count / tokens.n_documents if tokens.n_documents else 0.0
    frame.add({"outliers": tally, "outlier_share": share})
    return frame


def _compressed(tokens: Tokens, part: Documents, rate: np.ndarray) -> Callable[[int], str]:
    def says(row: int) -> str:
        at = row - part.first
        text = tokens.decoded(int(part.starts[at]), int(part.lengths[at])).decode("utf-8", "replace")
        return f"{rate[at]:.2f} bytes per token: {_texts.excerpt(text)}"

    return says


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
