"""IA3: learned vectors scale keys, values and the MLP's inner activations; the model is frozen (Liu et al. 2022).

softmax(Q (l_k * K)) (l_v * V) and W (l_ff * gamma(...)) (section 3.3); the vectors start at one. GPT-2 makes queries,
keys and values in one projection, which is scaled as a whole, as peft does. Saved in peft's layout; merging scales rows
of the first two weights and columns of the last.
"""

import copy
import re
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config.section import Section
from pipeline.model.adapter_folder import ia3_merge
from pipeline.model.adapters import replace_module
from pipeline.model.adapters import sites as last_projections
from pipeline.model.gpt import GPT
from pipeline.tuners import (
    Adapter,
    Encode,
    modules_to_save,
    part_of_block,
    peft_place,
    peft_targets,
    projections,
    write_adapter,
)

_KEYS_AND_VALUES = re.compile(r"^(k|v|key|value|[kv]_proj|[kv]_lin|qkv|qkv_proj|query_key_value|Wqkv|c_attn)$")


class Settings(Section):
    """Form of the model folder; the paper fixes the placement of the vectors."""

    merged: bool = Field(examples=[True])
    """Whether the model folder holds all weights, the vectors merged in; false: the adapter only, with the name and the
    hash of its base, which is merged when the folder is read."""


def build(settings: Settings) -> "IA3":
    """The tuner of these settings."""
    return IA3(settings)


class Scaled(nn.Module):
    """A frozen projection with its output (or its input) scaled per feature."""

    def __init__(self, base: nn.Linear, inputs: bool) -> None:
        super().__init__()
        self.base, self.inputs = base, inputs
        features = base.in_features if inputs else base.out_features
        self.scale = nn.Parameter(torch.ones(features, device=base.weight.device))

    @property
    def weight(self) -> Tensor:
        """The projection's own weight; some networks of transformers look at its type."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        y: Tensor = self.base(x * self.scale) if self.inputs else self.base(x) * self.scale
        return y

    def merged(self) -> nn.Linear:
        """The projection with the vector multiplied into its weight."""
        ia3_merge(self.base, self.scale, self.inputs)
        return self.base


class IA3(Adapter):
    """Inserts, saves and merges the vectors."""

    def __init__(self, settings: Settings) -> None:
        self.whole = settings.merged

    def insert(self, model: GPT, _generator: torch.Generator, _encode: Encode) -> None:
        """Inserts vectors of ones; nothing is random."""
        last = set(last_projections(model))
        for name in projections(model):
            inputs = name in last and part_of_block(model, name) == "mlp"
            if inputs or _KEYS_AND_VALUES.match(name.rpartition(".")[2]):
                base = model.get_submodule(name)
                assert isinstance(base, nn.Linear)
                replace_module(model, name, Scaled(base, inputs))

    def merge(self, model: GPT) -> GPT:
        """A copy of the model with the vectors multiplied into its weights; `model` itself is unchanged."""
        plain = copy.deepcopy(model)
        for name, scaled in _scaled(plain).items():
            replace_module(plain, name, scaled.merged())
        return plain.requires_grad_(True)

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes the vectors in peft's IA3 layout."""
        scaled = _scaled(model)
        tensors = {
            f"{peft_place(model, name)}.ia3_l": module.scale.detach()[None, :]
            if module.inputs
            else module.scale.detach()[:, None]
            for name, module in scaled.items()
        }
        config = {
            "fan_in_fan_out": model.config.family == "gpt2",
            "feedforward_modules": peft_targets(model, [name for name, module in scaled.items() if module.inputs]),
            "init_ia3_weights": True,
            "modules_to_save": modules_to_save(model),
            "peft_type": "IA3",
            "target_modules": peft_targets(model, list(scaled)),
        }
        write_adapter(model, folder, tensors, config, base_name)


def _scaled(model: GPT) -> dict[str, Scaled]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Scaled)}
