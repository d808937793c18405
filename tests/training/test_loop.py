"""The update is the unit: how it is split into micro-batches must change memory and time, not what is learned."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config.recipe import Schedule
from pipeline.contracts import Learner
from pipeline.losses.cross_entropy import CrossEntropy
from pipeline.ordering import Ordering
from pipeline.training.loop import Parts, _accumulate
from tests.learners import COMPUTE, chat_learner, classifier, records
from tests.variants import Variant, variants

WEIGHTINGS = variants("weighting")
N = 6


class InOrder(Ordering):
    """Micro-batch i holds the examples from i * size on."""

    def __init__(self, size: int) -> None:
        self.batch_size = size

    def rows(self, n: int, micro: int, seed: int) -> Any:
        import numpy as np

        first = micro * self.batch_size % n
        return np.arange(first, first + self.batch_size)


def gradients(learner: Learner, weighting: Any, accumulate: int) -> tuple[float, list[Tensor]]:
    """Loss and gradients of one update over all N examples."""
    schedule = Schedule(
        shape="constant", steps=1, warmup_steps=0, final_share=1.0, accumulate=accumulate, batch_warmup_steps=0,
        clip_norm=0.0,
    )  # fmt: skip
    model = learner.model.train()
    task: Any = learner.task
    parts = Parts(
        task=task, loss=CrossEntropy(task), ordering=InOrder(N // accumulate), weighting=weighting,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1), schedule=schedule, compute=COMPUTE, seed=1,
    )  # fmt: skip
    model.zero_grad()
    torch.manual_seed(3)
    loss, _ = _accumulate(model, parts, records(model, parts, learner.examples), 0, torch.device("cpu"))
    return float(loss), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("accumulate", [2, 3, 6])
@pytest.mark.parametrize("variant", WEIGHTINGS, ids=str)
def test_every_weighting_means_the_same_at_any_accumulation(variant: Variant, accumulate: int) -> None:
    """Normalised within a micro-batch, class weights were 41 % off at one example a micro-batch."""
    learner = classifier()
    whole, expected = gradients(learner, variant.build(learner), 1)
    split, found = gradients(learner, variant.build(learner), accumulate)
    assert split == pytest.approx(whole, rel=1e-5)
    scale = max(float(g.abs().max()) for g in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) < (1e-6 if variant.name != "reweight" else 1e-4) * max(1.0, scale)


def test_an_update_whose_weights_are_all_zero_has_no_gradient() -> None:
    """A division by the sum of the weights would make every weight of the model NaN."""
    from pipeline.weighting import Weighting

    class Nothing(Weighting):
        def weights(self, losses_B: Tensor, _batch: Any) -> Tensor:
            return torch.zeros_like(losses_B)

    for accumulate in (1, 3):
        loss, found = gradients(classifier(), Nothing(), accumulate)
        assert loss == 0.0
        assert all(float(g.abs().max()) == 0.0 for g in found)


def test_answers_of_different_lengths_mean_the_same_at_any_accumulation() -> None:
    learner = chat_learner()
    rows = [0, 1] * 3
    examples: Any = [learner.examples[i] for i in rows]
    learner = Learner(learner.model, learner.task, examples, COMPUTE, learner.tokenizer)
    uniform = next(v for v in WEIGHTINGS if v.name == "uniform")
    whole, expected = gradients(learner, uniform.build(learner), 1)
    split, found = gradients(learner, uniform.build(learner), 6)
    assert split == pytest.approx(whole, rel=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
