"""What else is asked of the model while it learns its objective. Each file is one auxiliary loss.

`build(settings, learner) -> losses(model, batch) -> losses_B`: what training minimises, one per example, with the
objective's own part. Validation looks at the objective alone, so runs with and without an auxiliary loss compare.
"""

from collections.abc import Callable

from torch import Tensor

from pipeline.contracts import Batch
from pipeline.model.gpt import GPT

Losses = Callable[[GPT, Batch], Tensor]
