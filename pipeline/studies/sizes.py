"""Numbers of records and tokens of a user's data: estimated from a survey, or measured after sampling."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline.config.params import Split
from pipeline.config.recipe import Kind
from pipeline.data.conversations import texts
from pipeline.data.records import SPLITS, TEXTS
from pipeline.data.shards import Shard
from pipeline.studies.survey import Survey, total
from pipeline.tokenizer import Tokenizer

_END = 2
"""Tokens that open and end an answer."""
_MARKERS = 4
"""Tokens of a template around each earlier message, at most."""
_BYTES_PER_TOKEN = 3
"""Of a small vocabulary, for estimates before there is one."""
_ADDED: dict[Kind, int] = {"labelled": 1, "instructions": 12}
"""Tokens that the end of the text and a template add at most to a record."""


class Sizes(NamedTuple):
    """Numbers of records and tokens after sampling, or an estimate of them."""

    kind: Kind
    text_tokens: dict[str, int]
    """Split -> tokens of running text."""
    documents: npt.NDArray[np.int64]
    """Tokens of every training document."""
    records: dict[str, int]
    """Split -> records of `kind`."""
    lengths: npt.NDArray[np.int64]
    """Tokens of every record of all splits, prompt, answer and template together; empty for documents."""
    answers: npt.NDArray[np.int64]
    """Tokens of every answer; empty where records have none."""
    turns: bool = False
    """Whether some records have earlier messages."""
    longest: str = "the longest"
    """File and line of the record with the longest answer."""


def estimated(surveyed: Survey, split: Split) -> Sizes:
    """The sizes by a survey, at three bytes a token."""
    texts, records = surveyed.splits("documents", split), surveyed.splits(surveyed.kind, split)
    text_sizes, sizes = surveyed.sizes.get("documents", {}), surveyed.sizes[surveyed.kind]
    return Sizes(
        surveyed.kind,
        {name: total(text_sizes, members) // _BYTES_PER_TOKEN for name, members in texts.items()},
        _tokens(text_sizes[identity] for identity in texts["train"]),
        {name: len(members) for name, members in records.items()},
        _tokens(sizes.values()) + _ADDED[surveyed.kind] if surveyed.kind in _ADDED else _tokens([]),
        _tokens(surveyed.answers.values()) + _END,
        surveyed.turns,
    )


def _tokens(sizes: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.array([size // _BYTES_PER_TOKEN + 1 for size in sizes], dtype=np.int64)


def measured(samples: Path, tokenizer_folder: Path, kind: Kind) -> Sizes:
    """The sizes of data/samples in the tokens of its vocabulary.

    Raises:
        UserError: a file is missing or damaged.
    """
    tokenizer = Tokenizer.load(tokenizer_folder)
    shards = {name: Shard.open(samples / "documents", name) for name in SPLITS}
    counts: dict[str, int] = {name: len(shard) for name, shard in shards.items()}
    lengths, answers, origins, turns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], list[str](), False
    if kind in _ADDED:
        fields = ["text"] if kind == "labelled" else list(TEXTS[kind])
        for name in SPLITS:
            table = pq.ParquetFile(samples / kind / f"{name}.parquet").read(columns=[*fields, "origin"])
            counts[name] = len(table)
            columns = {field: _lengths(tokenizer, table[field].to_pylist()) for field in fields if field != "history"}
            if kind == "instructions":
                histories = table["history"].to_pylist()
                columns["history"] = np.array([_said(tokenizer, history) for history in histories], np.int64)
                answers.append(columns["output"] + _END)
                turns = turns or any(histories)
                origins += table["origin"].to_pylist()
            lengths.append(sum(columns.values(), start=np.zeros(len(table), np.int64)) + _ADDED[kind])
    return Sizes(
        kind,
        {name: len(shard.ids) for name, shard in shards.items()},
        shards["train"].lengths.astype(np.int64),
        counts,
        np.concatenate(lengths),
        np.concatenate(answers),
        turns,
        origins[int(np.concatenate(answers).argmax())] if origins else "",
    )


def _lengths(tokenizer: Tokenizer, texts: list[str]) -> npt.NDArray[np.int64]:
    """Tokens of each text."""
    return np.array([len(ids) for ids in tokenizer.encode_batch(texts)] if texts else [], np.int64)


def _said(tokenizer: Tokenizer, history: str | None) -> int:
    """Tokens of the earlier messages of a record with their markers."""
    return sum(len(tokenizer.encode(text)) + _MARKERS for text in texts(history))
