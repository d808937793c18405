"""How much of the expected answer a greedy answer holds, for answers of more than a word: translations, summaries.

chrF (Popović 2015, by sacrebleu: character n-grams up to 6, beta 2) needs no words and so serves languages that build
long ones; ROUGE-L (Lin 2004, section 3.1, F with beta 1) is the longest run of words in the same order, gaps allowed,
by the project's own idea of a word, since the usual package drops every letter outside a to z.
"""

from typing import Any, Literal

from pipeline.config.section import Positive, Section
from pipeline.data import language
from pipeline.errors import UserError
from pipeline.evaluation import Subject, answer, looked_at, records


class Settings(Section):
    split: Literal["validation", "test"]
    source: str | None
    """Records of this source of the params alone; null: all."""
    batch_size: Positive
    max_tokens: Positive
    """Longest answer."""
    max_records: Positive | None
    """The first so many records; null: all."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """chrf (0 to 100), rouge_l and exact_match (0 to 1), overall and by language, and how many instructions;
    details: the worst and best answers.

    Raises:
        UserError: no record of that source.
    """
    from sacrebleu.metrics.chrf import CHRF

    known = records(subject, "instructions", settings.split)
    rows = [row for row in known if settings.source in (None, row["source"])][: settings.max_records]
    if not rows:
        raise UserError(
            f"evaluations.{subject.name}.measures.overlap.source is {settings.source!r}; the {settings.split} "
            f"instructions are of: {', '.join(sorted({row['source'] for row in known})) or 'no source'}"
        )
    given = answer(subject, rows, settings.batch_size, settings.max_tokens)
    shared = [rouge_l(text, row["output"], row["language"]) for text, row in zip(given, rows, strict=True)]
    right = [language.exact_match(t, row["output"], row["language"]) for t, row in zip(given, rows, strict=True)]
    metrics = {"instructions": float(len(rows))}
    codes = sorted({row["language"] for row in rows})
    for code in [None, *codes]:
        places = [place for place, row in enumerate(rows) if code in (None, row["language"])]
        end = "" if code is None else f"_{code}"
        found = CHRF().corpus_score([given[i] for i in places], [[rows[i]["output"] for i in places]])
        metrics[f"chrf{end}"] = float(found.score)
        metrics[f"rouge_l{end}"] = sum(shared[i] for i in places) / len(places)
        metrics[f"exact_match{end}"] = sum(right[i] for i in places) / len(places)
    return metrics, {"answers": looked_at(rows, given, right, shared)}


def rouge_l(given: str, expected: str, code: str) -> float:
    """F of the longest common subsequence of words, case folded as the language folds it; 0 where either has none."""
    ours, theirs = (language.words(language.fold(text, code)) for text in (given, expected))
    common = _common(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def _common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for place, other in enumerate(b, start=1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]
