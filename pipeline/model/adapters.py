"""Trained additions that no plain weight can hold: they stay beside the model, in its folder's `adapter/`.

A learned prefix (keys and values before every text), a soft prompt (embeddings before every text) and bottleneck
adapters (a small network behind a projection). `GPT` runs them; tuners make and save them; `attach` puts them back when
a model folder is read, so that scoring, serving and chatting know nothing of them. LoRA and IA3 merge into weights and
are not here.

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
from pipeline.model.cache import KeyValue, Recorder

if TYPE_CHECKING:
    from pipeline.model.gpt import GPT

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


class Virtual(nn.Module, ABC):
    """What stands before every text: virtual tokens. Their number is `length`."""

    length: int

    @abstractmethod
    def before(self, model: "GPT") -> list[KeyValue]:
        """Keys and values of every layer, each [1, G, P, K]."""


class LearnedPrefix(Virtual):
    """Keys and values themselves, flat as peft stores them: [P, 2 L G K] (Li & Liang 2021, section 4.2)."""

    def __init__(self, flat_PX: Tensor) -> None:
        super().__init__()
        self.length = flat_PX.shape[0]
        self.flat = nn.Parameter(flat_PX)

    def before(self, model: "GPT") -> list[KeyValue]:
        """Splits the flat rows by layer, key or value, and head."""
        return unfolded(self.flat, model)


class SoftPrompt(Virtual):
    """Embeddings of tokens that no vocabulary has: [P, D] (Lester et al. 2021, section 2).

    A causal network never lets them see what follows, so running them once gives every layer's keys and values, and the
    texts of a batch share them.
    """

    def __init__(self, embeddings_PD: Tensor) -> None:
        super().__init__()
        self.length = embeddings_PD.shape[0]
        self.embeddings = nn.Parameter(embeddings_PD)

    def before(self, model: "GPT") -> list[KeyValue]:
        """One pass of the virtual tokens alone."""
        recorder = Recorder()
        model.hidden(embeddings_BTD=self.embeddings[None], cache=recorder)
        return recorder.layers


class Bottleneck(nn.Module):
    """A projection and the small network behind it: y + W_up gelu(W_down y) (Houlsby et al. 2019, figure 2)."""

    def __init__(self, base: nn.Linear, width: int) -> None:
        super().__init__()
        device = base.weight.device
        self.base = base
        self.narrow = nn.Parameter(torch.zeros(width, base.out_features, device=device))
        self.wide = nn.Parameter(torch.zeros(base.out_features, width, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        y = self.base(x)
        return y + F.linear(F.gelu(F.linear(y, self.narrow)), self.wide)


def unfolded(flat_PX: Tensor, model: "GPT") -> list[KeyValue]:
    """[P, 2 L G K] -> per layer keys and values [1, G, P, K]; peft's order: layer, key or value, head."""
    shape = model.config
    parts = flat_PX.view(len(flat_PX), shape.n_layers, 2, shape.n_kv_heads, shape.head_dim).permute(1, 2, 3, 0, 4)
    return [(layer[0][None], layer[1][None]) for layer in parts]


def sites(model: "GPT") -> list[str]:
    """Where bottlenecks stand: what attention and what the MLP add to the stream, in every block."""
    return [f"blocks.{i}.{part}" for i in range(model.config.n_layers) for part in ("attention.out", "mlp.down")]


def insert_bottlenecks(model: "GPT", width: int) -> dict[str, Bottleneck]:
    """Puts one behind each site; all zero, so the model answers as before."""
    made = {}
    for site in sites(model):
        base = model.get_submodule(site)
        assert isinstance(base, nn.Linear)
        made[site] = Bottleneck(base, width)
        replace(model, site, made[site])
    return made


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` at the place called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def has_additions(model: "GPT") -> bool:
    """Whether something is in the model that no plain weight can hold."""
    return model.virtual is not None or any(isinstance(module, Bottleneck) for module in model.modules())


def attach(model: "GPT", folder: Path) -> None:
    """Puts back what stands in a model folder's `adapter/`; what was merged into the weights is there already.

    Raises:
        UserError: tensors that do not fit the model.
    """
    if not (folder / CONFIG).is_file():
        return
    config = foreign.read_object(folder / CONFIG)
    kind = config.get("peft_type")
    if kind not in ("PREFIX_TUNING", "PROMPT_TUNING", "BOTTLENECK"):
        if not isinstance(kind, str | None):
            raise UserError(f"{folder / CONFIG}: peft_type is {shown(kind)}, expected a name such as LORA; {AGAIN}")
        return
    from pipeline.model.weights import headers, read_tensors, require_floats

    # by the header: a file that does not fit is refused before memory is taken
    found = headers(folder / TENSORS)
    require_floats(found, folder / TENSORS)
    if kind == "BOTTLENECK":
        # the classification head stands among the model's own weights as well
        own = {name for name in found if not name.startswith("base_model.")}
        width = whole(config.get("width"), f"{folder / CONFIG}: width", 1 << 20)
        _check(folder, {name: found[name].shape for name in own}, _bottleneck_shapes(model, width))
        tensors = read_tensors(folder / TENSORS)
        for site, bottleneck in insert_bottlenecks(model, width).items():
            for part in ("narrow", "wide"):
                getattr(bottleneck, part).data.copy_(tensors[f"{site}.{part}"])
        return
    shape = model.config
    rows = whole(config.get("num_virtual_tokens"), f"{folder / CONFIG}: num_virtual_tokens", shape.context_length)
    width = shape.d_model if kind == "PROMPT_TUNING" else 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim
    own = {name for name in found if not name.startswith("base_model.")}
    _check(folder, {name: found[name].shape for name in own}, {"prompt_embeddings": (rows, width)})
    value = read_tensors(folder / TENSORS)["prompt_embeddings"].to(torch.float32)
    model.virtual = SoftPrompt(value) if kind == "PROMPT_TUNING" else LearnedPrefix(value)


def _bottleneck_shapes(model: "GPT", width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for site in sites(model):
        base = model.get_submodule(site)
        assert isinstance(base, nn.Linear)
        shapes |= {f"{site}.narrow": (width, base.out_features), f"{site}.wide": (base.out_features, width)}
    return shapes


def _check(folder: Path, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    if odd := sorted(expected.keys() ^ found.keys()):
        raise UserError(
            f"{folder / TENSORS}: {shown(odd[0])} is missing or has no place in this model; use the base model the "
            "adapter was made for"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise UserError(
                f"{folder / TENSORS}: {name} has shape {found[name]}, this model needs {shape}; use the base model the "
                "adapter was made for"
            )
