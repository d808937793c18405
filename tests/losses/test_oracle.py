"""The oracle: sampled estimators beside exact ones, and planted bugs, each of which a check finds.

A world (`oracle.py`) is so small that expected reward, KL and gradients are exact. `evidence` runs the real path on it:
rollouts, judge, columns, losses, gradients; each check compares a part of the evidence with the exact values.

    check       what must hold
    gradient    the mean gradient of the loss is that of E[score] - weight KL (15 directions, 5 standard errors)
    ratio       before the first update of a block every token's ratio to the policy that answered is 1
    drawn       the log-probabilities of answers are those of the enumeration, also in the block after an update
    score       every rollout has the score of its own answer
    kl          the mean log-ratio to the reference is the exact KL (5 standard errors), also after an update
    advantages  they are those of a plain computation in float64, finite, and 0 in groups without spread
    rows        the losses of micro-batches in another order, padded otherwise, are those of the whole block

    planted bug                                       found by
    log-probabilities off by one                      ratio gradient
    KL with the other sign                            gradient kl
    KL counted twice                                  gradient kl
    KL at each token alone                            gradient
    only the first answer as baseline                 gradient advantages
    leave-one-out over all answers                    gradient advantages
    doubled standard deviation                        advantages
    divided by the length                             gradient
    tokens of the padding                             ratio gradient
    dropout in the ratio                              ratio
    temperature left out of the loss                  drawn gradient
    padding whitened                                  advantages
    groups without spread                             advantages
    value at the next token                           gradient advantages
    advantages of another group                       gradient advantages
    reference that is the policy                      gradient kl
    tokens after the end                              drawn
    temperature left out of the sampler's numbers     drawn ratio
    top-p left in the sampler                         gradient
    stale log-probabilities                           drawn
    answers tokenised again                           drawn ratio
    tokenised again before their numbers              gradient
    the end left out of the answer                    drawn
    score of another answer                           score gradient
    columns of other rows                             rows
    reference updated along                           kl
    clipped on the other side                         TRL's numbers (test_grpo.py)
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor

from pipeline import policy, tasks
from pipeline.experience import rollouts
from pipeline.experience.rollouts import drawing
from pipeline.losses import grpo, ppo
from tests.losses import oracle
from tests.losses.evidence import WEIGHT, Case, failed
from tests.losses.world import World

RLOO = {
    "baseline": "leave_one_out", "standardise": False, "divisor": "constant",
    "kl": {"weight": WEIGHT, "form": "k1_in_reward"},
}  # fmt: skip
GAE_1 = {"gae_lambda": 1.0, "whiten": False, "kl_weight": WEIGHT}
QUICK = "ratio drawn score advantages rows"
"""The checks of a single block."""
CASES = {
    "rloo": Case("grpo", RLOO),
    "k2": Case("grpo", RLOO | {"kl": {"weight": 3 * WEIGHT, "form": "k2"}}, "gradient " + QUICK, kl_weight=3 * WEIGHT),
    "standardised": Case("grpo", RLOO | {"baseline": "group", "standardise": True}, QUICK),
    "even": Case("grpo", RLOO | {"standardise": True, "kl": {"weight": 0.0, "form": "k2"}}, "advantages"),
    "dropout": Case("grpo", RLOO, QUICK, dropout=0.3),
    "tempered": Case("grpo", RLOO, temperature=0.8),
    "long": Case("grpo", RLOO, temperature=0.8, blocks=40),
    "ppo": Case("ppo", GAE_1),
    "whitened": Case("ppo", GAE_1 | {"gae_lambda": 0.9, "whiten": True}, QUICK),
}


@pytest.mark.parametrize("name", [name for name in CASES if name != "long"])
def test_losses_agree_with_exact_values(name: str) -> None:
    """Gradients within their standard errors, everything else to rounding."""
    assert failed(CASES[name]) == set()


@pytest.mark.parametrize("form", ["k3", "k3_corrected"])
def test_kl_of_trl_has_a_biased_gradient_even_before_the_first_update(form: str) -> None:
    """What grpo.py says of these forms; also evidence that the check has the power to find a bias."""
    biased = Case("grpo", RLOO | {"kl": {"weight": 3 * WEIGHT, "form": form}}, kl_weight=3 * WEIGHT)
    assert failed(biased) == {"gradient"}


Change = Callable[..., Any]
"""(function, *its arguments) -> what a bug makes of it."""


class Bug(NamedTuple):
    """Functions of the real code with their changed versions, a case that runs them, and the checks that notice."""

    case: str
    found_by: str
    patches: tuple[tuple[Any, str, Change], ...]
    again: bool = True
    """Whether the draws are those of a sound run."""


def planted(bug: Bug, stack: ExitStack) -> None:
    """Replaces the functions until the stack is closed."""
    for owner, name, change in bug.patches:
        original = getattr(owner, name)

        def changed(*args: Any, original: Any = original, change: Change = change, **more: Any) -> Any:
            return change(original, *args, **more)

        stack.enter_context(mock.patch.object(owner, name, changed))


def shifted_targets(logprobs_of: Any, predictions: Any, temperature: float = 1.0) -> Tensor:
    return logprobs_of(predictions._replace(targets_N=predictions.targets_N.roll(1)), temperature)


def first_only(_of: Any, scores_E: Tensor, group_E: Tensor, *_: Any) -> Tensor:
    first_G = torch.stack([scores_E[group_E == group][0] for group in range(int(group_E.max()) + 1)])
    return scores_E - first_G[group_E]


def updated_along(columns: Any, loss: Any, model: Any, examples: Any) -> Any:
    made = columns(loss, model, examples)
    loss.reference.load_state_dict(model.state_dict())
    return made


def stale(with_logprobs: Any, experience: Any, model: Any, buffer: Any) -> Any:
    if not hasattr(experience, "first"):
        experience.first = copy.deepcopy(model)
    return with_logprobs(experience, experience.first, buffer)


def tokenised_again(
    rollout: Any, experience: Any, prompt: Any, ids: Any, logprobs: Any, ended: bool, group: int
) -> Any:
    letters = oracle.Letters()
    ids = tuple(letters.encode(letters.decode(ids))) + ((oracle.STOP,) if ended else ())
    return rollout(experience, prompt, ids, logprobs[: len(ids)], ended, group)


def without_end(rollout: Any, experience: Any, prompt: Any, ids: Any, logprobs: Any, ended: bool, group: int) -> Any:
    made = rollout(experience, prompt, ids, logprobs, ended, group)
    return made._replace(answer=ids[:-1], logprobs=logprobs[:-1]) if ended and len(ids) > 1 else made


def next_rows(batch_of: Any, model: Any, task: Any, examples: Any, rows: Any, columns: Any) -> Any:
    return batch_of(model, task, examples, rows, {name: column.roll(1, 0) for name, column in columns.items()})


BUGS = {
    "log-probabilities off by one": Bug("rloo", "ratio gradient", ((policy, "logprobs_of", shifted_targets),)),
    "KL with the other sign": Bug("rloo", "gradient kl", ((policy.Drawn, "log_ratios", lambda of, *a: -of(*a)),)),
    "KL counted twice": Bug("rloo", "gradient kl", ((policy.Drawn, "log_ratios", lambda of, *a: 2 * of(*a)),)),
    "KL at each token alone": Bug(
        "k2", "gradient", ((grpo, "_k2", lambda _, ratio_N, made: policy.sum_by_row(ratio_N.square(), made) / 2),)
    ),
    "only the first answer as baseline": Bug(
        "rloo", "gradient advantages", ((policy, "group_advantages", first_only),)
    ),
    "leave-one-out over all answers": Bug(
        "rloo", "gradient advantages",
        ((policy, "group_advantages", lambda of, s, g, b, *more: of(s, g, "group", *more)),),
    ),
    "doubled standard deviation": Bug(
        "standardised", "advantages", ((policy, "_deviations", lambda of, *a: 2 * of(*a)),)
    ),
    "divided by the length": Bug(
        "rloo", "gradient", ((grpo.GRPO, "_divisor", lambda _of, _loss, drawn: drawn.lengths_E.float()),)
    ),
    "tokens of the padding": Bug(
        "rloo", "ratio gradient", ((tasks, "padded", lambda of, rows, value: of(rows, max(value, 0))),)
    ),
    "dropout in the ratio": Bug("dropout", "ratio", ((policy, "without_dropout", lambda *_: nullcontext()),)),
    "temperature left out of the loss": Bug(
        "tempered", "drawn gradient", ((policy, "at_temperature", lambda _, made, _t: made),)
    ),
    "padding whitened": Bug(
        "whitened", "advantages", ((policy, "whitened", lambda of, x_ET, mask_ET: of(x_ET, mask_ET | True)),)
    ),
    "groups without spread": Bug(
        "even", "advantages",
        ((policy, "has_spread", lambda of, *a: of(*a) | True), (policy, "_deviations", lambda of, *a: of(*a) - 1e-4)),
    ),
    "value at the next token": Bug(
        "ppo", "gradient advantages", ((ppo.ValueModel, "forward", lambda of, *a: of(*a).roll(-1)),)
    ),
    "advantages of another group": Bug(
        "rloo", "gradient advantages", ((policy, "group_advantages", lambda of, *a: of(*a).roll(4)),)
    ),
    "reference that is the policy": Bug(
        "rloo", "gradient kl", ((policy, "require_reference", lambda _, learner, _name: learner.model),)
    ),
    "tokens after the end": Bug(
        "rloo", "drawn", ((drawing, "RowSettings", lambda of, *a, **k: of(*a, **k | {"stop": frozenset()})),), False
    ),
    "temperature left out of the sampler's numbers": Bug(
        "tempered", "drawn ratio", ((drawing, "engine_is_exact", lambda *_: True),), False
    ),
    "top-p left in the sampler": Bug(
        "rloo", "gradient", ((drawing, "RowSettings", lambda of, *a, **k: of(*a, **k | {"top_p": 0.8})),), False
    ),
    "stale log-probabilities": Bug("tempered", "drawn", ((rollouts.Rollouts, "_with_logprobs", stale),), False),
    "answers tokenised again": Bug(
        "rloo", "drawn ratio", ((rollouts.Rollouts, "_rollout", tokenised_again),), False
    ),
    "tokenised again before their numbers": Bug(
        "long", "gradient", ((rollouts.Rollouts, "_rollout", tokenised_again),), False
    ),
    "the end left out of the answer": Bug(
        "tempered", "drawn", ((rollouts.Rollouts, "_rollout", without_end),), False
    ),
    "score of another answer": Bug(
        "rloo", "score gradient", ((rollouts.Rollouts, "_scores", lambda of, *a: of(*a).roll(1)),)
    ),
    "columns of other rows": Bug("rloo", "rows", ((rollouts, "batch_of", next_rows),)),
    "reference updated along": Bug("rloo", "kl", ((grpo.GRPO, "columns", updated_along),)),
}  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_checks_find_a_planted_bug(name: str) -> None:
    """Each bug is a change of a real function; see the table at the top."""
    bug = BUGS[name]
    with ExitStack() as stack:
        planted(bug, stack)
        assert failed(CASES[bug.case], bug.found_by, bug.again) == set(bug.found_by.split())


def test_table_names_the_bugs_and_their_checks() -> None:
    assert __doc__ is not None
    for name, bug in BUGS.items():
        assert f"    {name:<50}{bug.found_by}\n" in __doc__


@pytest.mark.parametrize(("name", "updates", "share"), [("grpo", 1, 0.7), ("ppo", 4, 0.4)])
def test_training_reaches_a_share_of_the_best_value_under_kl(name: str, updates: int, share: float) -> None:
    """Of the gain in exact E[score] - weight KL that p = q exp(score / weight) / Z has: "the reward went up" would pass
    some of the bugs above.
    """
    kl = {"kl_weight": WEIGHT} if name == "ppo" else {"kl": {"weight": WEIGHT, "form": "k1_in_reward"}}
    start = oracle.policy(1, 2.5, n_layers=2, d_model=32, d_ff=64, head_dim=16)
    world = World(name, groups=16, samples=8, updates=updates, accumulate=1, start=start, **kl)
    before = oracle.exact(world.model, world.reference)
    for _ in world.trained(steps=90, rate=4e-3):
        pass
    after = oracle.exact(world.model.eval(), world.reference)
    best = oracle.best_value(world.reference, WEIGHT)
    gain = float(after.reward - WEIGHT * after.kl - before.reward)
    assert gain >= share * (best - float(before.reward))
