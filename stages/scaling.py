"""How the loss falls with size and tokens on this project's documents, and what to train for a budget.

`make scaling` trains infra/scaling.yaml's sizes, tokens, rates and batches, fits the law and draws it
(reports/scaling.html). `make budget MINUTES=10` or `FLOPS=1e15` then proposes size, tokens, batch and learning rates;
with APPLY=1 they go into params.yaml. What has run is kept, so it can be stopped.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from pipeline import config, files, params_file, report, scaling, studies
from pipeline.config import Params, Pretrain, Section, UserError
from pipeline.data.shards import Shard
from pipeline.scaling import Law, Proposal, Rule
from pipeline.studies import Result, Trial
from stages import entry, fastest

PLAN = Path("infra/scaling.yaml")
FOUND = Path("reports/scaling.json")
PAGE = Path("reports/scaling.html")
# Repeating documents teaches almost as much as new ones for some four epochs (Muennighoff et al. 2023).
_EPOCHS = 4
# A law is fitted over trials that differ by a hundred times; three times more than the largest is no step in that.
_BEYOND = 3
# How long a shape is timed.
_TIMED_S = 5.0


class Plan(Section):
    """What infra/scaling.yaml says: factors of params.yaml's pretrain."""

    widths: list[float]
    tokens: list[float]
    rates: list[float]
    batches: list[float]
    seed: int


class Study(NamedTuple):
    """The trials and what they found, by what they are for."""

    grid: list[tuple[Trial, Result]]
    rates: list[tuple[Trial, Result]]
    batches: list[tuple[Trial, Result]]


def main() -> None:
    """Runs the study, or proposes for a budget."""
    parser = argparse.ArgumentParser(prog="python -m stages.scaling", description=__doc__)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="of training on this machine, with params.yaml's compute")
    budget.add_argument("--flops", type=float, help="operations of training")
    parser.add_argument("--apply", action="store_true", help="write the proposal into params.yaml")
    options = parser.parse_args()
    params = config.load()
    if options.minutes is None and options.flops is None:
        study(params)
        return
    if any(given is not None and given <= 0 for given in (options.minutes, options.flops)):
        raise UserError("a budget is more than nothing; give minutes or operations above 0")
    propose(params, options.minutes, options.flops, options.apply)


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


def _trial(params: Params, seed: int, heads: int, tokens: float, rate: float = 1.0, batch: float = 1.0) -> Trial:
    """So many heads wide, so many times the tokens, rates and batch of params.yaml."""
    recipe, steps = params.pretrain, params.pretrain.schedule.steps
    windows = recipe.part("ordering", "pretrain").batch_size
    size = max(1, round(windows * batch))
    scaled = max(1, round(steps * tokens * windows / size))
    rates = {name: value for name, value in recipe.optimizer.model_dump().items() if name.endswith("learning_rate")}
    changes: dict[str, Any] = {} if heads == recipe.model.n_heads else scaling.shape(recipe, heads)
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


def study(params: Params) -> None:
    """Trains what is left, fits, shows, writes the page."""
    if not PLAN.exists():
        raise UserError(f"{PLAN}: no such file; it names the widths, tokens, rates and batches to try")
    plan: Plan = config.validated(Plan, yaml.safe_load(PLAN.read_text(encoding="utf-8")), "", PLAN.name)
    parts = planned(params, plan)
    results = iter(studies.run(params, [trial for part in parts for trial in part]))
    found = Study(*([(trial, next(results)) for trial in part] for part in parts))
    grid = [result for _, result in found.grid]
    law, rule = scaling.fit(grid), rule_of(params, found)
    console = Console()
    console.print(table(found, law))
    said = told(law, rule, grid)
    console.print(*said, sep="\n")
    kept: dict[str, Any] = {"law": dataclasses.asdict(law), "rule": dataclasses.asdict(rule), "of": of(params)}
    kept |= {"pretrain": params.pretrain.model_dump(mode="json"), "largest": max(one.flops for one in grid)}
    files.write_json(FOUND, kept)
    files.write_text(PAGE, report.render_scaling([one._asdict() for one in grid], law.loss, said))
    console.print(PAGE)


def rule_of(params: Params, found: Study) -> Rule:
    """How rates and batch follow, from the trials for them."""
    own = {name: v for name, v in params.pretrain.optimizer.model_dump().items() if name.endswith("learning_rate")}
    name = next(iter(own))
    windows = params.pretrain.part("ordering", "pretrain").batch_size
    rates: dict[float, list[tuple[float, float]]] = {}
    for trial, result in found.rates:
        factor = trial.changes.get(f"optimizer.{name}", own[name]) / own[name]
        rates.setdefault(float(result.weights), []).append((factor, result.loss_nats))
    batches = [(trial.changes["ordering.batch_size"] / windows, result.loss_nats) for trial, result in found.batches]
    return scaling.rule(rates, batches, float(found.batches[0][1].tokens))


def told(law: Law, rule: Rule, grid: Sequence[Result]) -> list[str]:
    """The findings as sentences."""
    largest = max((one for one in grid if math.isfinite(one.loss_nats)), key=lambda one: one.flops)
    without = scaling.fit([one for one in grid if one is not largest])
    gap = max(abs(law.loss(one.weights, one.tokens) - one.loss_nats) for one in grid if math.isfinite(one.loss_nats))
    known = " (E is what a perfect model would lose, known of this source)" if grid[0].known_nats is not None else ""
    rates = ", ".join(f"{n:,.0f} weights x {factor:.2f}" for n, factor in rule.rate_at)
    return [
        f"loss = {law}{known}; no trial is further than {gap:.4f} nats from it",
        f"fitted without the largest trial it foretells {without.loss(largest.weights, largest.tokens):.4f} for it; it "
        f"found {largest.loss_nats:.4f}",
        f"learning rates, beside those of params.yaml: {rates}",
        f"batch, beside that of params.yaml: x {rule.batch:.2f} at {rule.tokens:,.0f} tokens, growing as their root",
    ]


def table(found: Study, law: Law) -> Table:
    """Every trial with what the law says of it."""
    made = Table("trial", "weights", "tokens", "operations", "loss", "law", "seconds")
    for trial, one in {trial.name: (trial, one) for part in found for trial, one in part}.values():
        foretold = f"{law.loss(one.weights, one.tokens):.4f}" if (trial, one) in found.grid else ""
        made.add_row(trial.name, f"{one.weights:,}", f"{one.tokens:,}", f"{one.flops:.2e}", f"{one.loss_nats:.4f}",
                     foretold, f"{one.seconds:.0f}")  # fmt: skip
    return made


def propose(params: Params, minutes: float | None, flops: float | None, apply: bool) -> None:
    """Shows, and with `apply` writes, what a budget is best spent on."""
    if not FOUND.exists():
        raise UserError(f"{FOUND}: no such file; `make scaling` makes it")
    raw = files.read_json(FOUND)
    if raw["of"] != of(params):
        raise UserError(f"{FOUND} is of other documents, code, precision or recipe; run `make scaling` again")
    # what the law's factors are factors of, even after a proposal went into params.yaml
    params = params.model_copy(update={"pretrain": Pretrain.model_validate(raw["pretrain"])})
    law, rule = Law(**raw["law"]), Rule(**raw["rule"])
    there = len(Shard.open(studies.SAMPLES / "documents", "train").ids)
    vocabulary = studies.Tokenizer.load(studies.TOKENIZER).vocab_size
    speed = None
    if flops is not None:
        found = scaling.proposal(law, params.pretrain, vocabulary, lambda heads: flops)
    else:
        assert minutes is not None
        found, speed = timed(params, law, vocabulary, 60 * minutes)
    changed = scaling.changes(params.pretrain, found, rule)
    for line in spoken(found, speed, raw["largest"], there):
        print(line)
    print("\n".join(f"  pretrain.{name}: {value:g}" for name, value in changed.items()))
    if apply:
        print(params_file.change(config.PARAMS, {f"pretrain.{name}": value for name, value in changed.items()}), end="")


def timed(params: Params, law: Law, vocabulary: int, seconds: float) -> tuple[Proposal, float]:
    """The proposal for so many seconds here, by the speed of the proposed shape itself: operations a second."""
    speeds: dict[int, float] = {}

    def measured(heads: int) -> float:
        nearest = min(speeds, key=lambda one: abs(math.log(one / heads)))
        return speeds[nearest] * seconds

    heads = params.pretrain.model.n_heads
    while heads not in speeds:
        trial = Trial("budget", params.pretrain.seed, scaling.shape(params.pretrain, heads))
        shaped = params.model_copy(update={"pretrain": studies.recipe_of(params, trial)})
        _, step_s, tokens = fastest.measure(shaped, _TIMED_S)
        speeds[heads] = tokens * scaling.sized(params.pretrain, heads, vocabulary)[1] / step_s
        found = scaling.proposal(law, params.pretrain, vocabulary, measured)
        heads = found.heads
    return found, speeds[found.heads]


def spoken(found: Proposal, speed: float | None, largest: float, there: int) -> list[str]:
    """The proposal as sentences, with what it leans on."""
    lines = [
        f"{found.weights:,} weights on {found.tokens:,.0f} tokens ({found.tokens / found.weights:.1f} a weight): "
        f"{found.flops:.2e} operations, a loss of {found.loss:.4f} nats a token foretold"
    ]
    if speed is not None:
        lines.append(f"this machine does {speed:.2e} operations a second at that size; validation comes on top")
    if found.flops > _BEYOND * largest:
        lines.append(f"that is {found.flops / largest:.0f} times the largest trial: the law reaches beyond what it saw")
    if found.tokens > there:
        epochs = found.tokens / there
        more = "; get more documents" if epochs > _EPOCHS else ""
        lines.append(f"the training split has {there:,} tokens: {epochs:.1f} epochs{more}")
    return lines


def of(params: Params) -> str:
    """What a law is of: documents, compute and recipe, but for what the law varies."""
    recipe = params.pretrain
    varied = scaling.changes(recipe, Proposal(1, 1, 1.0, 1.0, 1.0), Rule(((1.0, 1.0),), 1.0, 1.0, (1.0, 1.0)))
    still = dict.fromkeys([*varied, "validation.batches"], 1) | {"schedule.batch_warmup_steps": 0}
    still["model.d_model"] = recipe.model.head_dim
    return studies.keys(params, [Trial("law", 0, still)])[0]


if __name__ == "__main__":
    entry(main, again="the same command goes on with what is left")
