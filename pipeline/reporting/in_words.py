"""Figures of a model in words, as tables, pages and the model card show them."""

from collections.abc import Mapping

from pipeline.baseline import BesideBaseline, beside
from pipeline.significance import wilson

_COUNTED = {"accuracy": "examples", "exact_match": "instructions"}
"""Score that is a share of records -> metric with the number of records."""


def amount_of_training(training: Mapping[str, float], examples: str = "records") -> str:
    """`0.2 epochs of 9,599 records`; empty where it is not known, as for a merged model.

    Args:
        training: reports/training/<model>.json.
        examples: what one example is.
    """
    if not training.get("records") or "epochs" not in training:
        return ""
    epochs = training["epochs"]
    shown = f"{epochs:.2g}" if epochs < 10 else f"{epochs:,.0f}"
    return f"{shown} epoch{'' if shown == '1' else 's'} of {training['records']:,.0f} {examples}"


def interval_bounds(metrics: Mapping[str, float], score: str) -> tuple[float, float] | None:
    """The 95 % interval of a score that is a share of the held-out records; None for other scores."""
    records = int(metrics.get(_COUNTED.get(score, ""), 0))
    return wilson(metrics[score], records) if records else None


def interval(metrics: Mapping[str, float], score: str) -> str:
    """`0.834 to 0.976`, the 95 % interval of a score; empty for scores that are no share of records."""
    bounds = interval_bounds(metrics, score)
    return "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def baseline_sentence(metrics: Mapping[str, float]) -> str:
    """The model beside its baseline in a sentence; empty where that was not measured."""
    compared = beside(metrics)
    if compared is None:
        return ""
    test = "McNemar's exact test" if isinstance(compared, BesideBaseline) else "sign test"
    return f"Beside the baseline: {compared.sentence} ({test})."
