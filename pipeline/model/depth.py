"""A smaller model to start from: some of the blocks of a larger one, evenly spaced (DistilBERT: Sanh et al. 2019,
section 3, takes every other layer).
"""

from torch import nn

from pipeline.errors import UserError
from pipeline.model.gpt import GPT


def cut(model: GPT, depth: int) -> GPT:
    """The model with `depth` of its blocks, first and last among them; embeddings and heads stay.

    Raises:
        UserError: more blocks than there are.
    """
    count = model.config.n_layers
    if depth > count:
        raise UserError(f"params.yaml: depth is {depth}, the model it starts from has {count} blocks; lower it")
    kept = [round(i * (count - 1) / max(1, depth - 1)) for i in range(depth)]
    model.blocks = nn.ModuleList(model.blocks[i] for i in kept)
    for layer, block in enumerate(model.blocks):
        block.attention.layer = layer  # type: ignore[union-attr,assignment]  # a Block, which ModuleList forgets
    model.config = model.config.model_copy(update={"n_layers": depth})
    return model
