"""The page "What was learned from judgement": rewards, KL, wins by slice, answers before and after, over-optimisation.

It belongs to the graph: stage report writes it beside the pages of the models, where a recipe learns from pairs, thumbs
or a judge's scores, or a model is measured by `judgement`. The name of its file is no model's, which has no dot.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import outcomes
from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import EVALUATION
from pipeline.reporting import judgement_pictures as pictures
from pipeline.reporting.in_words import dimension_in_words
from pipeline.reporting.rendering import page
from pipeline.reporting.risks import whisker
from pipeline.reporting.wording import Words, load

FILE = "judgement.page.html"
_JUDGED = frozenset({"pairs", "thumbs", "prompts"})
_JUDGES = ("true", "judge")
_SHOWN = 12
"""Samples of a model that are shown at once."""


def learners(params: Params) -> list[str]:
    """The evaluated models whose recipes learn from judgement, or that measure judgement was run on."""
    return [
        name
        for name, evaluation in params.evaluations.items()
        if "judgement" in evaluation.measures or _learns(name, params)
    ]


def _learns(name: str, params: Params) -> bool:
    recipe = params.finetune.get(name)
    if recipe is None:
        return False
    return getattr(plugins.settings_class("tasks", recipe.task.name), "emits", "") in _JUDGED


def render(params: Params, models: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as HTML.

    Args:
        params: names the models, and the language.
        models: the report's models by name.

    Raises:
        UserError: no model learns from judgement.
    """
    words, names = load(params.report.language), learners(params)
    if not names:
        raise UserError(
            "no recipe of params.yaml learns from pairs, thumbs or a judge; `tohum profile preferences` has some"
        )
    return page(
        "judgement.html",
        words,
        models=[_model(models[name], words) for name in names],
        frontiers=_frontiers([models[name] for name in names], words),
        has_truth=any("true_reward" in models[name]["metrics"] for name in names),
    )


def _model(model: Mapping[str, Any], words: Words) -> dict[str, Any]:
    """Everything that the page shows of one model."""
    metrics, details = model["metrics"], model["details"].get("judgement", {})
    along = details.get("along") or {"points": [], "curves": {}}
    several = len(along["points"]) > 1
    return {
        "name": model["name"],
        "parts": model["parts"],
        "parent": details.get("parent"),
        "metrics": metrics,
        "judges": [judge for judge in _JUDGES if f"{judge}_reward" in metrics],
        "sentences": _sentences(metrics, details, words),
        "wins": details.get("wins", {}),
        "slices": _slices(model["name"], words),
        "samples": details.get("samples", []),
        "updates": pictures.by_update(model["name"], model["curve"], words),
        "curve": _curve(model["curve"], words),
        "along": along["points"] if several else [],
        "along_picture": pictures.along(model["name"], along, metrics, words) if several else "",
        "turning": [_turning(judge, along["curves"][judge], words) for judge in _JUDGES if judge in along["curves"]],
        "pairs": model["details"].get("reward_pairs"),
        "shown": _SHOWN,
    }


def _sentences(metrics: Mapping[str, float], details: Mapping[str, Any], words: Words) -> list[str]:
    """Wins, KL and share of the best possible in sentences."""
    said = []
    for judge in (judge for judge in _JUDGES if judge in details.get("wins", {})):
        won = details["wins"][judge]
        said.append(
            words(
                f"judgement.won.{judge}", rate=words.percent(won["rate"]), low=words.percent(won["low"]),
                high=words.percent(won["high"]), parent=details["parent"], prompts=words.integer(won["prompts"]),
                verdict=words(f"judgement.verdict.{won['verdict']}"),
            )
        )  # fmt: skip
    if "kl_nats" in metrics:
        said.append(
            words("judgement.kl sentence", kl=words.number(metrics["kl_nats"], 2), parent=details["parent"],
                  ratio=words.number(metrics["kl_log_ratio_nats"], 2))
        )  # fmt: skip
    if "best_possible_share" in metrics:
        best, found = details["frontier"]["best_possible"][-1], details["frontier"]
        key = "judgement.share of samples" if best["saturated"] else "judgement.share sentence"
        said.append(
            words(key, share=words.percent(metrics["best_possible_share"]), best=words.number(best["reward"], 3),
                  kl=words.general(best["kl_nats"], 3), samples=words.integer(found["samples"]),
                  parent=details["parent"])
        )  # fmt: skip
    return said


def _turning(judge: str, curve: Mapping[str, Any], words: Words) -> str:
    """The turning point of one judge's reward in a sentence."""
    name = words(f"judgement.{judge}")
    if not curve["turns"]:
        return words("judgement.no turning", judge=name)
    return words(
        "judgement.turning sentence", judge=name, kl=words.number(curve["turning"] ** 2, 1),
        fall=words.number(curve["fall"], 3), low=words.number(curve["fall_low"], 3),
    )  # fmt: skip


def _slices(name: str, words: Words) -> list[dict[str, Any]]:
    """Win rates by group of prompts, the lowest first; by the truth where it is known."""
    shown = [
        one
        for one in outcomes.slices(outcomes.read(EVALUATION / name / "outcomes.parquet"))
        if one.metric.endswith("_win_rate") and one.dimension != "length"
    ]
    first = next((judge for judge in _JUDGES if any(one.metric == f"{judge}_win_rate" for one in shown)), "")
    own = sorted((one for one in shown if one.metric == f"{first}_win_rate"), key=lambda one: one.mean)
    return [
        {
            "group": dimension_in_words(one.dimension, one.value, words), "rate": one.mean, "records": one.records,
            "low": max(0.0, one.low), "high": min(1.0, one.high), "bounded": math.isfinite(one.low),
            "picture": whisker(one.low - 0.5, one.mean - 0.5, one.high - 0.5, (-0.5, 0.5)),
        }
        for one in own
    ]  # fmt: skip


def _curve(curve: Sequence[Mapping[str, float]], words: Words) -> dict[str, Any]:
    """The figures of the validations as a table: heads and rows."""
    columns = ["step", *(key for key in (curve[0] if curve else {}) if key.startswith("validation_"))]
    heads = [words("plot.step"), *(pictures.figure_name(column, words) for column in columns[1:])]
    return {"heads": heads, "rows": [[point[column] for column in columns] for point in curve]}


def _frontiers(models: Sequence[Mapping[str, Any]], words: Words) -> list[dict[str, Any]]:
    """Reward against KL, a picture for each reference: all its models, best-of-n and the best possible by the model
    whose pool more judges scored.
    """
    by_parent: dict[str, list[Mapping[str, Any]]] = {}
    for model in models:
        if model["details"].get("judgement", {}).get("parent"):
            by_parent.setdefault(model["details"]["judgement"]["parent"], []).append(model)
    made = []
    for parent, own in by_parent.items():
        pooled = [model for model in own if "frontier" in model["details"]["judgement"]]
        if not pooled:
            continue
        source = max(pooled, key=lambda model: len(model["details"]["judgement"]["frontier"]["best_of"]))
        found = source["details"]["judgement"]["frontier"]
        value = found["in"]
        reference = {**found, "reward": source["metrics"][f"{value}_reward_parent"]}
        points = [
            {"name": one["name"], "kl_nats": one["metrics"]["kl_nats"], "reward": one["metrics"][f"{value}_reward"]}
            for one in own
            if f"{value}_reward" in one["metrics"]
        ]
        made.append(
            {"parent": parent, "picture": pictures.frontier(points, reference, words), "points": points, "value": value,
             "best_of": found["best_of"], "best_possible": found["best_possible"], "samples": found["samples"],
             "start": reference["reward"]}
        )  # fmt: skip
    return made
