"""Facts: closed-book questions answered right, answered wrong or left open, and answers invented where nobody knows.

A greedy answer is right if it equals the expected one (as in `exact_match`), an abstention if it begins with one of the
settings' abstentions, wrong otherwise. Questions about people that no text mentions (`unknown`) have no right answer
but abstention; abstention from a question that the texts answer is its price (`facts_abstained_error`). Answers ordered
by their likelihood give the risk-coverage curve (Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural
Networks", section 2). Open-book answers read the passages of the training documents that are nearest to the question by
BM25 (pipeline/inference/passages.py). Conversations are asked turn by turn, each after the right answers to the earlier
questions.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data import conversations
from pipeline.data.language import exact_match, normal
from pipeline.data.personal import mask
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, greedy_answers, records
from pipeline.inference.likelihood import Ids, ids_nats
from pipeline.inference.passages import Index, passages_of
from pipeline.model.device import autocast
from pipeline.outcomes import Outcomes
from pipeline.tasks import IGNORED, Answering, Reason, Request

_CURVE = 20  # points of the risk-coverage curve in details


class OpenBook(Section):
    """Passages that the model reads before it answers."""

    passages: Positive
    """Nearest passages, joined as the input of the question; a passage is two neighbouring sentences."""


class Settings(Section):
    """Questions, abstentions, open book and limits."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the instructions to measure on."""
    column: str = Field(examples=["instruction"])
    """Column that tells answerable from unanswerable questions: `origin` in the embedded world."""
    known: str = Field(min_length=1, examples=["^q"])
    """Regular expression found in the column of a question that the texts answer; questions with an input are left
    out."""
    unknown: str | None = Field(examples=[None, "^q1"])
    """Regular expression of questions whose right answer is an abstention; null: none."""
    contradicted: str | None = Field(examples=[None, "^q0"])
    """Regular expression of questions whose answer some documents contradict (factual drift); null: none."""
    abstentions: list[str] = Field(min_length=1, examples=[["I do not know", "Bilmiyorum"]])
    """Beginnings of an abstention, in all languages."""
    open_book: OpenBook | None = Field(examples=[None, {"passages": 1}])
    """null: closed-book only."""
    batch_size: Positive = Field(examples=[4])
    """Prompts in a batch."""
    max_tokens: Positive = Field(examples=[4])
    """Longest answer in tokens."""
    max_records: Positive | None = Field(examples=[None])
    """Measure on the first so many questions of each kind; null: all."""


class Asked(NamedTuple):
    """The answer to one question."""

    row: dict[str, Any]
    answer: str
    right: bool
    abstained: bool
    answerable: bool

    @property
    def error(self) -> bool:
        """An answer that is wrong or invented."""
        return not self.right and not self.abstained


def measure(settings: Settings, subject: Subject) -> Measured:
    """facts_right, facts_wrong_error and facts_abstained_error (they sum to 1), facts_probability (of the expected
    answer), facts_questions; facts_risk_error (mean risk over coverages); with unknown questions invented_error and
    unknown_questions; with contradicted ones contradicted_wrong_error, contradicted_probability (of the expected
    answer) and contradicted_questions; with open_book open_book_right; by turn of a conversation facts_right_turn_1 and
    so on; details: the risk-coverage curve and wrong answers.

    Raises:
        UserError: a model that does not answer instructions, an invalid expression, or no question.
    """
    task = subject.answering("facts")
    rows = records(subject, "instructions", settings.split)
    known, unknown, contradicted = (_chosen(settings, rows, name) for name in ("known", "unknown", "contradicted"))
    asked = _ask(settings, subject, task, known, True)
    metrics: dict[str, float] = {
        "facts_right": _share(one.right for one in asked),
        "facts_wrong_error": _share(one.error for one in asked),
        "facts_abstained_error": _share(one.abstained for one in asked),
        "facts_probability": float(np.exp(-_nats(subject, task, known, settings.batch_size)).mean()),
        "facts_questions": float(len(asked)),
    }
    outcomes = [Outcomes("facts_right", known, [float(one.right) for one in asked])]
    if unknown:
        invented = _ask(settings, subject, task, unknown, False)
        metrics |= {"invented_error": _share(one.error for one in invented), "unknown_questions": float(len(unknown))}
        outcomes.append(Outcomes("invented_error", unknown, [float(one.error) for one in invented]))
        asked = [*asked, *invented]
    if contradicted:
        drifted = _ask(settings, subject, task, contradicted, True)
        metrics |= {
            "contradicted_wrong_error": _share(one.error for one in drifted),
            "contradicted_probability": float(np.exp(-_nats(subject, task, contradicted, settings.batch_size)).mean()),
            "contradicted_questions": float(len(contradicted)),
        }
        outcomes.append(Outcomes("contradicted_wrong_error", contradicted, [float(one.error) for one in drifted]))
    answered = [{**one.row, "output": one.answer} for one in asked]
    risks = _risks(asked, _nats(subject, task, answered, settings.batch_size))
    metrics["facts_risk_error"] = float(risks.mean()) if len(risks) else 0.0
    details: dict[str, Any] = {"risk_coverage": _curve(risks, len(asked)), "wrong": _wrong(asked)}
    if settings.open_book:
        passages = _passages(subject, known, settings.open_book.passages)
        read = [{**row, "input": text} for row, text in zip(known, passages, strict=True)]
        opened = _ask(settings, subject, task, read, True)
        metrics["open_book_right"] = _share(one.right for one in opened)
        outcomes.append(Outcomes("open_book_right", known, [float(one.right) for one in opened]))
    metrics |= _by_turn(settings, subject, task, rows)
    return Measured(metrics, details, tuple(outcomes))


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _chosen(settings: Settings, rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The closed-book questions whose column matches an expression of the settings; none where it is null."""
    expression = getattr(settings, name)
    if expression is None:
        return []
    if rows and settings.column not in rows[0]:
        raise UserError(f"facts.column is {settings.column!r}; the instructions have {', '.join(rows[0])}")
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(f"facts.{name} is {expression!r}: {error}; expected a regular expression") from None
    chosen = [
        row
        for row in rows
        if not row["input"] and not row.get("history") and pattern.search(row[settings.column] or "")
    ]
    if not chosen:
        raise UserError(
            f"facts.{name} is {expression!r} and found in column {settings.column!r} of no question without input in "
            f"the split {settings.split}; correct it, or give the split such questions"
        )
    return chosen[: settings.max_records]


def _ask(
    settings: Settings, subject: Subject, task: Answering, rows: list[dict[str, Any]], answerable: bool
) -> list[Asked]:
    """Greedy answers; an unanswerable question is answered right by an abstention."""
    asked = []
    for row, answer in zip(
        rows, greedy_answers(subject, task, rows, settings.batch_size, settings.max_tokens), strict=True
    ):
        language = row["language"]
        abstained = normal(answer, language).startswith(tuple(normal(text, language) for text in settings.abstentions))
        right = answerable and exact_match(answer, row["output"], language)
        asked.append(Asked(row, answer, right, abstained, answerable))
    return asked


def _nats(subject: Subject, task: Answering, rows: list[dict[str, Any]], batch_size: int) -> np.ndarray:
    """-ln p(output | question) of each record, [rows]; infinite for an answer that is too long for the task."""
    texts: list[Ids] = []
    fits = np.zeros(len(rows), bool)
    for i, row in enumerate(rows):
        example = task.example(row)
        if isinstance(example, Reason):
            continue
        ids, targets = example
        first = max((at for at, target in enumerate(targets) if target == IGNORED), default=0) + 1
        texts.append(Ids(ids[:first], ids[first:]))
        fits[i] = True
    names = [row["instruction"] for row, ok in zip(rows, fits, strict=True) if ok]
    nats = np.full(len(rows), np.inf)
    scored = ids_nats(subject.model, texts, batch_size, precision=autocast(subject.compute), names=names)
    nats[fits] = [one.nats for one in scored]
    return nats


def _risks(asked: list[Asked], nats: np.ndarray) -> np.ndarray:
    """Share of errors among the k answers with the highest likelihood, for every k; abstentions are no answers."""
    order = [i for i in np.argsort(nats, kind="stable") if not asked[i].abstained]
    errors = np.array([asked[i].error for i in order], float)
    return np.cumsum(errors) / np.arange(1, len(errors) + 1)


def _curve(risks: np.ndarray, questions: int) -> list[dict[str, float]]:
    """Points of the risk-coverage curve; coverage is the share of all questions that are answered."""
    at = sorted({max(1, round(len(risks) * point / _CURVE)) for point in range(1, _CURVE + 1)}) if len(risks) else []
    return [{"coverage": round(k / questions, 4), "risk": round(float(risks[k - 1]), 4)} for k in at]


def _wrong(asked: list[Asked]) -> list[dict[str, str]]:
    """Up to 20 wrong and 20 invented answers."""
    shown = []
    for answerable in (True, False):
        chosen = [one for one in asked if one.error and one.answerable is answerable][:20]
        shown += [
            {
                "question": mask(one.row["instruction"])[:300],
                "expected": mask(one.row["output"])[:300],
                "answer": mask(one.answer)[:300],
            }
            for one in chosen
        ]
    return shown


def _passages(subject: Subject, questions: list[dict[str, Any]], count: int) -> list[str]:
    """The nearest passages of the training documents to each question, joined; empty where none shares a word."""
    shard = Shard.open(subject.samples / "documents", "train")
    languages = shard.index()["language"].to_pylist()
    texts = (subject.tokenizer.decode(shard.document(row)[:-1].tolist()) for row in range(len(shard)))
    index = Index(
        passage for text, language in zip(texts, languages, strict=True) for passage in passages_of(text, language)
    )
    return [" ".join(index.nearest(row["instruction"], row["language"], count)) for row in questions]


def _by_turn(settings: Settings, subject: Subject, task: Answering, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Share of right answers by turn over the records with earlier turns; empty without any."""
    talks = [row for row in rows if row.get("history")][: settings.max_records]
    turns: dict[int, list[bool]] = {}
    asked: list[tuple[int, dict[str, Any]]] = []
    for row in talks:
        request = Request.of_record(row)
        said = [(turn.question, turn.answer) for turn in request.earlier.turns]
        for place, (question, answer) in enumerate([*said, (row["instruction"], row["output"])]):
            history = conversations.of_turns(request.earlier.turns[:place]) if place else None
            asked.append(
                (place + 1, {**row, "instruction": question, "output": answer, "history": history, "input": ""})
            )
    answers = _ask(settings, subject, task, [row for _, row in asked], True)
    for (place, _), one in zip(asked, answers, strict=True):
        turns.setdefault(place, []).append(one.right)
    return {f"facts_right_turn_{place}": _share(right) for place, right in sorted(turns.items())}
