"""Places of records in the data that models are trained on: splits, and windows of packed documents."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline import files
from pipeline.config.recipe import ALL_KINDS, Kind
from pipeline.data.records import SPLITS, record_id
from pipeline.data.tables import batches
from pipeline.tokenizer import Tokenizer

INDEX = "index.parquet"


@dataclass(frozen=True)
class Place:
    """A record in data/samples."""

    kind: Kind
    id: str
    split: str
    first_token: int | None = None
    """Of documents: offset of its first token in the split's ids."""
    tokens: int | None = None
    """Of documents: its tokens, the end-of-text id included."""

    def windows(self, context_length: int) -> range:
        """Numbers of the windows of packed documents that hold a token of it, as an input or as a target."""
        assert self.first_token is not None
        assert self.tokens is not None
        first = max(0, self.first_token - 1) // context_length
        return range(first, (self.first_token + self.tokens - 1) // context_length + 1)


def places(samples: Path, ids: Collection[str]) -> list[Place]:
    """The places of these records in data/samples, split after split; none where there are no samples."""
    found: list[Place] = []
    for kind in ALL_KINDS:
        for split in SPLITS:
            path = samples / kind / f"{split}.parquet"
            if path.exists():
                found += _places_in(path, kind, split, ids)
    return found


def _places_in(path: Path, kind: Kind, split: str, ids: Collection[str]) -> Iterator[Place]:
    packed = "start" in pq.read_schema(path).names
    for batch in batches(path, ["id", *(["start", "length"] if packed else [])]):
        for row in batch.to_pylist():
            if row["id"] in ids:
                yield Place(kind, row["id"], split, row.get("start"), row.get("length"))


def document_ids(folder: Path, split: str, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """(id by the index, id of the text that its tokens spell) of every document of data/samples/documents.

    Both are equal where the tokenizer gives back the text to the letter. The second does not rely on the index, so a
    document that the index names wrongly is still recognised.
    """
    meta = files.read_json(folder / "meta.json")
    dtype = np.dtype(meta["dtype"]).newbyteorder("<")
    path = folder / f"{split}.bin"
    ids = np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)
    for batch in batches(folder / f"{split}.parquet", ["id", "start", "length"]):
        for row in batch.to_pylist():
            tokens = ids[row["start"] : row["start"] + row["length"] - 1].tolist()
            yield row["id"], record_id("documents", tokenizer.decode(tokens))
