"""Tokenization of documents into data/tokens: vocabulary, a flat file of token ids, and an index of documents.

    data/tokens/ids.bin         every document's ids and the end-of-text id, in the order of
                                documents.parquet; little-endian uint16, uint32 for more than 65,536 ids
    data/tokens/index.parquet   id, source, language, split (resolved), start, length (ids, end-of-text
                                included), bytes (UTF-8 bytes of the text), bits, and the columns that
                                sources add to documents (pipeline.data.records)
    data/tokens/meta.json       dtype, vocab_size, n_documents, n_tokens, end_of_text; refuses and n_rejected where
                                the vocabulary cannot encode every text; n_unknown_tokens where it has a token of
                                unknown text
    data/tokens/tokenizer/      see pipeline.tokenizer
    data/tokens/rejections.parquet  documents that the vocabulary cannot encode, if there are any
    data/tokens/manifest.json   see pipeline.integrity

Two streamed passes, one that trains on the training split and one that encodes all documents, in bounded memory.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import files, integrity, tokenizer
from pipeline.config.params import Split, Tokenize
from pipeline.data.records import added_columns
from pipeline.data.split import Splits
from pipeline.data.tables import batches
from pipeline.data.unencodable import Rejection, encode_documents, write_rejections
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.adopted import pin
from pipeline.tokenizer.encoders import Ids
from pipeline.tokenizer.utf8 import Utf8

INDEX = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("bytes", pa.int32(), nullable=False),
        pa.field("bits", pa.float64()),
    ]
)
_COPIED = ("id", "source", "language", "bits")
_ROWS = 512  # documents read, encoded and written at a time
_GROUP = 1 << 14  # rows of one row group of the index
# Per method: keys that it needs in params.yaml, and further keys that it accepts.
_NEEDS = {
    "train": ("vocab_size", "pattern"),
    "ranks": ("pattern", "path"),
    "folder": ("path",),
    "extend": ("vocab_size", "path"),
}
_MAY = {"train": (), "characters": ()}
_LEARNED = ("train", "characters", "extend")
"""Methods that learn from the documents."""


def tokenize(settings: Tokenize, split: Split, documents: Path, out: Path, progress: bool = False) -> dict[str, Any]:
    """Makes the vocabulary, encodes every document, and replaces the folder `out`.

    Args:
        settings: the `tokenize` section.
        split: the `split` section; documents of the training split train the vocabulary.
        documents: a parquet file in the schema of pipeline.data.records.
        out: the folder data/tokens.
        progress: shows a bar on standard error.

    Returns:
        meta.json's content with `bytes_per_token`, `tokens_per_word` (by language; words between ASCII
        white space, end-of-text not counted) and `rejected` (documents that cannot be encoded, by reason).

    Raises:
        UserError: no documents, none to train on, settings that do not fit the method, an unreadable vocabulary.
    """
    _require_fitting(settings)
    n_documents = _count(documents, settings.method)
    with files.replace_folder(out) as folder:
        vocabulary = _vocabulary(settings, documents, split, folder)
        vocabulary.save(folder / "tokenizer")
        summary = _encode_all(vocabulary, documents, n_documents, split, folder, progress)
        integrity.write_manifest(folder)
    return summary


def describe(summary: dict[str, Any], settings: Tokenize) -> str:
    """The result of `tokenize` as text for a terminal."""
    asked = settings.vocab_size or 0
    fewer = f" ({asked:,} asked; the text has no more pairs)" if asked > summary["vocab_size"] else ""
    words = ", ".join(f"{language} {n:.2f}" for language, n in summary["tokens_per_word"].items())
    lines = []
    if "n_unknown_tokens" in summary:
        share = summary["n_unknown_tokens"] / max(summary["n_tokens"], 1)
        lines.append(f"\n  unknown tokens: {summary['n_unknown_tokens']:,}, a share of {share:.4f}")
    if summary["rejected"]:
        n, reasons = sum(summary["rejected"].values()), _listed(summary["rejected"])
        lines.append(f"\n  rejected documents: {n:,} ({reasons}); data/tokens/rejections.parquet")
    return (
        f"tokenize: {summary['n_documents']:,} documents, {summary['n_tokens']:,} tokens, "
        f"vocabulary {summary['vocab_size']:,}{fewer}\n"
        f"  bytes per token {summary['bytes_per_token']:.2f}; tokens per word: {words}" + "".join(lines)
    )


def _require_fitting(settings: Tokenize) -> None:
    method = settings.method
    needs = _NEEDS.get(method, ())
    may = {*needs, *_MAY.get(method, ("path", "sha256"))}
    for key in ("vocab_size", "pattern", "path", "sha256"):
        value = getattr(settings, key)
        if value is None and key in needs:
            raise UserError(f"params.yaml: tokenize.{key} is null; method {method} needs it")
        if value is not None and key not in may:
            raise UserError(f"params.yaml: tokenize.{key} is {value!r}; with method {method} it is null")


def _count(documents: Path, method: str) -> int:
    """The number of documents; an adopted vocabulary needs none (open weights that are fine-tuned at once)."""
    try:
        rows = int(pq.read_metadata(documents).num_rows)
    except FileNotFoundError:
        raise UserError(f"{documents}: no such file; run the stage before: dvc repro download") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{documents}: not readable as parquet ({error}); run: dvc repro download") from None
    if rows == 0 and method in _LEARNED:
        raise UserError(
            f"{documents}: 0 documents, and tokenize.method {method} learns its vocabulary from them; add a source of "
            "documents to params.yaml: download.sources (rejected rows are in data/raw/rejections.parquet)"
        )
    return rows


def _vocabulary(settings: Tokenize, source: Path, split: Split, scratch: Path) -> Tokenizer:
    path = Path(settings.path) if settings.path else None
    match settings.method:
        case "train":
            assert settings.vocab_size is not None
            assert settings.pattern is not None
            return tokenizer.train(_training_texts(source, split), settings.vocab_size, settings.pattern, scratch)
        case "characters":
            return tokenizer.characters(_alphabet(source))
        case "ranks":
            assert path is not None
            assert settings.pattern is not None
            return _pinned(settings, path, tokenizer.from_ranks(path, settings.pattern, settings.sha256))
        case "folder":
            assert path is not None
            return _pinned(settings, path, tokenizer.adopt(path, settings.sha256))
        case "extend":
            assert path is not None
            assert settings.vocab_size is not None
            _pinned(settings, path, tokenizer.adopt(path, settings.sha256))
            texts = _training_texts(source, split)
            return tokenizer.extend(path, settings.sha256, settings.vocab_size, texts)
        case name:
            return tokenizer.preset(name, path, settings.sha256, add_specials=True)


def _pinned(settings: Tokenize, path: Path, vocabulary: Tokenizer) -> Tokenizer:
    """The vocabulary itself. Raises UserError where params.yaml has no hash of it: DVC would not notice a change."""
    if settings.sha256 is None:
        raise UserError(
            f"params.yaml: tokenize.sha256 is null; DVC does not watch {path}, so a vocabulary of your own is pinned; "
            f"if you trust it, write {pin(path)}"
        )
    return vocabulary


def _training_texts(source: Path, split: Split) -> Iterator[str]:
    splits = Splits.of(source, split)
    for batch in batches(source, [*splits.columns, "text"], _ROWS):
        chosen = pc.equal(splits.column(batch), "train")
        yield from batch["text"].filter(chosen).to_pylist()


def _alphabet(source: Path) -> set[str]:
    """The set of characters of all documents, as in nanoGPT: held-out documents too, so all their letters have ids."""
    letters: set[str] = set()
    for batch in batches(source, ["text"], _ROWS):
        for text in batch["text"].to_pylist():
            letters.update(text)
    return letters


def _encode_all(  # noqa: PLR0913 - the inputs of one pass over the documents
    vocabulary: Tokenizer, source: Path, n_documents: int, split: Split, folder: Path, progress: bool
) -> dict[str, Any]:
    dtype = np.dtype("<u2" if vocabulary.vocab_size <= 1 << 16 else "<u4")
    words: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    splits, schema = Splits.of(source, split), _schema(source)
    copied = [name for name in schema.names if name not in INDEX.names or name in _COPIED]
    rejected: list[tuple[int, str, Rejection]] = []
    start = n_bytes = rows = unknown = 0
    with (
        (folder / "ids.bin").open("wb") as ids,
        pq.ParquetWriter(folder / "index.parquet", schema, compression="zstd") as writer,
    ):
        waiting: list[pa.RecordBatch] = []
        for batch in _shown(source, list(dict.fromkeys([*copied, *splits.columns, "text"])), n_documents, progress):
            texts = Utf8.column(batch["text"].cast(pa.string()))
            encoded, rejections = encode_documents(vocabulary, texts)
            rejected += [(rows, batch["id"][rejection.row].as_py(), rejection) for rejection in rejections]
            rows += len(encoded)
            if vocabulary.unknown is not None:
                unknown += sum(int(np.count_nonzero(ids == vocabulary.unknown)) for ids in encoded)
            lengths = np.array([len(text_ids) + 1 for text_ids in encoded], dtype=np.int64)
            _joined(encoded, lengths, vocabulary.end_of_text, dtype).tofile(ids)
            for language, first, last in _runs(batch["language"].to_pylist()):
                words[language] += texts.words(first, last)
                tokens[language] += int(lengths[first:last].sum()) - (last - first)
            columns = {name: batch[name] for name in copied} | {"split": splits.column(batch)}
            waiting.append(_index(batch, columns, start, lengths, schema))
            start += int(lengths.sum())
            n_bytes += pc.sum(waiting[-1]["bytes"]).as_py()
            if sum(map(len, waiting)) >= _GROUP:
                _flush(writer, waiting)
        _flush(writer, waiting)
    meta = {
        "dtype": "uint16" if dtype.itemsize == 2 else "uint32",
        "vocab_size": vocabulary.vocab_size,
        "n_documents": n_documents,
        "n_tokens": start,
        "end_of_text": vocabulary.end_of_text,
    }
    reasons = write_rejections(folder, rejected)
    if vocabulary.refuses:
        meta |= {"refuses": True, "n_rejected": len(rejected)}
    if vocabulary.unknown is not None:
        meta["n_unknown_tokens"] = unknown
    files.write_json(folder / "meta.json", meta)
    if n_documents and len(rejected) == n_documents:
        raise UserError(
            f"{source}: none of its {n_documents} documents can be encoded ({_listed(reasons)}); choose another "
            "vocabulary under tokenize in params.yaml"
        )
    fertility = {key: tokens[key] / words[key] for key in sorted(words) if words[key]}
    measured = {"bytes_per_token": n_bytes / max(sum(tokens.values()), 1), "tokens_per_word": fertility}
    return {**meta, **measured, "rejected": reasons}


def _listed(reasons: dict[str, int]) -> str:
    """The most frequent reasons with their numbers of documents."""
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason}: {n:,}" for reason, n in most[:3]) + (", ..." if len(most) > 3 else "")


def _joined(encoded: list[Ids], lengths: np.ndarray, end_of_text: int, dtype: np.dtype) -> np.ndarray:
    """The ids of all texts, each followed by end-of-text, shape (sum of lengths)."""
    joined = np.empty(int(lengths.sum()), dtype)
    ends = np.cumsum(lengths)
    joined[ends - 1] = end_of_text
    for ids, end in zip(encoded, ends.tolist(), strict=True):
        joined[end - 1 - len(ids) : end - 1] = ids
    return joined


def _runs(languages: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Runs of texts in one language: language, first text, text after the last."""
    last = 0
    for language, group in groupby(languages):
        first, last = last, last + sum(1 for _ in group)
        yield language, first, last


def _schema(source: Path) -> pa.Schema:
    """The schema of the index, with the columns that sources add to documents."""
    columns = pq.read_schema(source)
    return pa.schema([*INDEX, *(columns.field(name) for name in added_columns("documents", columns.names))])


def _shown(source: Path, columns: list[str], n_documents: int, progress: bool) -> Iterator[pa.RecordBatch]:
    from tqdm import tqdm

    with tqdm(total=n_documents, desc="tokenize", unit="doc", disable=not progress) as bar:
        for batch in batches(source, columns, _ROWS):
            yield batch
            bar.update(len(batch))


def _index(
    batch: pa.RecordBatch, columns: dict[str, pa.Array], start: int, lengths: np.ndarray, schema: pa.Schema
) -> pa.RecordBatch:
    """Rows of the index: `columns` as they are, and the extents of the texts from position `start` on."""
    columns["start"] = pa.array(start + np.cumsum(lengths) - lengths)
    columns["length"] = pa.array(lengths.astype(np.int32))
    columns["bytes"] = pc.binary_length(batch["text"]).cast(pa.int32())
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _flush(writer: pq.ParquetWriter, waiting: list[pa.RecordBatch]) -> None:
    if waiting:
        writer.write_table(pa.Table.from_batches(waiting), row_group_size=_GROUP)
        waiting.clear()
