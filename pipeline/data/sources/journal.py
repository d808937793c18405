"""A snapshot of the journal of a served model: requests that people allowed to be kept, and how answers were rated.

`tohum journal export inputs/ratings-1.jsonl` writes the snapshot; the live journal is never read, so a run can be
repeated. One request can give several records: the request itself, its ratings, an instruction of each correction, a
preference of each choice between answers, a labelled text of a label. All of them have the hash of the prompt
(`prompt_id`), by which they are split. Thumbs stay ratings.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.recipe import Kind
from pipeline.config.section import Section

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from pipeline.data.ledger import RowLog

_TABLE_ROWS = 1000


class Settings(Section):
    """The snapshot, and the records that are made of it."""

    path: str
    """A file in inputs/, or a pattern such as `inputs/ratings-*.jsonl`; of several lines about one request the last
    one of the last file counts."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """Of the file, checked before use; null: DVC tracks inputs/."""
    requests: Literal["documents", "instructions"] | None
    """Records that the requests themselves become: documents, the words of the person; instructions, with the first
    answer, but not where it was corrected or rated down; null: none."""
    ratings: bool
    """Whether choices, thumbs and corrections become ratings."""
    choices: bool
    """Whether a choice becomes preferences, the chosen answer over each other one."""
    corrections: bool
    """Whether a correction becomes an instruction with the corrected answer, of a classifier a labelled text."""
    labels: bool
    """Whether a label that arrived later becomes a labelled text."""
    language: Annotated[str, Field(pattern="^(auto|[a-z]{2,3})$")]
    """ISO 639-1, und, or auto: guessed for each prompt."""
    split: Literal["train", "validation", "test"] | None
    """Pins every record to a split; null: by the hash of the prompt."""

    @model_validator(mode="after")
    def _changes_are_seen(self) -> "Settings":
        from pipeline.data.sources._inputs import fixed_part, require_inputs

        require_inputs(fixed_part(self.path))
        if not (self.requests or self.ratings or self.choices or self.corrections or self.labels):
            raise ValueError("nothing is made of the snapshot; set requests, ratings, choices, corrections or labels")
        return self


def read(settings: Settings, entry: str, log: "RowLog") -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of the records, request after request; of equal records (ratings: of one rater) the first.

    Raises:
        UserError: no such file, another SHA-256, or no record.
    """
    from pipeline.data.records import IDENTITY, record_id, schema
    from pipeline.data.sources._rated import records
    from pipeline.errors import UserError

    paths = _paths(settings)
    schemas = {kind: schema(kind, names) for kind, names in adds(settings).items()}
    waiting: dict[Kind, list[dict[str, Any]]] = {kind: [] for kind in schemas}
    seen: set[str] = set()
    repeated = 0
    for name, number, line in _last_lines(paths):
        if isinstance(line, str):
            log.reject(next(iter(schemas)), name, number, "not_a_request", line)
            continue
        for kind, record in records(line, settings, f"{name}:{number}", log):
            identity = record_id(kind, *(record[column] for column in IDENTITY[kind]), history=record["history"])
            if identity in seen:
                repeated += 1
                continue
            seen.add(identity)
            waiting[kind].append(record)
            if len(waiting[kind]) == _TABLE_ROWS:
                yield kind, _table(kind, waiting[kind], schemas[kind], log)
                waiting[kind] = []
    for kind, rows in waiting.items():
        if rows:
            yield kind, _table(kind, rows, schemas[kind], log)
    if not seen:
        raise UserError(
            f"{settings.path}: gives no record; it has no request or rating of the sorts that download.sources.{entry} "
            "asks for"
        )
    if repeated:
        log.notes.append(f"{repeated:,} records left out that repeat another one, such as a question asked twice")


def adds(settings: Settings) -> "dict[Kind, tuple[str, ...]]":
    """The kinds of the records and the columns that they have besides."""
    from pipeline.data.records import CONSENT, PROMPT, TIME

    beside = (CONSENT, TIME, PROMPT)
    wanted: list[tuple[Kind, bool, tuple[str, ...]]] = [
        ("documents", settings.requests == "documents", ()),
        ("labelled", settings.labels or settings.corrections, ()),
        ("instructions", settings.requests == "instructions" or settings.corrections, ()),
        ("preferences", settings.choices, ("model_sha256", "logprobs")),
        ("ratings", settings.ratings, ()),
    ]
    return {kind: (*beside, *more) for kind, wants, more in wanted if wants}


def provenance(settings: Settings) -> dict[str, Any]:
    """Address (the path in params.yaml), and SHA-256 of the file or of the sorted (name, SHA-256) list of several."""
    import hashlib

    from pipeline.files import sha256_of

    hashes = {name: sha256_of(path) for name, path in _paths(settings).items()}
    combined = hashlib.sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in hashes.items()).encode()).hexdigest()
    sha256 = next(iter(hashes.values())) if len(hashes) == 1 else combined
    return {"address": settings.path, "sha256": sha256, "revision": None}


def _paths(settings: Settings) -> "dict[str, Path]":
    """The files by name, sorted."""
    import glob
    from pathlib import Path

    from pipeline.data.sources._inputs import require_inputs
    from pipeline.errors import UserError
    from pipeline.files import sha256_of

    paths = {Path(name).name: Path(name) for name in sorted(glob.glob(settings.path, recursive=True))}
    if not paths:
        raise UserError(f"{settings.path}: no such file; `tohum journal export {settings.path}` writes it")
    for path in paths.values():
        require_inputs(path.parent)
        if settings.sha256 is not None and (found := sha256_of(path)) != settings.sha256:
            raise UserError(
                f"{path}: sha256 is {found}; expected {settings.sha256}: restore the file, or write the new"
            )
    return paths


def _last_lines(paths: "dict[str, Path]") -> "Iterator[tuple[str, int, dict[str, Any] | str]]":
    """File, line number and content of the last line of each request, and of lines that are none."""
    from pipeline.data import snapshot

    last: dict[str, tuple[str, int]] = {}
    for name, path in paths.items():
        for number, line in snapshot.read(path):
            if not isinstance(line, str):
                last[line["id"]] = (name, number)
    for name, path in paths.items():
        for number, line in snapshot.read(path):
            if isinstance(line, str) or last[line["id"]] == (name, number):
                yield name, number, line


def _table(kind: Kind, rows: list[dict[str, Any]], whole: "pa.Schema", log: "RowLog") -> "pa.Table":
    import pyarrow as pa

    log.accept(kind, len(rows))
    names = [name for name in whole.names if name not in ("id", "source")]
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows],
                                schema=pa.schema([whole.field(name) for name in names]))  # fmt: skip
