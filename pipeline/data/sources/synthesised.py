"""Question-answer pairs about the documents of another source, written by a chat model, with the passage of each.

Documents are cut into passages; the model is asked about each one with a prompt in the passage's language, and answers
with JSON lines. A faulty line is a rejected row with its reason. The passages go to data/raw/passages.parquet, where
the raw gate compares every answer with its passage. Answers are an input like a downloaded file: they are kept in
.tohum/answers and can be pinned by their SHA-256.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from pipeline.config.params import ChatModel
from pipeline.config.recipe import Kind
from pipeline.config.section import Positive, Section

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from pipeline.data.ledger import RowLog
    from pipeline.data.sources._kept_answers import Answer, Refusal
    from pipeline.data.sources._prompts import Templates

_TABLE_ROWS = 64


class Settings(Section):
    """The documents, the passages, the prompt, and the model that is asked."""

    of: str
    """The source, above this one in download.sources, whose documents are asked about."""
    passage_characters: Annotated[int, Field(ge=100)]
    """Longest passage: paragraphs are joined up to this length, and longer ones cut between sentences."""
    passages: Positive | None
    """Number of passages that are asked about, the first ones; null: all."""
    pairs: Positive
    """Questions that a prompt asks for; the model may write fewer."""
    passage_as_input: bool
    """Whether the passage is the record's `input` (answers are read from a text) or is left out (answers are learned by
    heart)."""
    by_document: bool
    """Whether a pair's `group` is its document (or the document's own group): with split.by: group all pairs about a
    document are in one split, and held-out questions are about documents that training has not seen."""
    prompts: str | None
    """A YAML file in inputs/ with templates of your own, language -> template, as in
    pipeline/data/sources/question_prompts.yaml; null: these."""
    ask: ChatModel
    """The model."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """Of all answers in order, as provenance.json states it once they are fetched; other answers are then an error.
    null checks nothing."""

    @model_validator(mode="after")
    def _changes_are_seen(self) -> "Settings":
        from pathlib import Path

        from pipeline.data.sources._inputs import require_inputs

        if self.prompts is not None:
            require_inputs(Path(self.prompts).parent)
        return self


def read(
    settings: Settings, entry: str, log: "RowLog", records: "Callable[[str], Iterator[tuple[Kind, pa.Table]]]"
) -> "Iterator[tuple[Kind, pa.Table]]":
    """Tables of instructions with their passages; what is not kept from before is asked.

    Raises:
        UserError: no document, a faulty template, a model that cannot be asked, no valid pair, or other answers than
            pinned.
    """
    import hashlib

    from pipeline.data.sources import _chat, _prompts
    from pipeline.data.sources._kept_answers import Answer
    from pipeline.errors import UserError
    from pipeline.paths import ANSWERS, PACKAGE

    where = f"download.sources.{entry}"
    own = settings.prompts is None
    path = PACKAGE / "data/sources" / "question_prompts.yaml" if own else _path(settings.prompts)
    templates = _prompts.read(path, "passage", f"{where}.prompts")
    passages = _Passages(settings, records)
    answers = _chat.answers(settings.ask, passages.prompts(templates), ANSWERS, f"{where}.ask")
    digest, models, first_bad = hashlib.sha256(), set(), ""
    batch: list[dict[str, Any]] = []
    kept = 0
    for number, (passage, answer) in enumerate(_beside(passages, answers), 1):
        for line, pair in _rows(answer):
            if not isinstance(pair, dict):
                log.reject("instructions", passage["origin"], line, pair.reason, pair.detail)
                first_bad = first_bad or f"{pair.reason}, {pair.detail}"
                continue
            batch.append(_record(passage, pair, f"{passage['origin']}#{line}", settings))
            kept += 1
        if isinstance(answer, Answer):
            digest.update(answer.text.encode("utf-8", "surrogatepass"))
            models.add(answer.model)
        digest.update(f"\0{number}\n".encode())
        if len(batch) >= _TABLE_ROWS:
            yield "instructions", _table(batch, log)
            batch = []
    if not kept:
        reason = f"every answer was rejected, the first: {first_bad}" if first_bad else "it has no document"
        raise UserError(f"{where}: no question-answer pair about source {settings.of}: {reason}; see {where}.ask")
    sha256 = digest.hexdigest()
    if settings.sha256 not in (None, sha256):
        raise UserError(
            f"{where}: sha256 of the answers is {sha256}; expected {settings.sha256}: restore .tohum/answers "
            f"from where they were fetched, or if other answers are meant, write the new hash to {where}.sha256"
        )
    asked = _chat.as_provenance(settings.ask, templates.sha256, models)
    cut = settings.model_dump(include={"passage_characters", "passages", "pairs", "passage_as_input"})
    if settings.sha256 is None:
        log.notes.append(f"sha256 of the answers is {sha256}; {where}.sha256 pins them")
    log.provenance |= {"sha256": sha256, "details": asked | cut}
    if batch:
        yield "instructions", _table(batch, log)


def adds(settings: Settings) -> "dict[Kind, tuple[str, ...]]":
    """The column `group`, where pairs are grouped by document."""
    from pipeline.data.records import GROUP

    return {"instructions": (GROUP,)} if settings.by_document else {}


def provenance(settings: Settings) -> dict[str, Any]:
    """Address of the model; `read` adds SHA-256 of the answers, models as answered, settings and template's hash."""
    from pipeline.data.sources._chat import stated_address

    return {"address": f"{stated_address(settings.ask)} about {settings.of}", "sha256": None, "revision": None}


class _Passages:
    """The passages of a source's documents, in order; those that were prompted wait for their answers."""

    def __init__(self, settings: Settings, records: "Callable[[str], Iterator[tuple[Kind, pa.Table]]]") -> None:
        self._settings, self._records = settings, records
        self.waiting: deque[dict[str, Any]] = deque()

    def prompts(self, templates: "Templates") -> Iterator[str]:
        """A prompt for each passage."""
        from itertools import islice

        for passage in islice(self._all(), self._settings.passages):
            self.waiting.append(passage)
            yield templates.filled(passage["language"], passage["text"], pairs=self._settings.pairs)

    def _all(self) -> Iterator[dict[str, Any]]:
        from pipeline.data.sources._passages import passages

        for kind, table in self._records(self._settings.of):
            for document in table.to_pylist() if kind == "documents" else ():
                for number, text in enumerate(passages(document["text"], self._settings.passage_characters), 1):
                    origin = f"{document['origin']} passage {number}"
                    group = document.get("group") or document["id"]
                    yield {"language": document["language"], "split": document["split"], "group": group} | {
                        "origin": origin,
                        "text": text,
                    }


def _beside(
    passages: _Passages, answers: "Iterator[Answer | Refusal]"
) -> "Iterator[tuple[dict[str, Any], Answer | Refusal]]":
    for answer in answers:
        yield passages.waiting.popleft(), answer


def _rows(answer: "Answer | Refusal") -> Iterator[tuple[int, Any]]:
    """Line number and pair, or the reason of rejection."""
    from pipeline.data.formats._shape import BadRow
    from pipeline.data.sources._kept_answers import Refusal
    from pipeline.data.sources._passages import pairs

    if isinstance(answer, Refusal):
        return iter([(1, BadRow("refused", answer.detail))])
    return pairs(answer.text, cut=answer.finish == "length")


def _record(passage: dict[str, Any], pair: dict[str, str], origin: str, settings: Settings) -> dict[str, Any]:
    group = passage["group"] if settings.by_document else None
    return {
        "language": passage["language"], "split": passage["split"], "group": group, "origin": origin,
        "instruction": pair["question"],
        "input": passage["text"] if settings.passage_as_input else "", "output": pair["answer"],
        "history": None, "passage": passage["text"],
    }  # fmt: skip


def _table(batch: list[dict[str, Any]], log: "RowLog") -> "pa.Table":
    import pyarrow as pa

    log.accept("instructions", len(batch))
    names = ("language", "split", "group", "origin", "instruction", "input", "output", "history", "passage")
    return pa.Table.from_pylist(batch, schema=pa.schema([(name, pa.string()) for name in names]))


def _path(name: str | None) -> "Path":
    from pathlib import Path

    return Path(str(name))
