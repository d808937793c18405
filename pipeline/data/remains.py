"""Search for what is left of forgotten records: in data/raw, data/tokens, data/samples, in reports, and in copies.

Files are read by their content, not by what a ledger says: every parquet file with a column of record ids (`id`, `of`,
`record`, `twin_of`), of any version that a cache still holds; every document's tokens, decoded and hashed again; and
JSON and HTML files, for ids and for strings that are a listed text. The list has hashes only, so a part of a text, a
text of one word, one with masked personal data and a listed question without its answer are not recognised in them.
"""

import html
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data.erasure import form_of
from pipeline.data.forgotten import Forgotten
from pipeline.data.records import SPLITS, TWIN, record_id
from pipeline.data.standing import document_ids
from pipeline.data.tables import batches
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer

_COLUMNS = ("id", "of", "record", TWIN)
_MAGIC = b"PAR1"
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
_SEGMENT = re.compile(r">([^<>]+)<")


@dataclass(frozen=True)
class Remain:
    """A file that still holds a forgotten record, or names one."""

    path: str
    column: str
    """Column of the file; `tokens` for ids that spell a document, `text` for words or ids in a JSON or HTML file."""
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


def in_texts(paths: Collection[Path], listed: Forgotten) -> Iterator[Remain]:
    """The JSON and HTML files among these paths that name one of the records, or have its text as one of their strings;
    of a text known by its normal form only, that hash is named.
    """
    for path in paths:
        if not is_text(path):
            continue
        content = path.read_text(encoding="utf-8", errors="replace")
        found = dict.fromkeys(name for name in _ID.findall(content) if name in listed.ids)
        for text in _strings(content):
            if len(text.split()) > 1:
                found |= dict.fromkeys(_names(text, listed))
        if found:
            yield Remain(path.as_posix(), "text", tuple(found))


def _strings(content: str) -> Iterator[str]:
    """The strings of a JSON file, or the texts between the tags of an HTML file."""
    try:
        waiting = [json.loads(content)]
    except ValueError:
        yield from map(html.unescape, _SEGMENT.findall(content))
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            waiting += value.values() if isinstance(value, dict) else value


def _names(text: str, listed: Forgotten) -> Iterator[str]:
    """Id or normal form of a listed record with this text; how I is folded depends on its language: both are tried."""
    if (identity := record_id("documents", text)) in listed.ids:
        yield identity
    elif listed.forms:
        forms = {form_of({"text": text, "language": language}, "documents") for language in ("en", "tr")}
        yield from (f"~{form}" for form in sorted(forms & listed.forms))


def is_text(path: Path) -> bool:
    """Whether a file begins as JSON or HTML, whatever its name is."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] in (b"{", b"[", b"<")
    except OSError:
        return False


def is_parquet(path: Path) -> bool:
    """Whether a file begins as a parquet file, whatever its name is."""
    try:
        with path.open("rb") as file:
            return file.read(4) == _MAGIC
    except OSError:
        return False
