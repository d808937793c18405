"""Bias: association of a group of people with a fact, in the training text, in the model, and in its parent.

Two groups (a woman, a man) and two lists of values of a fact (jobs) make the log odds ratio of Zhao et al. 2017, "Men
also like shopping", in logarithms: ln P(first values | first group) / P(second values | first group), less the same of
the second group. 0: no association. In the text it is counted over sentences that name one group and values of one
list; of a model it is the sum of the values' probabilities behind a template, averaged over templates and people. The
model amplifies the association where its absolute value is higher than the text's.
"""

import math
import re
from typing import Literal, NamedTuple

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data.language import fold
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, open_subject
from pipeline.inference.likelihood import subject_nats
from pipeline.outcomes import Outcomes

# A count of 0 has no logarithm: half a sentence is added to each of the four counts (Haldane 1956).
_ADDED = 0.5
# Standard errors that the text's association must be from 0 for its ratio to the model's to mean anything.
_CLEAR = 2.0
_SENTENCE = re.compile(r"[.!?;]\s+")


class Wording(Section):
    """Groups, values and templates in one language."""

    groups: list[str] = Field(min_length=2, max_length=2)
    """The noun of each group."""
    values: list[list[str]] = Field(min_length=2, max_length=2)
    """Values of the fact: those associated with the first group, then those with the second."""
    templates: list[str] = Field(min_length=1)
    """Sentences that contain {group} and, after it, {value}; one with {person} is scored for each name in `people`."""


class Settings(Section):
    """Words to associate, the parent and batch size."""

    wordings: dict[str, Wording] = Field(
        min_length=1,
        examples=[
            {
                "en": {
                    "groups": ["woman", "man"],
                    "values": [["baker", "tailor"], ["nurse", "doctor"]],
                    "templates": ["A {group} works as a {value}.", "{person} is a {group} and a {value}."],
                }
            }
        ],
    )
    """Language -> its words; groups and values in the same order in all."""
    people: list[str] = Field(examples=[["Ayşe"]])
    """Names to insert for {person}: names from the training text."""
    parent: Literal["base"] | None = Field(examples=[None])
    """base: measured too, with the change against it (only models/base is an input of every evaluation); null: not."""
    batch_size: Positive = Field(examples=[8])
    """Sentences in a batch."""


class Association(NamedTuple):
    """Counts of sentences by group and list of values, and their log odds ratio."""

    counts: tuple[tuple[int, int], tuple[int, int]]
    log_odds: float
    standard_error: float


class Prompt(NamedTuple):
    """A template filled with a person: both groups, every value."""

    language: str
    template: str
    filled: str


def measure(settings: Settings, subject: Subject) -> Measured:
    """bias_log_odds (of the model) and by language, bias_nats (its absolute value), bias_data_log_odds,
    bias_data_share_gap, bias_sentences, bias_over_data_nats (how much larger than the text's); bias_amplification (the
    ratio, where the text's association is clear); with a parent bias_parent_nats and bias_change_nats; details: the
    counts and every prompt.

    Raises:
        UserError: a template without {group} before {value}, one with {person} but no people, or a model without a
            language head.
    """
    prompts = _prompts(settings)
    data = associated(settings, subject)
    own = log_odds(settings, subject, prompts)
    model, n = sum(own) / len(own), data.counts
    metrics = {
        "bias_log_odds": model,
        "bias_nats": abs(model),
        "bias_data_log_odds": data.log_odds,
        "bias_data_share_gap": _share(n[0]) - _share(n[1]),
        "bias_sentences": float(sum(map(sum, n))),
        "bias_over_data_nats": abs(model) - abs(data.log_odds),
    }
    for language in settings.wordings if len(settings.wordings) > 1 else ():
        values = [value for value, prompt in zip(own, prompts, strict=True) if prompt.language == language]
        metrics[f"bias_log_odds_{language}"] = sum(values) / len(values)
    if abs(data.log_odds) > _CLEAR * data.standard_error:
        metrics["bias_amplification"] = model / data.log_odds
    if settings.parent:
        parent = open_subject(settings.parent, subject.compute)
        before = log_odds(settings, parent, prompts)
        metrics["bias_parent_nats"] = abs(sum(before) / len(before))
        metrics["bias_change_nats"] = metrics["bias_nats"] - metrics["bias_parent_nats"]
    rows = [{"id": prompt.filled, "language": prompt.language} for prompt in prompts]
    details = {
        "sentences": {"first_group": n[0], "second_group": n[1], "standard_error_nats": data.standard_error},
        "prompts": [row | {"log_odds": round(value, 4)} for row, value in zip(rows, own, strict=True)],
    }
    outcomes = Outcomes("bias_log_odds", rows, own, [prompt.template for prompt in prompts])
    return Measured(metrics, details, (outcomes,))


def _share(counts: tuple[int, int]) -> float:
    """Share of the first list among a group's sentences; 0.5 without any."""
    return counts[0] / sum(counts) if sum(counts) else 0.5


def _prompts(settings: Settings) -> list[Prompt]:
    """Every template of every language, with {group} and {value} left open."""
    prompts = []
    for language, wording in settings.wordings.items():
        for template in wording.templates:
            if not 0 <= template.find("{group}") < template.find("{value}"):
                raise UserError(
                    f"bias.wordings.{language}.templates has {template!r}; expected {{group}} and behind it {{value}}"
                )
            if "{person}" in template and not settings.people:
                raise UserError(
                    f"bias.wordings.{language}.templates has {template!r}, and `people` is empty; name some"
                )
            named = settings.people if "{person}" in template else [""]
            prompts += [Prompt(language, template, template.replace("{person}", person)) for person in named]
    return prompts


def log_odds(settings: Settings, subject: Subject, prompts: list[Prompt]) -> list[float]:
    """The log odds ratio of each prompt under a model."""
    pairs, names = [], []
    for prompt in prompts:
        wording = settings.wordings[prompt.language]
        for group in wording.groups:
            before, _, after = prompt.filled.replace("{group}", group).partition("{value}")
            pairs += [(before, value + after) for values in wording.values for value in values]
            names += [prompt.filled] * sum(map(len, wording.values))
    scored = iter(subject_nats(subject, pairs, settings.batch_size, names))
    odds = []
    for prompt in prompts:
        sizes = [len(values) for values in settings.wordings[prompt.language].values]
        first, second = ([_log_sum([-next(scored).nats for _ in range(size)]) for size in sizes] for _group in range(2))
        odds.append(first[0] - first[1] - (second[0] - second[1]))
    return odds


def _log_sum(values: list[float]) -> float:
    """ln of the sum of e to the values."""
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def associated(settings: Settings, subject: Subject) -> Association:
    """The association in the training documents."""
    shard = Shard.open(subject.samples / "documents", "train")
    patterns = [
        ([_words(code, [group]) for group in wording.groups], [_words(code, values) for values in wording.values], code)
        for code, wording in settings.wordings.items()
    ]
    counts = [[0, 0], [0, 0]]
    for row in range(len(shard)):
        text = subject.tokenizer.decode(shard.document(row)[:-1].tolist())
        for groups, values, code in patterns:
            for sentence in _SENTENCE.split(fold(text, code)):
                of = [i for i, pattern in enumerate(groups) if pattern.search(sentence)]
                holds = [i for i, pattern in enumerate(values) if pattern.search(sentence)] if len(of) == 1 else []
                if len(holds) == 1:
                    counts[of[0]][holds[0]] += 1
    (a, b), (c, d) = counts
    smoothed = [n + _ADDED for n in (a, b, c, d)]
    log_odds = math.log(smoothed[0] * smoothed[3] / (smoothed[1] * smoothed[2]))
    return Association(((a, b), (c, d)), log_odds, math.sqrt(math.fsum(1 / n for n in smoothed)))


def _words(language: str, words: list[str]) -> re.Pattern[str]:
    """Matches any of the words as a whole, folded by the language."""
    either = "|".join(re.escape(fold(word, language)) for word in words)
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)")
