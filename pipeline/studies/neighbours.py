"""Nearest neighbours on embeddings: the labels, or the answer, of the most similar training texts.

Nothing is trained. A text gets the label with the largest sum of cosine similarities among its k nearest training
texts; an instruction gets the answer of its nearest training instruction.

Shapes: N texts, M training texts, K neighbours, D model width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

NEIGHBOURS = (1, 3, 5, 9, 15)
"""Values of k that are tried on the validation split."""


def nearest(queries_ND: Tensor, known_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities and rows of the k nearest of vectors of length 1, each [N, K], the nearest first; K <= M."""
    similarities_NK, rows_NK = (queries_ND @ known_MD.T).topk(min(k, len(known_MD)), dim=1)
    return similarities_NK, rows_NK


def voted(queries_ND: Tensor, known_MD: Tensor, labels: Sequence[str], k: int) -> list[str]:
    """The label of each query by its k nearest; of equal sums the label that comes first by name."""
    names = sorted(set(labels))
    index_M = torch.tensor([names.index(label) for label in labels])
    similarities_NK, rows_NK = nearest(queries_ND, known_MD, k)
    sums_NC = torch.zeros(len(queries_ND), len(names)).scatter_add(1, index_M[rows_NK], similarities_NK.clamp(min=0))
    return [names[i] for i in sums_NC.argmax(1).tolist()]
