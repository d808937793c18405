"""Models as if they had been fine-tuned."""

import copy

import torch

from pipeline.model.gpt import GPT


def weights_of(model: GPT) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def fine_tuned(model: GPT, seed: int, only: str = "") -> GPT:
    """A copy with noise added to the weights whose name contains `only`, as if it had been fine-tuned."""
    tuned, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if only in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return tuned
