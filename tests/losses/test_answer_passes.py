"""Passes over answers that share prompts: the numbers of rows of their own."""

from unittest import mock

import pytest
import torch

from pipeline import answer_passes
from pipeline.contracts import Batch
from pipeline.model.gpt import GPT
from pipeline.tasks import IGNORED, padded, predicted_tokens
from tests.models import network

ANSWERS = [
    ([5, 9, 3, 7, 8, 8], [1, 2, 3]), ([4, 4], [6]), ([5, 9, 3, 7, 8, 8], [1]), ([5, 9, 3, 7, 8, 8], [2, 2, 2, 2, 2, 0]),
    ([11, 12, 13, 14, 15], [1, 1]), ([5, 9, 3, 7, 8, 8], [1, 2, 3]), ([11, 12, 13, 14, 15], [9, 3, 0]),
]  # fmt: skip
"""Groups that are not consecutive, a prompt of one answer, and two equal answers."""


def batch_of(answers: list[tuple[list[int], list[int]]]) -> Batch:
    """As collate makes it."""
    return {
        "inputs": padded([[*prompt, *answer][:-1] for prompt, answer in answers], 1),
        "targets": padded([[*[IGNORED] * len(prompt), *answer][1:] for prompt, answer in answers], IGNORED),
    }


def gradients(model: GPT, scores_NC: torch.Tensor) -> list[torch.Tensor]:
    chosen = [p for p in model.parameters() if p.requires_grad]
    return list(torch.autograd.grad(scores_NC.square().mean(), chosen))


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen3", "nanochat"])
def test_predictions_equal_those_of_rows_of_their_own(family: str) -> None:
    """Scores, order and gradients; mistral's window ends within the prompt."""
    model, batch = network(family).train(), batch_of(ANSWERS)
    expected, seen = predicted_tokens(model, batch), list[int]()
    hidden = model.hidden
    with mock.patch.object(
        model, "hidden", lambda ids_BT, **more: (seen.append(ids_BT.numel()), hidden(ids_BT, **more))[1]
    ):
        found = answer_passes.predictions(model, batch)
    assert sum(seen) < batch["inputs"].numel() * 0.8  # prompts are shared
    assert found.targets_N.tolist() == expected.targets_N.tolist()
    assert found.rows_N.tolist() == expected.rows_N.tolist()
    torch.testing.assert_close(found.scores_NC, expected.scores_NC, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(gradients(model, found.scores_NC), gradients(model, expected.scores_NC), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("answers", [ANSWERS[:2], ANSWERS[:1]])
def test_predictions_without_a_shared_prompt_are_those_of_the_task(answers: list[tuple[list[int], list[int]]]) -> None:
    """To the bit: no mask, no other order."""
    model, batch = network("llama"), batch_of(answers)
    assert torch.equal(answer_passes.predictions(model, batch).scores_NC, predicted_tokens(model, batch).scores_NC)
