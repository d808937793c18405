"""Closed-book questions: facts that a model must remember, asked without a text that holds them (Roberts et al. 2020).

Records of instructions without an input. The answer is picked by likelihood among candidates, the right one and wrong
ones of the same language drawn from other records, and beside it the greedy answer is compared with the right one. A
model with an answering task is asked in its template; a language model after `Question:` and `Answer:` (`Soru:`,
`Cevap:`). Examples before the question are training records.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data import language
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, answers_to_show, greedy_answers, records, slices
from pipeline.inference.choices import credit
from pipeline.inference.generation import generate
from pipeline.inference.likelihood import Ids, Scored, beginning, ids_nats
from pipeline.inference.shots import examples, prompted
from pipeline.model.device import autocast, lowered
from pipeline.outcomes import Outcomes
from pipeline.prompts import templates
from pipeline.seeds import seed_for
from pipeline.tasks import Answering

_WORDS = {"tr": ("Soru", "Cevap")}
"""Language -> words before a question and its answer; else English ones."""


class Settings(Section):
    """Split, source, candidates, examples and limits."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the instructions to measure on."""
    source: str | None = Field(examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    candidates: int = Field(ge=2, examples=[4])
    """Answers to pick from, the right one included; fewer where the records have no more."""
    alike: str | None = Field(examples=[None])
    """Added column by which wrong answers are like the right one (such as the kind of fact); null: any answer."""
    shots: Literal[0, 1, 4, 8] = Field(examples=[0, 1])
    """Training records before each question."""
    batch_size: Positive = Field(examples=[4])
    """Candidates, and prompts, in a batch."""
    max_tokens: Positive = Field(examples=[4])
    """Longest greedy answer in tokens."""
    max_records: Positive | None = Field(examples=[None])
    """Measure on the first so many records; null: all."""
    seed: int = Field(examples=[1])
    """Seed of the wrong answers."""


class _Asked(NamedTuple):
    """Questions as ids, and the model's greedy answers."""

    prompts: list[list[int]]
    answer_ids: Callable[[str], list[int]]
    """The ids of an answer after a prompt."""
    greedy: list[str]
    cut: int
    """Prompts that were too long."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """closed_book_accuracy (picked among the candidates), closed_book_chance (mean of 1/candidates), closed_book_exact
    (greedy answers) and closed_book_questions; details: prompts that were cut, answers.

    Raises:
        UserError: no record without an input, or no wrong answer to pick from.
    """
    known = records(subject, "instructions", settings.split, settings.source)
    rows = [row for row in known if not row["input"]][: settings.max_records]
    if not rows:
        raise UserError(f"none of the {len(known)} {settings.split} instructions is without an input; add such records")
    training = [row for row in records(subject, "instructions", "train") if not row["input"]]
    choices = [candidates(row, [*training, *rows], settings) for row in rows]
    asked = _asked(settings, subject, rows, training)
    scored = _scores(settings, subject, rows, choices, asked)
    picked = [credit([one.nats for one in of_one], [0]) for of_one in scored]
    right = [language.exact_match(t, row["output"], row["language"]) for t, row in zip(asked.greedy, rows, strict=True)]
    metrics = {
        "closed_book_accuracy": sum(picked) / len(rows),
        "closed_book_chance": sum(1 / len(of_one) for of_one in choices) / len(rows),
        "closed_book_exact": sum(right) / len(rows),
        "closed_book_questions": float(len(rows)),
    }
    details = {
        "shots": settings.shots,
        "cut_prompts": asked.cut + sum(any(one.cut for one in of_one) for of_one in scored),
        "answers": answers_to_show(rows, asked.greedy, right, right),
    }
    outcomes = Outcomes("closed_book_accuracy", rows, picked), Outcomes("closed_book_exact", rows, right)
    return Measured(metrics, details, outcomes)


def candidates(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], settings: Settings) -> list[str]:
    """The right answer, and wrong ones of its language drawn from other records by the seed and the question.

    Raises:
        UserError: no record has another answer.
    """
    code = row["language"]
    alike = [one for one in others if one["language"] == code]
    if settings.alike is not None:
        alike = [one for one in alike if one.get(settings.alike) == row.get(settings.alike)]
    wrong = sorted({one["output"] for one in alike if not language.exact_match(one["output"], row["output"], code)})
    if not wrong:
        raise UserError(
            f"record {row['id']}: no other {code} record without an input has an answer unlike {row['output']!r:.60}; "
            "add records, or set alike to null"
        )
    draw = random.Random(seed_for(settings.seed, "candidates", row["id"]))
    return [row["output"], *draw.sample(wrong, min(settings.candidates - 1, len(wrong)))]


def _asked(
    settings: Settings, subject: Subject, rows: Sequence[Mapping[str, Any]], training: Sequence[Mapping[str, Any]]
) -> _Asked:
    """The questions as the model's task asks them, or in plain words for a language model."""
    tokenizer, room = subject.tokenizer, subject.model.room() - settings.max_tokens
    task = next((task for task in subject.tasks if isinstance(task, Answering)), None)
    if task is not None:
        template = task.spec.template
        assert template is not None
        made = prompted(task, room, rows, training, settings.shots)
        said = greedy_answers(subject, made.task, made.requests, settings.batch_size, settings.max_tokens)
        ids = [made.task.prompt(request) for request in made.requests]
        return _Asked(ids, lambda text: templates.answer(tokenizer, template, text), said, made.cut)
    start = beginning(subject.tasks, tokenizer)
    shown = {row["language"]: "" for row in rows}
    for code in shown:
        shown[code] = "".join(
            f"{_question(row)} {row['output']}\n\n" for row in examples(training, code, settings.shots)
        )
    whole = [[*start, *tokenizer.encode(shown[row["language"]] + _question(row))] for row in rows]
    ids = [row[-room:] for row in whole]
    said = _greedy(subject, ids, settings)
    return _Asked(ids, lambda text: tokenizer.encode(f" {text}"), said, sum(len(row) > room for row in whole))


def _question(row: Mapping[str, Any]) -> str:
    ask, answer = _WORDS.get(row["language"], ("Question", "Answer"))
    return f"{ask}: {row['instruction']}\n{answer}:"


def _greedy(subject: Subject, prompts: Sequence[list[int]], settings: Settings) -> list[str]:
    """The first line that a language model writes after each prompt."""
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with lowered(subject.model, subject.compute):
        for part in slices(len(order), settings.batch_size):
            said = generate(
                subject.model, [prompts[i] for i in order[part]], max_tokens=settings.max_tokens, temperature=0.0,
                top_k=0, top_p=1.0, stop=[subject.tokenizer.end_of_text],
            )  # fmt: skip
            for i, ids in zip(order[part], said, strict=True):
                texts[i] = subject.tokenizer.decode(ids).strip().split("\n")[0].strip()
    return texts


def _scores(
    settings: Settings,
    subject: Subject,
    rows: Sequence[Mapping[str, Any]],
    choices: Sequence[Sequence[str]],
    asked: _Asked,
) -> list[list[Scored]]:
    """The likelihood of every candidate after its question."""
    pairs = [
        Ids(prompt, asked.answer_ids(text))
        for prompt, of_one in zip(asked.prompts, choices, strict=True)
        for text in of_one
    ]
    names = [f"record {row['id']}" for row, of_one in zip(rows, choices, strict=True) for _ in of_one]
    precision = autocast(subject.compute)
    flat = iter(ids_nats(subject.model, pairs, settings.batch_size, precision=precision, names=names))
    return [[next(flat) for _ in of_one] for of_one in choices]
