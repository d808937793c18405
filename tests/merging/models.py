"""Models as if tuned, and settings that take both of them whole."""

import copy
from typing import Any

import torch

from pipeline.model.gpt import GPT

WHOLE: dict[str, dict[str, Any]] = {"linear": {"scales": [1.0, 1.0]}, "ties": {"density": 1.0, "scale": 1.0}}


def weights_of(model: GPT) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def moved(model: GPT, seed: int, only: str = "") -> GPT:
    """A copy as if tuned: its weights whose name holds `only` have moved."""
    found, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if only in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return found
