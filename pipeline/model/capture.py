"""Hidden states and attention weights recorded during a forward pass, for losses and measures that read them."""

from collections.abc import Collection

from torch import Tensor


class Capture:
    """Layers to record, and their values after the pass: `with model.capturing(Capture(hidden=[2])) as captured`.

    While it is active every position of the batch is computed, padding too, so that values have the batch's shape.

    Args:
        hidden: layers whose hidden states to record: 0 the embeddings, n the output of block n, n_layers that of the
            final norm.
        attentions: blocks, counted from 0, whose attention weights to record; these blocks run a slower attention.
    """

    def __init__(self, hidden: Collection[int] = (), attentions: Collection[int] = ()) -> None:
        self.hidden_layers, self.attention_layers = frozenset(hidden), frozenset(attentions)
        self.hidden: dict[int, Tensor] = {}
        """Layer -> [B, T, D]."""
        self.attentions: dict[int, Tensor] = {}
        """Block -> [B, H, T, S] attention weights, rows that sum to 1."""

    def record_hidden(self, layer: int, x_BTD: Tensor) -> None:
        """Records the hidden states of a layer, if it is among the layers to record."""
        if layer in self.hidden_layers:
            self.hidden[layer] = x_BTD
