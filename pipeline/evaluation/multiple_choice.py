"""Multiple choice by likelihood: the share of questions whose right answer is the likeliest continuation.

Prompts and answers are those of lm-evaluation-harness 0.4 for the published files of ARC (Clark et al. 2018), HellaSwag
(Zellers et al. 2019), MMLU (Hendrycks et al. 2021) and TurkishMMLU (Yüksel et al. 2024). Likelihoods are compared
plain, by UTF-8 byte of the answer (the harness's acc_bytes, and for ASCII its acc_norm) and by token; k equally likely
answers count 1/k. A model that answers without reading the question reaches `choice_chance` only on average.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from pipeline.config.section import PinnedSet, Positive, Section, SetName
from pipeline.data.benchmarks import Item, items
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject
from pipeline.inference.choices import credit
from pipeline.inference.likelihood import Scored, subject_nats
from pipeline.outcomes import Outcomes


class ChoiceSet(PinnedSet):
    """A published set of questions."""

    format: Literal["arc", "hellaswag", "mmlu", "turkishmmlu"]
    """Fields of its rows, and prompt: the answers' texts are scored (`arc`, `hellaswag`), or their letters after a
    prompt that lists them (`mmlu`, `turkishmmlu`)."""


class Settings(Section):
    """Sets of questions, and limits."""

    sets: dict[SetName, ChoiceSet] = Field(
        min_length=1,
        examples=[
            {
                "arc": {
                    "path": "inputs/arc.jsonl",
                    "sha256": "b8e1b5fda16cd1ecf81f5b0983335c01676fedbd3e7f9129a06110ef7946af62",
                    "format": "arc",
                    "language": "en",
                }
            },
            {
                "exam": {
                    "path": "inputs/exam.jsonl",
                    "sha256": "08f8e1cbc8c5cb55bfc1670752d8a1ccf846d0b352a102f3ed62cbb590b4fa88",
                    "format": "turkishmmlu",
                    "language": "tr",
                }
            },
        ],
    )
    """Name in the metrics -> set: `{arc: {path: inputs/ARC-Easy.jsonl, sha256: ..., format: arc, language: en}}`."""
    batch_size: Positive = Field(examples=[4])
    """Answers in a batch; those of one question share its reading."""
    max_questions: Positive | None = Field(examples=[None, 1])
    """Measure on the first so many questions of each set; null: all."""


class Question(NamedTuple):
    """A question with its answers."""

    context: str
    choices: list[str]
    """Answers without the space before them."""
    right: int
    """Index of the right answer."""
    category: str


def measure(settings: Settings, subject: Subject) -> Measured:
    """choice_accuracy_<set>, choice_accuracy_by_byte_<set>, choice_accuracy_by_token_<set>, choice_chance_<set> (mean
    of 1/answers) and questions_<set>; details: accuracy by category, contexts that were cut, 20 wrong answers.

    Raises:
        UserError: a changed or damaged file, a row that does not fit its format, or an answer longer than the context.
    """
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    outcomes: list[Outcomes] = []
    for name, chosen in settings.sets.items():
        rows = items(chosen.path, chosen.sha256)[: settings.max_questions]
        if not rows:
            raise UserError(f"{chosen.path}: the file has no rows; expected questions")
        questions = [question_of(item, chosen.format) for item in rows]
        scored = scores(subject, questions, [item.place for item in rows], settings.batch_size)
        credits = [credits_of(question, of_one) for question, of_one in zip(questions, scored, strict=True)]
        shown = [
            {"id": item.place, "language": chosen.language, "category": question.category, "text": question.context}
            for item, question in zip(rows, questions, strict=True)
        ]
        for i, suffix in enumerate(("", "_by_byte", "_by_token")):
            values = [credit[i] for credit in credits]
            metrics[f"choice_accuracy{suffix}_{name}"] = sum(values) / len(values)
            outcomes.append(Outcomes(f"choice_accuracy{suffix}_{name}", shown, values))
        metrics[f"choice_chance_{name}"] = sum(1 / len(question.choices) for question in questions) / len(questions)
        metrics[f"questions_{name}"] = float(len(questions))
        details[name] = _details(questions, scored, credits)
    return Measured(metrics, details, tuple(outcomes))


def scores(
    subject: Subject, questions: Sequence[Question], names: Sequence[str], batch_size: int
) -> list[list[Scored]]:
    """The likelihood of every answer of every question."""
    pairs = [(question.context, f" {choice}") for question in questions for choice in question.choices]
    named = [name for name, question in zip(names, questions, strict=True) for _ in question.choices]
    flat = iter(subject_nats(subject, pairs, batch_size, named))
    return [[next(flat) for _ in question.choices] for question in questions]


def credits_of(question: Question, scored: Sequence[Scored]) -> tuple[float, float, float]:
    """Credit 0 to 1 for the likeliest answer: plain, by byte, by token."""
    sizes = [len(choice.encode()) for choice in question.choices]
    return (
        credit([one.nats for one in scored], [question.right]),
        credit([one.nats / size for one, size in zip(scored, sizes, strict=True)], [question.right]),
        credit([one.nats / one.tokens for one in scored], [question.right]),
    )


def question_of(item: Item, form: str) -> Question:
    """A row as a question. Raises UserError for a row of another format."""
    read: dict[str, Callable[[Item], Question]] = {
        "arc": _arc,
        "hellaswag": _hellaswag,
        "mmlu": lambda item: _letters(item, "ABCD", "Answer:"),
        "turkishmmlu": lambda item: _letters(item, "ABCDE", "Cevap:"),
    }
    question = read[form](item)
    if len(question.choices) < 2 or not all(choice.strip() for choice in question.choices):
        raise item.fault(f"its answers are {question.choices!r:.80}", "two or more texts")
    return question


def _arc(item: Item) -> Question:
    stem, listed = item.value("question"), item.row.get("choices")
    if isinstance(stem, dict):  # AI2's own jsonl: {"question": {"stem": ..., "choices": [{"text", "label"}]}}
        listed, stem = stem.get("choices"), stem.get("stem")
    if isinstance(listed, list) and all(isinstance(one, dict) for one in listed):
        listed = {key: [one.get(key) for one in listed] for key in ("text", "label")}
    if not isinstance(listed, dict) or not isinstance(stem, str):
        raise item.fault("no question with choices", '{"question": ..., "choices": {"text": [...], "label": [...]}}')
    texts, labels, key = listed.get("text"), listed.get("label"), item.text("answerKey")
    if not isinstance(texts, list) or not isinstance(labels, list) or key not in labels:
        raise item.fault(f"answerKey is {key!r} and the labels {labels!r:.60}", "a key that is one of them")
    return Question(f"Question: {stem}\nAnswer:", [str(text) for text in texts], labels.index(key), item.file)


def _hellaswag(item: Item) -> Question:
    """WikiHow's marks are removed, and the second sentence begins with a capital, as in the harness."""
    context = f"{item.text('activity_label')}: {item.text('ctx_a')} {item.text('ctx_b').capitalize()}"
    endings = [_without_marks(ending) for ending in item.texts("endings")]
    right = str(item.value("label"))
    if not right.isdecimal() or int(right) >= len(endings):
        raise item.fault(f"label is {right!r}", f"a number from 0 to {len(endings) - 1}")
    return Question(_without_marks(context), endings, int(right), item.text("activity_label"))


def _without_marks(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _letters(item: Item, letters: str, end: str) -> Question:
    """The answers are listed in the prompt, and their letters scored."""
    texts, right = item.texts("choices"), item.value("answer")
    if len(texts) > len(letters):
        raise item.fault(f"{len(texts)} choices", f"at most {len(letters)}")
    index = right if isinstance(right, int) else letters.find(str(right).strip()) if str(right).strip() else -1
    if not 0 <= index < len(texts):
        raise item.fault(f"answer is {right!r}", f"one of {', '.join(letters[: len(texts)])}, or its number from 0 on")
    subject = str(item.row.get("subject") or item.file)
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=False))
    asked = item.text("question").strip()
    if end == "Cevap:":
        return Question(f"Soru: {asked}\n{listed}\n{end}", list(letters[: len(texts)]), index, subject)
    intro = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    return Question(f"{intro}{asked}\n{listed}\n{end}", list(letters[: len(texts)]), index, subject)


def _details(
    questions: Sequence[Question], scored: Sequence[Sequence[Scored]], credits: Sequence[tuple[float, float, float]]
) -> dict[str, Any]:
    by_category: dict[str, list[float]] = {}
    for question, (plain, _, _) in zip(questions, credits, strict=True):
        by_category.setdefault(question.category, []).append(plain)
    wrong = [i for i, (plain, _, _) in enumerate(credits) if plain < 1]
    return {
        "by_category": {name: sum(values) / len(values) for name, values in sorted(by_category.items())},
        "cut_contexts": sum(any(one.cut for one in of_one) for of_one in scored),
        "wrong": [
            {
                "context": questions[i].context[-300:],
                "right": questions[i].choices[questions[i].right],
                "answer": questions[i].choices[min(range(len(scored[i])), key=lambda j: scored[i][j].nats)],
            }
            for i in wrong[:20]
        ],
    }
