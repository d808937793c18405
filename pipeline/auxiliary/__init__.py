"""Auxiliary losses added to the objective. Each file is one: `build(settings, learner) -> Losses`.

`losses(model, batch) -> losses_B` is minimised in training and includes the objective's own loss. Validation computes
only the objective, so runs with and without an auxiliary loss can be compared.
"""

from collections.abc import Callable

from torch import Tensor

from pipeline.contracts import Batch
from pipeline.model.gpt import GPT

Losses = Callable[[GPT, Batch], Tensor]
"""(model, batch) -> losses_B in nats."""
