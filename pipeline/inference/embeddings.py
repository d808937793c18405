"""Embeddings of texts: one vector a text from a model's last hidden states, for search, clustering and nearest
neighbours.

    embedder = Embedder(Path("models/base"))
    vectors_ND = embedder.embed(["a text", "another text"])       numpy, float32, rows of length 1
    scores_NN = vectors_ND @ vectors_ND.T                         cosine similarities

A text is read as the folder's tokenizer gives it to transformers: with the tokens before and after it that the task or
the vocabulary has ([CLS], [SEP]), and cut at its end. Pooling is the mean over all of these tokens, the last or the
first one (Reimers & Gurevych 2019, "Sentence-BERT", section 3); a folder of sentence-transformers brings its own
choice. The numbers equal those of sentence-transformers on the same folder. A vector does not depend on the other
texts: padding is masked, and not pooled.

Shapes: N texts, B texts of a batch, T tokens, D model width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline import files
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.prompts import spec as specs
from pipeline.tasks import padded
from pipeline.tokenizer import Tokenizer, export

Pooling = Literal["mean", "last", "first"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
"""mean: over all tokens; last: the last token, which of a causal model has read all; first: [CLS] of an encoder."""
_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_cls_token": "first",
}
_BATCH_SIZE = 32


class Embedder:
    """A loaded model folder that gives vectors.

    Attributes:
        pooling: how the states of a text become one vector.
        max_tokens: longest text in tokens, those around it included; of a longer one the end is left out.
        width: D.
    """

    def __init__(self, folder: Path, pooling: Pooling | None = None, device: str = "cpu") -> None:
        """Loads the folder.

        Args:
            folder: of a model, ours or one of transformers or sentence-transformers.
            pooling: None: the folder's own choice, else the mean.
            device: of the model.

        Raises:
            UserError: a folder that is not whole, a pooling that is not here, or an encoder-decoder.
        """
        self._model = checkpoint.load(folder, device)  # before other files: it compares all with the manifest
        if getattr(self._model, "architecture", "decoder") == "encoder_decoder":
            raise UserError(
                f"{folder}: an encoder-decoder ({self._model.config.family}) answers prompts and gives no embedding of "
                "a text here; use an encoder or a decoder"
            )
        self._tokenizer, self._device = Tokenizer.load(folder), device
        self.pooling: Pooling = pooling or _pooling_of(folder)
        task = specs.read(folder)[0].within(self._model.room())
        around = export.describe(self._tokenizer, task.model_dump(exclude_none=True), self._model.room())
        self._before, self._after = _around(folder, self._tokenizer, around)
        self.max_tokens = min(self._model.room(), _limit_of(folder) or self._model.room())
        self.width = self._model.config.d_model

    def ids(self, text: str) -> list[int]:
        """Token ids of a text as the model reads it."""
        room = max(0, self.max_tokens - len(self._before) - len(self._after))
        return [*self._before, *self._tokenizer.encode(text)[:room], *self._after]

    def embed(
        self, texts: Sequence[str], normalise: bool = True, batch_size: int = _BATCH_SIZE
    ) -> npt.NDArray[np.float32]:
        """vectors_ND in the order of the texts; texts of like length share a batch.

        Args:
            texts: of any length; one without a token (an empty text without tokens around it) gets zeros.
            normalise: to length 1, so that a product is the cosine similarity.
            batch_size: texts computed together; the vectors do not depend on it beyond rounding.
        """
        rows = [self.ids(text) for text in texts]
        order = sorted((i for i in range(len(rows)) if rows[i]), key=lambda i: len(rows[i]))
        vectors_ND = np.zeros((len(rows), self.width), np.float32)
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            pooled_BD = self._pooled([rows[i] for i in part])
            vectors_ND[part] = (F.normalize(pooled_BD, dim=1) if normalise else pooled_BD).cpu().numpy()
        return vectors_ND

    @torch.no_grad()
    def _pooled(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """pooled_BD of a batch, float32."""
        inputs_BT = padded(rows, self._tokenizer.pad).to(self._device)
        lengths_B = torch.tensor([len(row) for row in rows], device=self._device)
        return pooled(self._model, inputs_BT, lengths_B, self.pooling)


def pooled(model: GPT, inputs_BT: Tensor, lengths_B: Tensor, pooling: Pooling) -> Tensor:
    """pooled_BD of texts that are padded on the right, float32.

    Args:
        model: in evaluation mode.
        inputs_BT: token ids.
        lengths_B: tokens of each text, at least 1.
        pooling: how states become one vector.
    """
    mask_BT = torch.arange(inputs_BT.shape[1], device=inputs_BT.device) < lengths_B[:, None]
    states_BTD = model.hidden(inputs_BT, mask=mask_BT).float()
    if pooling == "first":
        return states_BTD[:, 0]
    if pooling == "last":
        return states_BTD[torch.arange(len(states_BTD), device=inputs_BT.device), lengths_B - 1]
    return states_BTD.masked_fill(~mask_BT[:, :, None], 0.0).sum(1) / lengths_B[:, None]


def _around(
    folder: Path, tokenizer: Tokenizer, input_format: export.InputFormat
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids before and after a text: of the vocabulary in a folder of others, of the task in one of ours."""
    if not (folder / specs.FILE).is_file():
        return tokenizer.text_prefix, tokenizer.text_suffix
    return input_format.before, input_format.after


def _pooling_of(folder: Path) -> Pooling:
    """The pooling of a folder of sentence-transformers; the mean without one. Raises UserError for another."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    config = files.read_json(path)
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(on) != 1 or on[0] not in _MODES:
        raise UserError(f"{path}: pools by {', '.join(on) or 'nothing'}; one of: {', '.join(_MODES)}; choose --pooling")
    return _MODES[on[0]]


def _limit_of(folder: Path) -> int | None:
    """The longest text in tokens of a folder of sentence-transformers; None without one."""
    path = folder / "sentence_bert_config.json"
    limit = files.read_json(path).get("max_seq_length") if path.is_file() else None
    return limit if isinstance(limit, int) and limit > 2 else None
