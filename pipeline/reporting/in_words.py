"""Figures of a model in words, as tables, pages and the model card show them."""

import re
from collections.abc import Mapping

from pipeline.baseline import BesideBaseline, BesideRidge, beside
from pipeline.reporting.wording import Words, load
from pipeline.significance import wilson

_COUNTED = {"accuracy": "examples", "exact_match": "instructions"}
"""Score that is a share of records -> metric with the number of records."""
_LENGTH = re.compile(r"^(up to|over)? ?(\d+)(?: to (\d+))? characters$")


def amount_of_training(training: Mapping[str, float], examples: str = "records", words: Words | None = None) -> str:
    """`0.2 epochs of 9,599 records`; empty where it is not known, as for a merged model.

    Args:
        training: reports/training/<model>.json.
        examples: what one example is: records or windows.
        words: of the language; None: English.
    """
    words = words or load()
    if not training.get("records") or "epochs" not in training:
        return ""
    epochs = training["epochs"]
    shown = words.general(epochs, 2) if epochs < 10 else words.integer(epochs)
    amount = words(f"amount.epochs.{'one' if shown == '1' else 'many'}", n=shown)
    return words(f"amount.{examples}", epochs=amount, records=words.integer(training["records"]))


def interval_bounds(metrics: Mapping[str, float], score: str) -> tuple[float, float] | None:
    """The 95 % interval of a score that is a share of the held-out records; None for other scores."""
    records = held_out_records(metrics, score)
    return wilson(metrics[score], records) if records else None


def held_out_records(metrics: Mapping[str, float], score: str) -> int:
    """The held-out records behind a score that is a share of them; 0 for other scores."""
    return int(metrics.get(_COUNTED.get(score, ""), 0))


def interval(metrics: Mapping[str, float], score: str, words: Words | None = None) -> str:
    """`0.834 to 0.976`, the 95 % interval of a score; empty for scores that are no share of records."""
    bounds = interval_bounds(metrics, score)
    return "" if bounds is None else (words or load()).interval(*bounds)


def beside_baseline(metrics: Mapping[str, float], words: Words | None = None) -> str:
    """The model and its baseline on the same records, and the conclusion; empty where that was not measured."""
    words, compared = words or load(), beside(metrics)
    if compared is None:
        return ""
    shared = {
        "records": words.integer(compared.examples), "conclusion": words(f"baseline.conclusion.{compared.verdict}"),
    }  # fmt: skip
    if isinstance(compared, BesideRidge):
        return words(
            "baseline.error", model=words.general(compared.rmse), baseline=words.general(compared.baseline_rmse),
            mean=words.general(compared.mean_rmse), only_model=words.integer(compared.model_closer),
            only_baseline=words.integer(compared.baseline_closer), **shared,
        )  # fmt: skip
    return words(
        "baseline.accuracy", model=words.number(compared.accuracy, 3),
        baseline=words.number(compared.baseline_accuracy, 3), only_model=words.integer(compared.only_model_right),
        only_baseline=words.integer(compared.only_baseline_right), **shared,
    )  # fmt: skip


def baseline_sentence(metrics: Mapping[str, float], words: Words | None = None) -> str:
    """The model beside its baseline in a sentence; empty where that was not measured."""
    words, compared = words or load(), beside(metrics)
    if compared is None:
        return ""
    test = words("baseline.mcnemar" if isinstance(compared, BesideBaseline) else "baseline.sign")
    return words("baseline.sentence", compared=beside_baseline(metrics, words), test=test)


def dimension_in_words(dimension: str, value: str, words: Words) -> str:
    """`language: tr`, in the words of the page."""
    if dimension == "length" and (found := _LENGTH.match(value)):
        side, first, last = found.groups()
        key = {"up to": "up to", "over": "over"}.get(side, "between")
        value = words(f"length.{key}", first=words.integer(int(first)), last=words.integer(int(last or 0)))
    name = words(f"dimension.{dimension}") if words.has(f"dimension.{dimension}") else dimension
    return words("slices.shown", dimension=name, value=value)
