"""Minimal pairs: the share in which the acceptable sentence is likelier than the unacceptable one.

The full-sentence method of BLiMP (Warstadt et al. 2020, section 4.2, "simple LM method"): both are scored as whole
texts, and equally likely sentences count half. Files as BLiMP (jsonl, one a paradigm, also zipped) and TurBLiMP (Başar
et al. 2025; csv) publish them. A phenomenon's accuracy is the mean of its paradigms'.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from pipeline.config.section import PinnedSet, Positive, Section, SetName
from pipeline.data.benchmarks import Item, items
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject
from pipeline.inference.choices import credit
from pipeline.inference.likelihood import Scored, subject_nats
from pipeline.outcomes import Outcomes


class Settings(Section):
    """Sets of pairs, and limits."""

    sets: dict[SetName, PinnedSet] = Field(
        min_length=1,
        examples=[
            {
                "blimp": {
                    "path": "inputs/pairs.jsonl",
                    "sha256": "9b475ea025a050addc305f08d42bb16960fdf44d98f11659cf180fe8f9d347c5",
                    "language": "en",
                }
            }
        ],
    )
    """Name in the metrics -> set: `{blimp: {path: inputs/BLiMP.zip, sha256: ..., language: en}}`."""
    batch_size: Positive = Field(examples=[4])
    """Sentences in a batch."""
    max_pairs: Positive | None = Field(examples=[None, 1])
    """Measure on the first so many pairs of each paradigm; null: all."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """pairs_accuracy_<set>, pairs_accuracy_by_token_<set> (sentences compared by the mean over their tokens) and
    pairs_<set> (their number); details: accuracy by phenomenon and by paradigm, the 20 pairs that are most wrong.

    Raises:
        UserError: a changed or damaged file, a row without two sentences, or a sentence longer than the context.
    """
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    outcomes: list[Outcomes] = []
    for name, chosen in settings.sets.items():
        pairs = first_of_each(items(chosen.path, chosen.sha256), settings.max_pairs)
        sentences = [text for item in pairs for text in two_sentences(item)]
        names = [item.place for item in pairs for _ in range(2)]
        scored = subject_nats(subject, [("", text) for text in sentences], settings.batch_size, names)
        both = list(zip(scored[::2], scored[1::2], strict=True))
        right = [credit([good.nats, bad.nats], [0]) for good, bad in both]
        by_token = [credit([good.nats / good.tokens, bad.nats / bad.tokens], [0]) for good, bad in both]
        metrics |= {
            f"pairs_accuracy_{name}": sum(right) / len(right),
            f"pairs_accuracy_by_token_{name}": sum(by_token) / len(by_token),
            f"pairs_{name}": float(len(pairs)),
        }
        details[name] = {**_tables(pairs, right), "most_wrong": _most_wrong(pairs, both)}
        shown = [
            {"id": item.place, "language": chosen.language, "phenomenon": phenomenon(item), "text": item_text}
            for item, item_text in zip(pairs, sentences[::2], strict=True)
        ]
        outcomes.append(Outcomes(f"pairs_accuracy_{name}", shown, right))
    return Measured(metrics, details, tuple(outcomes))


def two_sentences(item: Item) -> tuple[str, str]:
    """The acceptable and the unacceptable sentence of a pair."""
    return item.text("sentence_good", "good_sentence"), item.text("sentence_bad", "bad_sentence")


def paradigm(item: Item) -> str:
    """BLiMP's paradigm (UID); of a set without paradigms the name of the file."""
    return str(item.row.get("UID") or item.file)


def phenomenon(item: Item) -> str:
    """The phenomenon that a pair belongs to; a paradigm of its own where the file names none."""
    return str(item.row.get("linguistics_term") or item.row.get("phenomenon") or paradigm(item))


def first_of_each(found: Sequence[Item], limit: int | None) -> list[Item]:
    """The first `limit` pairs of every paradigm, in the order of the files. Raises UserError where there is none."""
    seen: dict[str, int] = {}
    chosen = []
    for item in found:
        seen[paradigm(item)] = seen.get(paradigm(item), 0) + 1
        if limit is None or seen[paradigm(item)] <= limit:
            chosen.append(item)
    if not chosen:
        raise UserError("its file has no rows; expected minimal pairs")
    return chosen


def _tables(pairs: Sequence[Item], right: Sequence[float]) -> dict[str, dict[str, float]]:
    by_paradigm: dict[str, list[float]] = {}
    term: dict[str, str] = {}
    for item, value in zip(pairs, right, strict=True):
        by_paradigm.setdefault(paradigm(item), []).append(value)
        term[paradigm(item)] = phenomenon(item)
    paradigms = {name: sum(values) / len(values) for name, values in by_paradigm.items()}
    phenomena = {
        name: [paradigms[one] for one in paradigms if term[one] == name] for name in dict.fromkeys(term.values())
    }
    return {
        "by_phenomenon": {name: sum(values) / len(values) for name, values in phenomena.items()},
        "by_paradigm": paradigms,
    }


def _most_wrong(pairs: Sequence[Item], both: Sequence[tuple[Scored, Scored]]) -> list[dict[str, Any]]:
    """The pairs whose unacceptable sentence is likelier by the most nats."""
    order = sorted(range(len(pairs)), key=lambda i: both[i][1].nats - both[i][0].nats)[:20]
    return [
        {
            "good": two_sentences(pairs[i])[0],
            "bad": two_sentences(pairs[i])[1],
            "paradigm": paradigm(pairs[i]),
            "nats_apart": round(both[i][0].nats - both[i][1].nats, 3),
        }
        for i in order
        if both[i][1].nats < both[i][0].nats
    ]
