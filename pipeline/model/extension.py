"""Rows of the embeddings and the head for tokens that `tokenize.method: extend` added to a model's vocabulary.

A new token starts from the mean of the rows of the old tokens that it is made of, so a text of old tokens is read as
before and a new token is read as something between its parts (the usual start of vocabulary extension; Hewitt 2021,
"Initializing New Word Embeddings for Pretrained Language Models", takes the mean over all tokens).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel


@torch.no_grad()
def extend(model: GPT, parts: Mapping[int, Sequence[int]], where: str = "params.yaml: pretrain.start") -> GPT:
    """The model itself, with rows for new ids; a vocabulary that the model has rows for already is kept as large.

    Args:
        model: in place; it has the old vocabulary.
        parts: new id -> old ids.
        where: setting that names the model, for errors.

    Raises:
        UserError: the model has no rows for the old ids, so the vocabulary is that of another model.
    """
    if not parts:
        return model
    old = min(parts)
    if model.config.vocab_size < old:
        raise UserError(
            f"{where}: the model has {model.config.vocab_size} token embeddings, and the vocabulary that tokenize.path "
            f"extends has {old} ids; expected tokenize.path to be the folder of this model"
        )
    size = max(model.config.vocab_size, max(parts) + 1)
    if isinstance(model, LibraryModel):
        model.net.resize_token_embeddings(size, mean_resizing=False)
    else:
        _grow(model, size)
    model.config = model.config.model_copy(update={"vocab_size": size})
    head = model.head
    weights = {id(weight): weight for weight in (model.embed.weight, *(head.parameters() if head is not None else ()))}
    for weight in weights.values():
        _set_means(weight, parts)
    return model


def _grow(model: GPT, size: int) -> None:
    """Larger tables with the old rows at their start; new rows are zero until they are set."""
    tied = model.head is not None and model.head.weight is model.embed.weight
    model.embed.weight = _longer(model.embed.weight, size)
    model.embed.num_embeddings = size
    if model.head is not None:
        model.head.weight = model.embed.weight if tied else _longer(model.head.weight, size)
        model.head.out_features = size


def _longer(weight: Tensor, size: int) -> nn.Parameter:
    longer = weight.new_zeros(size, weight.shape[1])
    longer[: len(weight)] = weight
    return nn.Parameter(longer, requires_grad=weight.requires_grad)


def _set_means(weight: Tensor, parts: Mapping[int, Sequence[int]]) -> None:
    """Sets the rows of new ids to the mean of their parts' rows, [V, D] or a bias [V]."""
    for number, old in parts.items():
        weight[number] = weight[torch.tensor(list(old), device=weight.device)].float().mean(0).to(weight.dtype)
