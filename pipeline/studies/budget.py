"""What a budget of operations is best spent on: size and tokens by a scaling law, batch and rates by its rule."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.config.params import Params
from pipeline.config.recipe import Pretrain
from pipeline.model.gpt import GPT, ModelConfig
from pipeline.studies import trials
from pipeline.studies.scaling import Law, Rule, shape
from pipeline.studies.trials import Trial, flops_a_token, weights

# No network of this many heads was ever trained; the search for the best width ends somewhere.
_HEADS = 256
# Repeating documents teaches almost as much as new ones for some four epochs (Muennighoff et al. 2023).
_EPOCHS = 4
# A law is fitted over trials that differ by a hundred times; three times more than the largest is no step in that.
_BEYOND = 3


def sized(recipe: Pretrain, heads: int, vocab_size: int) -> tuple[int, float]:
    """Weights that multiply, and operations a token, of that shape."""
    fields = recipe.model.model_dump() | {k.removeprefix("model."): v for k, v in shape(recipe, heads).items()}
    network = GPT(ModelConfig(**fields, vocab_size=vocab_size), None)
    return weights(network), flops_a_token(network)


class Proposal(NamedTuple):
    """What a budget is best spent on."""

    heads: int
    weights: int
    tokens: float
    flops: float
    loss: float
    """Foretold, nats a token."""


def proposal(law: Law, recipe: Pretrain, vocab_size: int, flops: Callable[[int], float]) -> Proposal:
    """The width whose loss is lowest when all operations are spent; one up or down is worse, up to _HEADS.

    Args:
        flops: what the budget buys at a width, operations.
    """
    found: list[Proposal] = []
    for heads in itertools.count(1):
        n, a_token = sized(recipe, heads, vocab_size)
        d = flops(heads) / a_token
        found.append(Proposal(heads, n, d, flops(heads), law.loss(n, d)))
        if len(found) > 1 and found[-1].loss > found[-2].loss:
            return found[-2]
        if heads == _HEADS:
            return found[-1]
    raise AssertionError("itertools.count has no end")


def changes(recipe: Pretrain, found: Proposal, law_rule: Rule) -> dict[str, Any]:
    """The proposal as settings below `pretrain`: shape, steps, batch, rates; cadences in proportion."""
    old = recipe.schedule
    at_once = int(recipe.part("ordering", "pretrain").batch_size)
    wanted = at_once * old.accumulate * law_rule.batch_for(found.tokens)
    at_once = min(at_once, max(1, round(wanted)))
    accumulate = max(1, round(wanted / at_once))
    steps = max(1, round(found.tokens / (at_once * accumulate * recipe.model.context_length)))
    batch = at_once * accumulate / (int(recipe.part("ordering", "pretrain").batch_size) * old.accumulate)
    rate = law_rule.rate(found.weights, batch)
    factor = {name: value for name, value in recipe.optimizer.model_dump().items() if name.endswith("learning_rate")}
    return {
        **shape(recipe, found.heads),
        **{f"optimizer.{name}": float(f"{value * rate:.3g}") for name, value in factor.items()},
        "ordering.batch_size": at_once,
        "schedule.accumulate": accumulate,
        "schedule.batch_warmup_steps": 0,
        "schedule.steps": steps,
        "schedule.warmup_steps": round(old.warmup_steps * steps / max(1, old.steps)),
        "validation.every": max(1, steps // 4),
    }


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
    varied = changes(recipe, Proposal(1, 1, 1.0, 1.0, 1.0), Rule(((1.0, 1.0),), 1.0, 1.0, (1.0, 1.0), (1.0, 1.0)))
    still = dict.fromkeys([*varied, "validation.batches"], 1) | {"schedule.batch_warmup_steps": 0}
    still["model.d_model"] = recipe.model.head_dim
    return trials.keys(params, [Trial("law", 0, still)])[0]
