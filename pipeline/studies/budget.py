"""The best use of a training budget: size and tokens by the scaling law, batch and learning rates by its rule."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline import config, files
from pipeline.config import edit
from pipeline.config.params import Params
from pipeline.config.recipe import Pretrain
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.paths import SAMPLES, TOKENIZER
from pipeline.studies import fastest, needs, trials
from pipeline.studies.scaling_law import Law, ScalingRule
from pipeline.studies.trials import Trial, flops_a_token, weights
from pipeline.tokenizer import Tokenizer

FITTED = needs.SCALING_LAW
# An upper end for the search of the best width.
_HEADS = 256
# Repeated documents are worth almost as much as new ones for some four epochs (Muennighoff et al. 2023).
_EPOCHS = 4
# A law is fitted over trials that differ by a hundred times; three times more than the largest is a small step.
_BEYOND = 3
# Seconds for which a shape is timed.
_TIMED_S = 5.0


def shape(recipe: Pretrain, heads: int) -> dict[str, int]:
    """Changes to `pretrain.model` for this number of heads: width, depth and MLP in proportion."""
    model = recipe.model
    groups = model.n_heads // model.n_kv_heads
    d_model = round(heads * model.d_model / model.n_heads)
    return {
        "model.n_heads": heads,
        "model.n_kv_heads": heads // groups if heads % groups == 0 else heads,
        "model.n_layers": max(1, round(heads * model.n_layers / model.n_heads)),
        "model.d_model": d_model,
        "model.d_ff": round(d_model * model.d_ff / model.d_model),
    }


def sized(recipe: Pretrain, heads: int, vocab_size: int) -> tuple[int, float]:
    """Parameters that multiply, and training operations per token, of the shape with this number of heads."""
    fields = recipe.model.model_dump() | {k.removeprefix("model."): v for k, v in shape(recipe, heads).items()}
    network = GPT(ModelConfig(**fields, vocab_size=vocab_size), None)
    return weights(network), flops_a_token(network)


class Proposal(NamedTuple):
    """A size and a number of tokens for a budget."""

    heads: int
    weights: int
    tokens: float
    flops: float
    loss: float
    """Predicted, nats per token."""


def proposal(law: Law, recipe: Pretrain, vocab_size: int, flops: Callable[[int], float]) -> Proposal:
    """The number of heads with the lowest predicted loss when all operations are spent, up to _HEADS.

    Args:
        flops: operations that the budget allows, by the number of heads.
    """
    proposals: list[Proposal] = []
    for heads in itertools.count(1):
        n, a_token = sized(recipe, heads, vocab_size)
        d = flops(heads) / a_token
        proposals.append(Proposal(heads, n, d, flops(heads), law.loss(n, d)))
        if len(proposals) > 1 and proposals[-1].loss > proposals[-2].loss:
            return proposals[-2]
        if heads == _HEADS:
            return proposals[-1]
    raise AssertionError("itertools.count has no end")


def changes(recipe: Pretrain, best: Proposal, rule: ScalingRule) -> dict[str, Any]:
    """The proposal as settings below `pretrain`: shape, steps, batch, learning rates, warm-up and validation."""
    old = recipe.schedule
    at_once = int(recipe.part("ordering", "pretrain").batch_size)
    wanted = at_once * old.accumulate * rule.batch_for(best.tokens)
    at_once = min(at_once, max(1, round(wanted)))
    accumulate = max(1, round(wanted / at_once))
    steps = max(1, round(best.tokens / (at_once * accumulate * recipe.model.context_length)))
    batch = at_once * accumulate / (int(recipe.part("ordering", "pretrain").batch_size) * old.accumulate)
    rate = rule.rate(best.weights, batch)
    factor = {name: value for name, value in recipe.optimizer.model_dump().items() if name.endswith("learning_rate")}
    return {
        **shape(recipe, best.heads),
        **{f"optimizer.{name}": float(f"{value * rate:.3g}") for name, value in factor.items()},
        "ordering.batch_size": at_once,
        "schedule.accumulate": accumulate,
        "schedule.batch_warmup_steps": 0,
        "schedule.steps": steps,
        "schedule.warmup_steps": round(old.warmup_steps * steps / max(1, old.updates)),
        "validation.every": max(1, steps // 4),
    }


def summary(best: Proposal, speed: float | None, largest: float, available: int) -> list[str]:
    """The proposal and its assumptions as sentences.

    Args:
        speed: operations per second measured here; None for a budget of operations.
        largest: operations of the study's largest trial.
        available: tokens of the training split.
    """
    lines = [
        f"{best.weights:,} weights on {best.tokens:,.0f} tokens ({best.tokens / best.weights:.1f} per weight): "
        f"{best.flops:.2e} operations, predicted loss {best.loss:.4f} nats per token"
    ]
    if speed is not None:
        lines.append(
            f"this machine does {speed:.2e} operations a second at that size; the time of validation is not counted"
        )
    if best.flops > _BEYOND * largest:
        lines.append(f"that is {best.flops / largest:.0f} times the largest trial: the law is extrapolated")
    if best.tokens > available:
        epochs = best.tokens / available
        more = "; get more documents" if epochs > _EPOCHS else ""
        lines.append(f"the training split has {available:,} tokens: {epochs:.1f} epochs{more}")
    return lines


def law_key(params: Params) -> str:
    """The key of a law: documents, compute and recipe, without the settings that the study varies."""
    recipe = params.pretrain
    varied = changes(
        recipe, Proposal(1, 1, 1.0, 1.0, 1.0), ScalingRule(((1.0, 1.0),), 1.0, 1.0, (1.0, 1.0), (1.0, 1.0))
    )
    fixed = dict.fromkeys([*varied, "validation.batches"], 1) | {"schedule.batch_warmup_steps": 0}
    fixed["model.d_model"] = recipe.model.head_dim
    return trials.keys(params, [Trial("law", 0, fixed)])[0]


def propose(params: Params, minutes: float | None, flops: float | None, apply: bool) -> None:
    """Prints a proposal for minutes of training here or for operations; with `apply` writes it into params.yaml.

    Raises:
        UserError: no law yet, or one of other documents, code or recipe.
    """
    needs.scaling_law()
    raw = files.read_json(FITTED)
    if raw["of"] != law_key(params):
        raise UserError(f"{FITTED} is of other documents, code, precision or recipe; run `tohum scaling` again")
    # the recipe of the study: the law is in factors of its settings, and params.yaml may hold a proposal by now
    params = params.model_copy(update={"pretrain": Pretrain.model_validate(raw["pretrain"])})
    law, rule = Law(**raw["law"]), ScalingRule(**raw["rule"])
    available = len(Shard.open(SAMPLES / "documents", "train").ids)
    vocabulary = Tokenizer.load(TOKENIZER).vocab_size
    speed = None
    if flops is not None:
        best = proposal(law, params.pretrain, vocabulary, lambda _: flops)
    else:
        assert minutes is not None
        best, speed = timed(params, law, vocabulary, 60 * minutes)
    changed = changes(params.pretrain, best, rule)
    for line in summary(best, speed, raw["largest"], available):
        print(line)
    print("\n".join(f"  pretrain.{name}: {value:g}" for name, value in changed.items()))
    if apply:
        print(edit.change(config.PARAMS, {f"pretrain.{name}": value for name, value in changed.items()}), end="")


def timed(params: Params, law: Law, vocabulary: int, seconds: float) -> tuple[Proposal, float]:
    """The proposal for so many seconds of training here, and the speed of its shape in operations a second."""
    speeds: dict[int, float] = {}

    def measured(heads: int) -> float:
        nearest = min(speeds, key=lambda timed_heads: abs(math.log(timed_heads / heads)))
        return speeds[nearest] * seconds

    heads = params.pretrain.model.n_heads
    while heads not in speeds:
        trial = Trial("budget", params.pretrain.seed, shape(params.pretrain, heads))
        shaped = params.model_copy(update={"pretrain": trials.recipe_of(params, trial)})
        _, step_s, tokens, _ = fastest.measure(shaped, _TIMED_S)
        speeds[heads] = tokens * sized(params.pretrain, heads, vocabulary)[1] / step_s
        best = proposal(law, params.pretrain, vocabulary, measured)
        heads = best.heads
    return best, speeds[best.heads]
