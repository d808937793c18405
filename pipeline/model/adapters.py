"""Adapters that do not merge into the weights; a model folder keeps them in `adapter/`.

A learned prefix (keys and values before every text), a soft prompt (embeddings before every text) and bottleneck
adapters (a small network after a projection). Tuners train and save them, `attach` adds them to a model that is read
from its folder, and `GPT` applies them, so adapters are transparent to the model's callers. LoRA and IA3 merge into the
weights (pipeline/tuners).

Shapes: P virtual tokens, L layers, G key-value heads, K head_dim, D d_model.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import foreign
from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown, whole
from pipeline.model.cache import KeyValue, KVRecorder

if TYPE_CHECKING:
    from pipeline.model.gpt import GPT

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
ADDED = ("PREFIX_TUNING", "PROMPT_TUNING", "BOTTLENECK")
"""Types of adapters that stay beside the weights (`peft_type` in the config)."""


class VirtualTokens(nn.Module, ABC):
    """Trained virtual tokens before every text."""

    length: int
    """Their number."""

    @abstractmethod
    def key_values(self, model: "GPT") -> list[KeyValue]:
        """Keys and values of every layer, each [1, G, P, K]."""


class LearnedPrefix(VirtualTokens):
    """Virtual tokens as keys and values, flat as peft stores them: [P, 2 L G K] (Li & Liang 2021, section 4.2)."""

    def __init__(self, flat_PX: Tensor) -> None:
        super().__init__()
        self.length = flat_PX.shape[0]
        self.flat = nn.Parameter(flat_PX)

    def key_values(self, model: "GPT") -> list[KeyValue]:
        """Splits the flat rows by layer, key or value, and head."""
        return unflattened(self.flat, model)


class SoftPrompt(VirtualTokens):
    """Virtual tokens as trained embeddings: [P, D] (Lester et al. 2021, section 2).

    They come first and attention is causal, so their keys and values do not depend on the text: one pass serves all
    texts of a batch.
    """

    def __init__(self, embeddings_PD: Tensor) -> None:
        super().__init__()
        self.length = embeddings_PD.shape[0]
        self.embeddings = nn.Parameter(embeddings_PD)

    def key_values(self, model: "GPT") -> list[KeyValue]:
        """Keys and values from one pass over the virtual tokens only."""
        recorder = KVRecorder()
        model.hidden(embeddings_BTD=self.embeddings[None], cache=recorder)
        return recorder.layers


class Bottleneck(nn.Module):
    """A projection followed by a bottleneck adapter: y + W_up gelu(W_down y) (Houlsby et al. 2019, figure 2)."""

    def __init__(self, base: nn.Linear, width: int) -> None:
        super().__init__()
        device = base.weight.device
        self.base = base
        self.narrow = nn.Parameter(torch.zeros(width, base.out_features, device=device))
        self.wide = nn.Parameter(torch.zeros(base.out_features, width, device=device))

    @property
    def weight(self) -> Tensor:
        """The projection's own weight; some networks of transformers look at its type."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        y: Tensor = self.base(x)
        return y + F.linear(F.gelu(F.linear(y, self.narrow)), self.wide)


def unflattened(flat_PX: Tensor, model: "GPT") -> list[KeyValue]:
    """[P, 2 L G K] -> per layer keys and values [1, G, P, K]; peft's order: layer, key or value, head."""
    shape = model.config
    parts = flat_PX.view(len(flat_PX), shape.n_layers, 2, shape.n_kv_heads, shape.head_dim).permute(1, 2, 3, 0, 4)
    return [(layer[0][None], layer[1][None]) for layer in parts]


def sites(model: "GPT") -> list[str]:
    """Names of the projections that get a bottleneck: the last one of attention and of the MLP, in every block."""
    if isinstance(own := getattr(model, "last_projections", None), list):
        return own
    return [f"blocks.{i}.{part}" for i in range(model.config.n_layers) for part in ("attention.out", "mlp.down")]


def insert_bottlenecks(model: "GPT", width: int) -> dict[str, Bottleneck]:
    """Adds one after each of `sites`; their weights are zero, so the model computes the same as before."""
    bottlenecks = {}
    for site in sites(model):
        base = model.get_submodule(site)
        assert isinstance(base, nn.Linear)
        bottlenecks[site] = Bottleneck(base, width)
        replace_module(model, site, bottlenecks[site])
    return bottlenecks


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replaces the submodule called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def has_additions(model: "GPT") -> bool:
    """Whether the model has adapters of this file, which do not merge into its weights."""
    return model.virtual is not None or any(isinstance(module, Bottleneck) for module in model.modules())


def attach(model: "GPT", folder: Path) -> None:
    """Adds the adapter in `folder` to the model; nothing for kinds that were merged into the weights.

    Raises:
        UserError: tensors that do not fit the model.
    """
    if not (folder / CONFIG).is_file():
        return
    config = foreign.read_object(folder / CONFIG)
    kind = config.get("peft_type")
    if kind not in ADDED:
        if not isinstance(kind, str | None):
            raise UserError(f"{folder / CONFIG}: peft_type is {shown(kind)}, expected a name such as LORA; {AGAIN}")
        return
    from pipeline.model.weights import headers, read_tensors, require_floats

    # by the header: a file that does not fit is refused before memory is taken
    header_of = headers(folder / TENSORS)
    require_floats(header_of, folder / TENSORS)
    # `base_model.` tensors are the classification head, which is among the model's own weights as well
    shapes = {name: header.shape for name, header in header_of.items() if not name.startswith("base_model.")}
    if kind == "BOTTLENECK":
        width = whole(config.get("width"), f"{folder / CONFIG}: width", 1 << 20)
        _check(folder, shapes, _bottleneck_shapes(model, width))
        tensors = read_tensors(folder / TENSORS)
        for site, bottleneck in insert_bottlenecks(model, width).items():
            for part in ("narrow", "wide"):
                getattr(bottleneck, part).data.copy_(tensors[f"{site}.{part}"])
        return
    own = model.config
    rows = whole(config.get("num_virtual_tokens"), f"{folder / CONFIG}: num_virtual_tokens", own.context_length)
    width = own.d_model if kind == "PROMPT_TUNING" else 2 * own.n_layers * own.n_kv_heads * own.head_dim
    _check(folder, shapes, {"prompt_embeddings": (rows, width)})
    value = read_tensors(folder / TENSORS)["prompt_embeddings"].to(torch.float32)
    model.virtual = SoftPrompt(value) if kind == "PROMPT_TUNING" else LearnedPrefix(value)


def _bottleneck_shapes(model: "GPT", width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for site in sites(model):
        base = model.get_submodule(site)
        assert isinstance(base, nn.Linear)
        shapes |= {f"{site}.narrow": (width, base.out_features), f"{site}.wide": (base.out_features, width)}
    return shapes


def _check(folder: Path, shapes: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    if odd := sorted(expected.keys() ^ shapes.keys()):
        raise UserError(
            f"{folder / TENSORS}: {shown(odd[0])} is missing or has no place in this model; use the base model the "
            "adapter was made for"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise UserError(
                f"{folder / TENSORS}: {name} has shape {shapes[name]}, this model needs {shape}; use the base model "
                "the adapter was made for"
            )
