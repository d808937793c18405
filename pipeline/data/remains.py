"""Search for what is left of forgotten records: in data/raw, data/tokens, data/samples, and in copies of them.

Files are read by their content, not by what a ledger says: every parquet file with a column of record ids (`id`, `of`,
`record`, `twin_of`), of any version that a cache still holds, and every document's tokens, decoded and hashed again.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data.records import SPLITS, TWIN
from pipeline.data.standing import document_ids
from pipeline.data.tables import batches
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer

_COLUMNS = ("id", "of", "record", TWIN)
_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Remain:
    """A file that still holds a forgotten record, or names one."""

    path: str
    column: str
    """Column of the file; `tokens` for ids that spell a document."""
    ids: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        shown = ", ".join(self.ids[:3]) + (f" and {len(self.ids) - 3} more" if len(self.ids) > 3 else "")
        return f"{self.path}: {self.column} of {shown}"


def in_tables(paths: Collection[Path], ids: Collection[str]) -> Iterator[Remain]:
    """The parquet files among these paths that name one of the records."""
    wanted = pa.array(sorted(ids), pa.string())
    for path in paths:
        if not is_parquet(path):
            continue
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowInvalid):
            continue  # a damaged object of a cache: `tohum fsck` names it
        for column in _COLUMNS:
            if column in schema.names and schema.field(column).type in (pa.string(), pa.large_string()):
                found: dict[str, None] = {}
                for batch in batches(path, [column]):
                    values = batch.column(column).cast(pa.string())
                    hits = values.filter(pc.is_in(values, wanted))
                    found |= dict.fromkeys(hits.to_pylist())
                if found:
                    yield Remain(path.as_posix(), column, tuple(found))


def in_documents(samples: Path, ids: Collection[str], tokenizer: Tokenizer) -> Iterator[Remain]:
    """The splits of data/samples/documents whose tokens spell one of the records.

    Raises:
        UserError: the samples are not there, or are damaged.
    """
    folder = samples / "documents"
    for split in SPLITS:
        path = folder / f"{split}.bin"
        if not path.exists():
            raise UserError(f"{path}: no such file; run `dvc repro sample`, then check again")
        found = [spelled for _, spelled in document_ids(folder, split, tokenizer) if spelled in ids]
        if found:
            yield Remain(path.as_posix(), "tokens", tuple(found))


def is_parquet(path: Path) -> bool:
    """Whether a file begins as a parquet file, whatever its name is."""
    try:
        with path.open("rb") as file:
            return file.read(4) == _MAGIC
    except OSError:
        return False
