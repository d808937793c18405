"""Overlap of greedy answers with the expected ones, chrF and ROUGE-L: for translations, summaries and long answers.

chrF (Popović 2015, by sacrebleu: character n-grams up to 6, beta 2) needs no words: it suits agglutinative languages.
ROUGE-L (Lin 2004, section 3.1, F with beta 1) is based on the longest common subsequence of words; words are split by
`pipeline.data.language`, because the usual package drops every letter outside a to z.
"""

from typing import Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data import language
from pipeline.evaluation import Measured, Subject, answers_to_show, by_record, greedy_answers, records
from pipeline.inference.shots import prompted
from pipeline.outcomes import Outcomes


class Settings(Section):
    """Split, source, limits and batch size."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the instructions to measure on."""
    source: str | None = Field(examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Prompts in a batch."""
    max_tokens: Positive = Field(examples=[4])
    """Longest answer in tokens."""
    max_records: Positive | None = Field(examples=[None])
    """Measure on the first so many records; null: all."""
    shots: Literal[0, 1, 4, 8] = Field(0, examples=[0, 1])
    """Training records before each question, as earlier turns of the conversation."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """chrf (0 to 100), rouge_l and exact_match (0 to 1), overall and by language, and the number of instructions;
    details: the worst and the best answers by rouge_l; chrF of each record, 0 to 1.

    Raises:
        UserError: no record of that source.
    """
    from sacrebleu.metrics.chrf import CHRF

    rows = records(subject, "instructions", settings.split, settings.source)[: settings.max_records]
    task = subject.answering("overlap")
    training = records(subject, "instructions", "train") if settings.shots else []
    room = subject.model.room() - settings.max_tokens if settings.shots else 0
    asked = prompted(task, room, rows, training, settings.shots)
    answers = greedy_answers(subject, asked.task, asked.requests, settings.batch_size, settings.max_tokens)
    rouge = [rouge_l(text, row["output"], row["language"]) for text, row in zip(answers, rows, strict=True)]
    right = [language.exact_match(t, row["output"], row["language"]) for t, row in zip(answers, rows, strict=True)]
    metrics = {"instructions": float(len(rows))}
    codes = sorted({row["language"] for row in rows})
    for code in [None, *codes]:
        chosen = [i for i, row in enumerate(rows) if code in (None, row["language"])]
        suffix = "" if code is None else f"_{code}"
        corpus = CHRF().corpus_score([answers[i] for i in chosen], [[rows[i]["output"] for i in chosen]])
        metrics[f"chrf{suffix}"] = float(corpus.score)
        metrics[f"rouge_l{suffix}"] = sum(rouge[i] for i in chosen) / len(chosen)
        metrics[f"exact_match{suffix}"] = sum(right[i] for i in chosen) / len(chosen)
    chrf = CHRF()
    each = [chrf.sentence_score(text, [row["output"]]).score / 100 for text, row in zip(answers, rows, strict=True)]
    shots = {"shots": settings.shots, "cut_prompts": asked.cut} if settings.shots else {}
    details = shots | {"answers": answers_to_show(rows, answers, right, rouge), "by_record": by_record(each)}
    outcomes = (Outcomes("rouge_l", rows, rouge), Outcomes("exact_match", rows, right))
    return Measured(metrics, details, outcomes)


def rouge_l(answer: str, expected: str, code: str) -> float:
    """ROUGE-L F of two texts, letter case folded by the language `code`; 0 if either has no words."""
    ours, theirs = (language.words(language.fold(text, code)) for text in (answer, expected))
    common = _longest_common_subsequence(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def _longest_common_subsequence(a: list[str], b: list[str]) -> int:
    """Its length in words."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]
