"""GRPO: equal to TRL's losses on the same completions, and its rules for groups and rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contracts import Rollout
from pipeline.experience import batch_of
from pipeline.experience.rollouts.buffer import Buffer
from pipeline.model.gpt import GPT
from pipeline.model.hf_format import exported_name
from tests.losses import oracle, trl_grpo
from tests.losses.world import learner
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
