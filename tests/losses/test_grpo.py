"""GRPO: equal to TRL's losses on the same completions, and its rules for groups and rows."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from pipeline import answer_passes, policy
from pipeline.contracts import Rollout
from pipeline.errors import UserError
from pipeline.experience import batch_of
from pipeline.experience.rollouts.buffer import Buffer
from pipeline.losses.grpo import GRPO
from pipeline.model.gpt import GPT
from pipeline.model.hf_format import exported_name
from tests.losses import oracle, trl_grpo
from tests.losses.world import World, learner
from tests.models import network
from tests.variants import build

TRL = json.loads(Path(trl_grpo.__file__).with_suffix(".json").read_text(encoding="utf-8"))
DIVISORS = {"grpo": "sequence", "dapo": "tokens", "dr_grpo": "constant"}


def golden_model(phase: float) -> GPT:
    """The network of trl_grpo.py."""
    model = network("llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs = exported_name("llama", name)
            numbers = [trl_grpo.value(theirs, index, phase) for index in range(parameter.numel())]
            parameter.copy_(torch.tensor(numbers).view_as(parameter))
    return model


def golden_buffer(behaviour: list[list[float]], temperature: float) -> Buffer:
    """TRL's completions as a block."""
    rollouts = [
        Rollout({}, tuple(trl_grpo.PROMPTS[row // 4]), tuple(ids), tuple(behaviour[row]), "", ids[-1] == 0, row // 4)
        for row, ids in enumerate(trl_grpo.COMPLETIONS)
    ]
    return Buffer(0, rollouts, np.arange(8), torch.tensor(trl_grpo.REWARDS), temperature, trl_grpo.MAX_TOKENS)


@pytest.mark.parametrize("found", TRL, ids=lambda found: "-".join(map(str, found["case"])))
def test_grpo_equals_trl_on_the_same_completions(found: Any) -> None:
    """Loss to 1e-6, advantages and gradient: three divisors, clipping, k3, temperature."""
    (loss_type, scale, beta, form, high, temperature), model = found["case"], golden_model(0.0)
    loss = build(
        "losses", "grpo", learner(model, golden_model(0.3), 4), baseline="group",
        standardise=scale == "group", divisor=DIVISORS[loss_type],
        clip={"low": 0.2, "high": high}, kl={"weight": beta, "form": form},
    )  # fmt: skip
    buffer = golden_buffer(found["behaviour"], temperature)
    buffer.columns = loss.columns(model, buffer)
    batch = batch_of(model, oracle.task(), buffer, np.arange(8), buffer.all_columns)
    torch.testing.assert_close(batch["advantages"], torch.tensor(found["advantages"]), atol=1e-6, rtol=1e-6)
    value = loss.losses(model, batch).mean()
    assert float(value.detach()) == pytest.approx(found["loss"], abs=1e-6)
    value.backward()
    (name,) = (name for name, _ in model.named_parameters() if exported_name("llama", name) == trl_grpo.SHOWN)
    gradient = dict(model.named_parameters())[name].grad
    assert gradient is not None
    torch.testing.assert_close(gradient.flatten()[:8], torch.tensor(found["gradient"]), atol=1e-6, rtol=1e-5)
    assert float(gradient.norm()) == pytest.approx(found["gradient_norm"], rel=1e-5)


def world(**changes: Any) -> World:
    """A filled block of the oracle's world."""
    kl = {"kl": {"weight": 0.0, "form": "k1_in_reward"}}
    made = World("grpo", groups=4, samples=3, accumulate=1, **kl | changes)
    made.fill(0)
    return made


def gradients(model: GPT, losses_B: torch.Tensor) -> list[torch.Tensor]:
    """Of the mean loss; of every weight, or it fails."""
    return list(torch.autograd.grad(losses_B.mean(), list(model.parameters())))


def test_grpo_computes_no_row_without_advantage() -> None:
    """Their gradient is 0 whatever they are: lost otherwise is the time of every prompt that the model knows."""
    made = world()
    batch, seen = made.batch(), list[int]()
    predictions = answer_passes.predictions

    def spy(model: GPT, part: Any) -> Any:
        seen.append(len(part["inputs"]))
        return predictions(model, part)

    with mock.patch.object(answer_passes, "predictions", spy):
        found = made.loss.losses(made.model, batch)
    zeros = int((batch["advantages"] == 0).sum())
    assert zeros >= 3  # the prompt whose answers all have one score
    assert seen == [len(batch["advantages"]) - zeros]
    assert isinstance(made.loss, GRPO)
    every_row = made.loss._computed(made.model, batch)
    torch.testing.assert_close(found, every_row)
    for ours, theirs in zip(gradients(made.model, found), gradients(made.model, every_row), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_grpo_leaves_weights_as_they_are_when_no_row_has_an_advantage() -> None:
    """The gradient is 0, not missing and not NaN, so that the update is one like all others."""
    made = world()
    batch = made.batch()
    batch["advantages"] = torch.zeros_like(batch["advantages"])
    losses_B = made.loss.losses(made.model, batch)
    assert losses_B.tolist() == [0.0] * len(losses_B)
    assert all(float(g.abs().max()) == 0.0 for g in gradients(made.model, losses_B))


def test_grpo_tells_the_share_of_rows_with_an_advantage_and_the_kl() -> None:
    made = world(kl={"weight": 0.1, "form": "k2"})
    share = float((made.batch()["advantages"] != 0).float().mean())
    assert made.figures["rows_with_advantage"] == pytest.approx(share)
    assert 0 < share < 1
    assert made.figures["kl_nats"] > 0


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_held_out_gives_the_exact_kl_of_an_exact_sample(temperature: float) -> None:
    """All answers, each weighted by its probability: then the mean of the sums over steps is the KL itself."""
    made = world(kl={"weight": 0.3, "form": "k2"})
    exact = oracle.exact(made.model, made.reference, temperature)
    rows, weights = [], []
    for (prompt, answer), logprobs in exact.logprobs.items():
        rows.append(Rollout({}, prompt, answer, logprobs, "", answer[-1] == oracle.STOP, len(rows)))
        weights.append(math.exp(sum(logprobs)) / len(oracle.RECORDS))
    total = dict.fromkeys(("reward", "kl_nats", "answer_tokens", "ended_share", "loss"), 0.0)
    for row, weight in zip(rows, weights, strict=True):
        buffer = Buffer(0, [row], np.arange(1), torch.tensor([1.0]), temperature, oracle.MAX_TOKENS)
        buffer.columns = {"temperature": torch.tensor([temperature])}
        batch = batch_of(made.model, oracle.task(), buffer, np.arange(1), buffer.all_columns)
        found = made.loss.validate(made.model, [batch])
        assert found is not None
        total = {name: total[name] + weight * found[name] for name in total}
    assert total["kl_nats"] == pytest.approx(float(exact.kl), rel=1e-4)
    assert total["reward"] == pytest.approx(1.0, abs=1e-5)
    assert total["loss"] == pytest.approx(0.3 * float(exact.kl) - 1.0, rel=1e-4)
    assert total["answer_tokens"] == pytest.approx(sum(w * len(r.answer) for w, r in zip(weights, rows, strict=True)))


def test_columns_do_not_depend_on_the_rows_that_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of a large vocabulary is computed in parts, which must come back to their own rows."""
    made = world(kl={"weight": 0.1, "form": "k3"})
    whole = made.buffer.columns["reference_logprobs"]
    monkeypatch.setattr(policy, "_ROWS", (5, 5))
    parts = made.loss.columns(made.model, made.buffer)["reference_logprobs"]
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["grpo", "ppo"])
@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (None, "needs a reference model"),
        (lambda: network(vocab_size=9), "reference knows 9 tokens, the trained model 4"),
    ],
)
def test_rollout_losses_refuse_a_reference_that_does_not_fit(name: str, reference: Any, words: str) -> None:
    one = replace(learner(oracle.policy(), None, 4), reference=reference)
    with pytest.raises(UserError, match=words):
        build("losses", name, one)
