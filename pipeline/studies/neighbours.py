"""Nearest neighbours on embeddings: a model's mean hidden state of a text, normalised, and the labels of the nearest.

Nothing is trained. The embedding of a text is the mean over its tokens (Reimers and Gurevych 2019, section 3). A text
gets the label with the largest sum of cosine similarities among its k nearest training texts; an instruction gets the
answer of its nearest training instruction.

Shapes: N texts, M training texts, B texts of a batch, T tokens, D model width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.prompts.vocabulary import without_middle
from pipeline.tokenizer import Tokenizer

NEIGHBOURS = (1, 3, 5, 9, 15)
"""Values of k that are tried on the validation split."""
_BATCH = 32


@torch.no_grad()
def embeddings(model: GPT, tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> Tensor:
    """Mean last hidden states of length 1, [N, D], float32 on the CPU.

    Args:
        model: in evaluation mode.
        tokenizer: its vocabulary.
        texts: at least one; of a longer one than `limit` tokens the middle is left out.
        limit: tokens, those around the text included.

    Raises:
        UserError: an encoder-decoder.
    """
    if isinstance(model, LibraryModel) and model.architecture == "encoder_decoder":
        raise UserError("an encoder-decoder has no embedding of a single text here")
    before, after = tokenizer.text_prefix, tokenizer.text_suffix
    room = max(1, limit - len(before) - len(after))
    rows = [[*before, *without_middle(ids.tolist(), room), *after] for ids in tokenizer.encode_batch(list(texts))]
    rows = [row or [tokenizer.end_of_text] for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    vectors_ND = torch.zeros(len(rows), model.config.d_model)
    device = model.embed.weight.device
    for first in range(0, len(rows), _BATCH):
        part = order[first : first + _BATCH]
        longest = max(len(rows[i]) for i in part)
        ids_BT = torch.tensor([[*rows[i], *[tokenizer.pad] * (longest - len(rows[i]))] for i in part], device=device)
        lengths_B = torch.tensor([len(rows[i]) for i in part], device=device)
        mask_BT = torch.arange(longest, device=device) < lengths_B[:, None]
        x_BTD = model.hidden(ids_BT, mask=mask_BT if isinstance(model, LibraryModel) else None)
        means_BD = (x_BTD * mask_BT[:, :, None]).sum(1) / lengths_B[:, None]
        vectors_ND[part] = torch.nn.functional.normalize(means_BD.float(), dim=-1).cpu()
    return vectors_ND


def nearest(queries_ND: Tensor, known_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities and rows of the k nearest, each [N, k], the nearest first; fewer where M < k."""
    return (queries_ND @ known_MD.T).topk(min(k, len(known_MD)), dim=1)


def voted(queries_ND: Tensor, known_MD: Tensor, labels: Sequence[str], k: int) -> list[str]:
    """The label of each query by its k nearest; of equal sums the label that comes first by name."""
    names = sorted(set(labels))
    index_M = torch.tensor([names.index(label) for label in labels])
    similarities_NK, rows_NK = nearest(queries_ND, known_MD, k)
    sums_NC = torch.zeros(len(queries_ND), len(names)).scatter_add(1, index_M[rows_NK], similarities_NK.clamp(min=0))
    return [names[i] for i in sums_NC.argmax(1).tolist()]
