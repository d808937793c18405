"""The scaling study: the trials of infra/scaling.yaml, the law and the rule fitted to them, a table and a page."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from pipeline import files
from pipeline.config.params import Params
from pipeline.config.section import Section, validated
from pipeline.errors import UserError
from pipeline.paths import REPORTS, SCALING
from pipeline.reporting import report
from pipeline.reporting.wording import Words, load
from pipeline.studies import trials
from pipeline.studies.budget import FITTED, law_key, shape
from pipeline.studies.scaling_law import Law, ScalingRule, fit, rule
from pipeline.studies.trials import Result, Trial

PLAN = SCALING
PAGE = REPORTS / "scaling.html"


class Plan(Section):
    """infra/scaling.yaml: factors of params.yaml's pretrain."""

    widths: list[float]
    """Of the number of heads; width, depth and MLP follow in proportion."""
    tokens: list[float]
    """Of the tokens trained on."""
    rates: list[float]
    """Of the learning rates, tried at every width."""
    batches: list[float]
    """Of the batch, tried at the width of params.yaml."""
    seed: int
    """Of every trial."""


class Study(NamedTuple):
    """The trials with their results, by purpose: the law, the learning rates, the batch."""

    grid: list[tuple[Trial, Result]]
    rates: list[tuple[Trial, Result]]
    batches: list[tuple[Trial, Result]]


def planned(params: Params, plan: Plan) -> tuple[list[Trial], list[Trial], list[Trial]]:
    """The trials for the law, for the learning rates, for the batch."""
    recipe = params.pretrain
    heads = sorted({max(1, round(width * recipe.model.n_heads)) for width in plan.widths})
    half = sorted(plan.tokens)[(len(plan.tokens) - 1) // 2]
    grid = [_trial(params, plan.seed, n, tokens) for n in heads for tokens in plan.tokens]
    rates = [_trial(params, plan.seed, n, half, rate=rate) for n in heads for rate in (1.0, *plan.rates)]
    own = recipe.model.n_heads
    windows = recipe.part("ordering", "pretrain").batch_size
    sizes = dict.fromkeys(max(1, round(windows * batch)) / windows for batch in (1.0, *plan.batches))
    batches = [_trial(params, plan.seed, own, 1.0, math.sqrt(batch), batch) for batch in sizes]
    return grid, rates, batches


def _trial(  # noqa: PLR0913 - the factors of one trial
    params: Params, seed: int, heads: int, tokens: float, rate: float = 1.0, batch: float = 1.0
) -> Trial:
    """A trial of so many heads, and factors of the tokens, rates and batch of params.yaml."""
    recipe, steps = params.pretrain, params.pretrain.schedule.updates
    windows = recipe.part("ordering", "pretrain").batch_size
    size = max(1, round(windows * batch))
    scaled = max(1, round(steps * tokens * windows / size))
    rates = {name: value for name, value in recipe.optimizer.model_dump().items() if name.endswith("learning_rate")}
    changes: dict[str, Any] = {} if heads == recipe.model.n_heads else shape(recipe, heads)
    changes |= {f"optimizer.{name}": float(f"{value * rate:.6g}") for name, value in rates.items() if rate != 1}
    changes |= {
        "ordering.batch_size": size,
        "schedule.steps": scaled,
        "schedule.warmup_steps": min(scaled, recipe.schedule.warmup_steps),
        "schedule.batch_warmup_steps": 0,
        "validation.every": max(1, scaled // 4),
        "validation.batches": max(1, round(recipe.validation.batches * windows / size)),
    }
    return Trial(f"{heads} heads, tokens x {tokens:g}, rates x {rate:.3g}, batch x {batch:g}", seed, changes)


def rule_of(params: Params, study: Study) -> ScalingRule:
    """The rule fitted to the trials for rates and batch."""
    own = {name: v for name, v in params.pretrain.optimizer.model_dump().items() if name.endswith("learning_rate")}
    name = next(iter(own))
    windows = params.pretrain.part("ordering", "pretrain").batch_size
    rates: dict[float, list[tuple[float, float]]] = {}
    for trial, result in study.rates:
        factor = trial.changes.get(f"optimizer.{name}", own[name]) / own[name]
        rates.setdefault(float(result.weights), []).append((factor, result.loss_nats))
    batches = [(trial.changes["ordering.batch_size"] / windows, result.loss_nats) for trial, result in study.batches]
    return rule(rates, batches, float(study.batches[0][1].tokens))


def run(params: Params) -> None:
    """Trains the trials that are left, fits, prints, writes reports/scaling.json and the page.

    Raises:
        UserError: no infra/scaling.yaml, a value that is not valid there, or too few trials that converge.
    """
    if not PLAN.exists():
        raise UserError(f"{PLAN}: no such file; it names the widths, tokens, rates and batches to try")
    plan: Plan = validated(Plan, yaml.safe_load(PLAN.read_text(encoding="utf-8")), "", PLAN.name)
    parts = planned(params, plan)
    results = iter(trials.run(params, [trial for part in parts for trial in part]))
    study = Study(*([(trial, next(results)) for trial in part] for part in parts))
    grid = [result for _, result in study.grid]
    law, fitted_rule = fit(grid), rule_of(params, study)
    console = Console()
    console.print(table(study, law))
    console.print(*summary(law, fitted_rule, grid), sep="\n")
    kept: dict[str, Any] = {
        "law": dataclasses.asdict(law),
        "rule": dataclasses.asdict(fitted_rule),
        "of": law_key(params),
    }
    kept |= {"pretrain": params.pretrain.model_dump(mode="json"), "largest": max(result.flops for result in grid)}
    files.write_json(FITTED, kept)
    words = load(params.report.language)
    sentences = summary(law, fitted_rule, grid, words)
    files.write_text(PAGE, report.render_scaling([result._asdict() for result in grid], law.loss, sentences, words))
    console.print(PAGE)


def table(study: Study, law: Law) -> Table:
    """Every trial with its measured loss and the law's."""
    table = Table("trial", "weights", "tokens", "operations", "loss", "law", "seconds")
    for trial, result in {trial.name: (trial, result) for part in study for trial, result in part}.values():
        predicted = f"{law.loss(result.weights, result.tokens):.4f}" if (trial, result) in study.grid else ""
        table.add_row(trial.name, f"{result.weights:,}", f"{result.tokens:,}", f"{result.flops:.2e}",
                      f"{result.loss_nats:.4f}", predicted, f"{result.seconds:.0f}")  # fmt: skip
    return table


def summary(law: Law, rule: ScalingRule, grid: Sequence[Result], words: Words | None = None) -> list[str]:
    """The law, its errors and the rule as sentences; `words`: of the language, None: English."""
    words = words or load()
    finite = [result for result in grid if math.isfinite(result.loss_nats)]
    largest = max(finite, key=lambda result: result.flops)
    without = fit([result for result in grid if result is not largest])
    errors = {result: abs(law.loss(result.weights, result.tokens) - result.loss_nats) for result in finite}
    furthest = max(errors, key=lambda result: errors[result])
    known = "law known" if grid[0].known_nats is not None else "law"
    rates = ", ".join(
        words("scaling.rate", weights=words.integer(n), factor=words.number(factor, 2)) for n, factor in rule.rate_at
    )
    edges = _edges(rule, words)
    return [
        words(f"scaling.{known}", law=_law(law, words)),
        words(
            "scaling.errors", median=words.number(statistics.median(errors.values())),
            weights=words.integer(furthest.weights), tokens=words.integer(furthest.tokens),
            error=words.number(errors[furthest]),
        ),
        words(
            "scaling.largest", predicted=words.number(without.loss(largest.weights, largest.tokens)),
            measured=words.number(largest.loss_nats),
        ),
        words("scaling.rates", rates=rates),
        words("scaling.batch", factor=words.number(rule.batch, 2), tokens=words.integer(rule.tokens)),
        *([words("scaling.edge", edges=", ".join(edges))] if edges else []),
    ]  # fmt: skip


def _law(law: Law, words: Words) -> str:
    """E + A / N^alpha + B / D^beta with its numbers."""
    alpha, beta = words.number(law.alpha, 3), words.number(law.beta, 3)
    return f"{words.number(law.E, 3)} + {words.general(law.A, 3)} / N^{alpha} + {words.general(law.B, 3)} / D^{beta}"


def _edges(rule: ScalingRule, words: Words) -> list[str]:
    """The choices that are best at the lowest or highest factor tried, so that a better one may lie outside."""
    rates = [
        words("scaling.edge rates", weights=words.integer(n), factor=words.general(factor, 6))
        for n, factor in rule.rate_at
        if factor in rule.tried
    ]
    batch = [words("scaling.edge batch", factor=words.general(rule.batch, 6))]
    return rates + (batch if rule.batch in rule.batches else [])
