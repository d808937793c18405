"""Tuner gradual: layers are unfrozen from the top, each with a smaller learning rate than the one above."""

import pytest
import torch

from pipeline.config.recipe import Compute, Schedule
from pipeline.losses.cross_entropy import CrossEntropy
from pipeline.optimizers import adamw
from pipeline.ordering import shuffled
from pipeline.training.loop import Parts, fit
from pipeline.tuners.gradual import Settings, build
from pipeline.weighting.uniform import Uniform
from tests.learners import records
from tests.models import network

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)
SCHEDULE = Schedule(
    shape="constant", steps=8, warmup_steps=0, final_share=1.0, accumulate=1, batch_warmup_steps=0, clip_norm=1.0
)  # fmt: skip


class NextToken:
    """The part of a task that the training loop calls."""

    def collate(self, examples):
        rows = torch.tensor(examples)
        return {"inputs": rows[:, :-1], "targets": rows[:, 1:]}

    def losses(self, model, batch):
        logits = model(batch["inputs"])
        return torch.nn.functional.cross_entropy(logits.mT, batch["targets"], reduction="none").mean(1)


@pytest.mark.parametrize("tied", [False, True])
def test_gradual_unfreezes_one_layer_after_the_other_from_the_top(tied: bool) -> None:
    """Lost otherwise: gradual would be full fine-tuning under another name."""
    model = network("llama", n_layers=2, tie_embeddings=tied)
    tuner = build(Settings(unfrozen_after=0.75, rate_divisor=2.0))
    tuner.apply(model, torch.Generator(), list)
    groups = tuner.groups(model)
    # heads and norm, block 1, block 0, embeddings (with the tied head): at steps 0, 2, 4 and 6 of 8
    assert [group["begins"] for group in groups] == [0.0, 0.25, 0.5, 0.75]
    assert [group["factor"] for group in groups] == [1.0, 0.5, 0.25, 0.125]
    in_groups = [id(p) for group in groups for p in group["params"]]
    assert sorted(in_groups) == sorted(id(p) for p in model.parameters())
    settings = adamw.Settings(learning_rate=0.01, weight_decay=0.1, beta1=0.9, beta2=0.95, epsilon=1e-8)
    parts = Parts(
        NextToken(), CrossEntropy(NextToken()), shuffled.Shuffled(2), Uniform(),
        adamw.build(settings, groups), SCHEDULE, COMPUTE, seed=1,
    )  # fmt: skip
    examples = [[(7 * i + j) % 30 for j in range(9)] for i in range(6)]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    moved: dict[str, int] = {}
    for step in fit(model, parts, records(model, parts, examples)):
        for name, p in model.named_parameters():
            assert p.requires_grad
            if name not in moved and not torch.equal(before[name], p):
                moved[name] = step.number - 1
    first = {"final_norm": 0, "blocks.1": 2, "blocks.0": 4, "embed": 6, "head": 6 if tied else 0}
    assert moved == {name: first[next(key for key in first if name.startswith(key))] for name in before}


def test_gradual_trains_all_layers_from_the_start_when_unfrozen_after_is_zero() -> None:
    """The paper's discriminative fine-tuning alone."""
    model = network("gpt2", labels=2)
    groups = build(Settings(unfrozen_after=0.0, rate_divisor=2.6)).groups(model)
    assert {group["begins"] for group in groups} == {0.0}
    assert groups[1]["factor"] == pytest.approx(1 / 2.6)
