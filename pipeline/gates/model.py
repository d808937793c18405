"""What a model must reach to be registered, read from the numbers that its evaluation wrote.

Every metric is finite, a language model beats the unigram entropy of its test text, generation is not
degenerate, and the recipe's own thresholds hold. A model that fails is shown as such and kept out of the
registry; the graph goes on.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import integrity
from pipeline.config.params import Bound
from pipeline.config.section import Section, Share
from pipeline.errors import UserError
from pipeline.gates._rules import Frame, Rule, between, present


class Settings(Section):
    """gates.model: the bounds that every model shares; its own stand at evaluations.<model>.thresholds."""

    min_distinct_2: Share
    """Share of different token pairs in its samples (Li et al. 2016); a model in a loop is near 0."""
    max_repetition_share: Share
    """Tokens of its samples that are equal to the one before."""
    max_empty_share: Share
    """Samples or answers without a token."""


def profile(evaluation: Path, thresholds: Mapping[str, Bound]) -> dict[str, Frame]:
    """Profile tables of `<evaluation>/metrics.json`: every metric, and those that are judged.

    Raises:
        UserError: no metrics.json, or it is no flat table of numbers.
    """
    metrics = _read(evaluation / "metrics.json")
    every = Frame(("metric",), ("value", "finite"), nullable=True)
    for name, value in sorted(metrics.items()):
        every.add({"metric": name, "value": value, "finite": int(math.isfinite(value))})
    judged = sorted({*metrics, *thresholds})
    scores = Frame((), tuple(judged), nullable=True)
    scores.add({name: metrics.get(name) for name in judged})
    return {"metrics": every, "scores": scores, "entropy": _entropy(metrics)}


def expectations(
    settings: Settings, name: str, thresholds: Mapping[str, Bound], frames: Mapping[str, Frame]
) -> list[Rule]:
    """What must hold of `profile`'s frames for the model `name`; a bound on a metric it lacks has failed."""
    measured = {metric for metric, value in frames["scores"].rows[0].items() if value is not None}
    rules = [
        between(
            "metrics",
            "finite",
            f"no bound: see the training curve of {name}",
            "every metric is a finite number",
            at_least=1,
        ),
        between(
            "entropy",
            "nats_above_unigram",
            f"no bound: train {name} longer, or at another learning rate",
            "the model predicts better than word frequencies alone",
            at_most=0,
        ),
    ]
    shared: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("distinct_2", {"at_least": settings.min_distinct_2}, "min_distinct_2"),
        ("repetition_share", {"at_most": settings.max_repetition_share}, "max_repetition_share"),
        ("empty_share", {"at_most": settings.max_empty_share}, "max_empty_share"),
    )
    for metric, bounds, key in shared:
        if metric in measured and metric not in thresholds:
            rules.append(between("scores", metric, f"gates.model.{key}", "generation is not degenerate", **bounds))
    for metric, bound in sorted(thresholds.items()):
        key = f"evaluations.{name}.thresholds.{metric}"
        rules.append(present("scores", metric, key, f"{metric} was measured (evaluations.{name}.measures)"))
        if bound.at_least is not None or bound.at_most is not None:
            rules.append(
                between(
                    "scores",
                    metric,
                    key,
                    _reads(metric, bound),
                    at_least=bound.at_least,
                    at_most=bound.at_most,
                )
            )
    return rules


def _entropy(metrics: Mapping[str, float]) -> Frame:
    frame = Frame((), ("loss_nats", "unigram_entropy_nats", "nats_above_unigram"))
    loss, entropy = metrics.get("loss_nats"), metrics.get("unigram_entropy_nats")
    if loss is not None and entropy is not None and math.isfinite(loss) and math.isfinite(entropy):
        frame.add({"loss_nats": loss, "unigram_entropy_nats": entropy, "nats_above_unigram": loss - entropy})
    return frame


def _read(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `dvc repro evaluate@{path.parent.name}`")
    raw = integrity.read_recorded(path, path.with_name("details.json"))
    for name, value in raw.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{path}: {name} is {value!r}, expected a number; run the evaluation again")
    return {name: float(value) for name, value in raw.items()}


def _reads(metric: str, bound: Bound) -> str:
    sides = [
        f"at least {bound.at_least}" if bound.at_least is not None else "",
        f"at most {bound.at_most}" if bound.at_most is not None else "",
    ]
    return f"{metric} is {' and '.join(side for side in sides if side)}"
