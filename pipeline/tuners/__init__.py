"""WHICH weights move. Each file is one tuner; this one holds what they share."""

from typing import Any

from torch import nn


def moving(model: nn.Module, factor: float = 1.0) -> dict[str, Any]:
    """All weights that may move as one optimizer group: `params`, their `names`, the learning-rate `factor`."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {"params": [p for _, p in named], "names": [name for name, _ in named], "factor": factor}
