"""Layer dropping: a smaller model to start from, made of some blocks of a larger one (DistilBERT: Sanh et al. 2019,
section 3, takes every other layer).
"""

from torch import nn

from pipeline.errors import UserError
from pipeline.model.gpt import GPT, Block
from pipeline.model.library import LibraryModel


def keep_layers(model: GPT, depth: int) -> GPT:
    """The model with `depth` of its blocks, evenly spaced, first and last among them; embeddings and heads stay.

    Raises:
        UserError: more blocks than there are.
    """
    if isinstance(model, LibraryModel):
        raise UserError(
            f"params.yaml: depth is {depth}, and a {model.config.family} model is computed by transformers, whose "
            "blocks are not dropped here; set it to null"
        )
    count = model.config.n_layers
    if depth > count:
        raise UserError(f"params.yaml: depth is {depth}, the model it starts from has {count} blocks; lower it")
    kept = [round(i * (count - 1) / max(1, depth - 1)) for i in range(depth)]
    model.blocks = nn.ModuleList(model.blocks[i] for i in kept)
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        block.attention.layer = layer
    model.config = model.config.model_copy(update={"n_layers": depth})
    return model
