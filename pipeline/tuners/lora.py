"""LoRA: the pretrained weights stay, every chosen projection learns a low-rank addition.

h = W x + (alpha / rank) B A x, with B zero at the start (Hu et al. 2021, equation 3 and section 4.1); A is
drawn as peft draws it, Kaiming-uniform. Two settings vary it: `rank_stabilised` scales by alpha / sqrt(rank)
(Kalajdzievski 2023, equation 5), `decompose` learns the length of every row of the weight apart from its
direction (DoRA: Liu et al. 2024, equation 5). A classification head trains in full. Adapters are written and
read in peft's file layout, so peft puts ours onto the exported base; peft itself is never imported (its
import costs 12 s).
"""

import copy
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.adapters import replace
from pipeline.model.gpt import GPT
from pipeline.tuners import Adapter, Encode, peft_place, peft_targets, projections, write_adapter


class Settings(Section):
    """Size and place of the additions."""

    rank: Positive
    alpha: Annotated[float, Field(gt=0)]
    """The addition is scaled by alpha / rank, or alpha / sqrt(rank)."""
    rank_stabilised: bool
    """Scale by alpha / sqrt(rank), so that a larger rank is not a smaller step."""
    decompose: bool
    """Learn each row's length apart from its direction (DoRA)."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """On what enters the addition, in training only."""
    targets: Annotated[list[Literal["attention", "mlp"]], Field(min_length=1)]


def build(settings: Settings) -> "LoRA":
    """The tuner of these settings."""
    return LoRA(settings)


# A row of zeros (pruned weights) has no direction; it stays zero.
_TINY = 1e-30


class LoRALinear(nn.Module):
    """A frozen projection and its low-rank addition."""

    def __init__(self, base: nn.Linear, settings: Settings) -> None:
        super().__init__()
        self.base, self.rank = base, settings.rank
        self.scale = settings.alpha / (math.sqrt(settings.rank) if settings.rank_stabilised else settings.rank)
        self.dropout = nn.Dropout(settings.dropout)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.zeros(settings.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, settings.rank, device=device))
        self.magnitude = nn.Parameter(self._lengths().clone()) if settings.decompose else None

    def draw(self, generator: torch.Generator) -> None:
        """A uniform within 1 / sqrt(fan-in) (Kaiming, a = sqrt 5), B zero: the model starts unchanged."""
        bound = 1 / math.sqrt(self.base.in_features)
        drawn = torch.empty(self.lora_A.shape, device=generator.device).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            self.lora_A.copy_(drawn)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out], or [B, ..., in] -> [B, ..., out]."""
        narrow, wide = F.linear(self.dropout(x), self.lora_A), self.lora_B * self.scale
        if self.magnitude is None:
            y = self.base(x)
            return torch.addmm(y.flatten(0, -2), narrow.flatten(0, -2), wide.t()).view_as(y)
        added = F.linear(narrow, wide)
        # The lengths are taken as constants: section 4.3 of the paper, half the memory, the same scores.
        share = self.magnitude / self._lengths().detach().clamp(min=_TINY)
        turned = (F.linear(x, self.base.weight) + added) * share
        return turned if self.base.bias is None else turned + self.base.bias

    def _weight(self) -> Tensor:
        return self.base.weight + (self.lora_B @ self.lora_A) * self.scale

    def _lengths(self) -> Tensor:
        """Euclidean length of each row of the weight with the addition: [out]."""
        return self._weight().norm(dim=1)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The projection with the addition in its weight."""
        weight = self._weight()
        if self.magnitude is not None:
            weight *= (self.magnitude / self._lengths().clamp(min=_TINY))[:, None]
        self.base.weight.copy_(weight)
        return self.base


class LoRA(Adapter):
    """Inserts, saves and merges the additions."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def insert(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Inserts the additions, drawn but for B."""
        for name in _targets(model, self.settings.targets):
            _insert(model, name, self.settings).draw(generator)

    def merge(self, model: GPT) -> GPT:
        """A plain copy of the model with the additions in its weights; the given model is left as it is."""
        plain = copy.deepcopy(model)
        for name, addition in _additions(plain).items():
            replace(plain, name, addition.merged())
        return plain.requires_grad_(True)

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes adapter_config.json and adapter_model.safetensors as peft does; equal adapters give equal
        bytes.
        """
        additions = _additions(model)
        tensors = {}
        for name, addition in additions.items():
            place = peft_place(model, name)
            tensors[f"{place}.lora_A.weight"] = addition.lora_A.detach()
            tensors[f"{place}.lora_B.weight"] = addition.lora_B.detach()
            if addition.magnitude is not None:
                tensors[f"{place}.lora_magnitude_vector"] = addition.magnitude.detach()
        write_adapter(model, folder, tensors, self._config(model, list(additions)), base_name)

    def _config(self, model: GPT, names: list[str]) -> dict[str, Any]:
        return {
            "bias": "none",
            "fan_in_fan_out": model.config.family == "gpt2",
            "init_lora_weights": True,
            "lora_alpha": self.settings.alpha,
            "lora_dropout": self.settings.dropout,
            "modules_to_save": None if model.score is None else ["score"],
            "peft_type": "LORA",
            "r": self.settings.rank,
            "target_modules": peft_targets(model, names),
            "use_dora": self.settings.decompose,
            "use_rslora": self.settings.rank_stabilised,
        }


# peft's name of a tensor -> ours.
_PARTS = {"lora_A": "lora_A", "lora_B": "lora_B", "lora_magnitude_vector": "magnitude"}


def load_adapter(model: GPT, folder: Path) -> None:
    """Inserts an adapter in peft's layout into a plain model and freezes the rest.

    Raises:
        UserError: not a LoRA adapter, one with settings we do not have, or tensors that do not fit the model.
    """
    config = checkpoint.read_json(folder / "adapter_config.json")
    odd = sorted(key for key in ("rank_pattern", "alpha_pattern", "bias") if config.get(key) and config[key] != "none")
    if config.get("peft_type") != "LORA" or odd:
        raise UserError(
            f"{folder}: an adapter of type {config.get('peft_type')} with {odd} set; expected LoRA of one rank: "
            "save it merged into its base instead"
        )
    tensors = checkpoint.read_tensors(folder / "adapter_model.safetensors")
    settings = Settings(
        rank=config["r"], alpha=config["lora_alpha"], dropout=config["lora_dropout"],
        rank_stabilised=config.get("use_rslora", False), decompose=config.get("use_dora", False),
        targets=["attention", "mlp"],
    )  # fmt: skip
    model.requires_grad_(False)
    for key in sorted(tensors):
        place, value = key.removeprefix("base_model.model."), tensors[key]
        if place == "score.weight" and model.score is not None and model.score.weight.shape == value.shape:
            model.score.weight.data.copy_(value)
            model.score.requires_grad_(True)
            continue
        exported, _, part = place.removesuffix(".weight").rpartition(".")
        name = checkpoint.internal_name(model.config.family, exported)
        part = _PARTS.get(part, "")
        if not part or name not in projections(model):
            raise UserError(
                f"{folder}/adapter_model.safetensors: {key} has no place in a {model.config.family} model; "
                "use the base model the adapter was made for"
            )
        addition = _additions(model).get(name) or _insert(model, name, settings)
        parameter = getattr(addition, part)
        if parameter is None or parameter.shape != value.shape:
            raise UserError(
                f"{folder}/adapter_model.safetensors: {key} has shape {tuple(value.shape)}, this base needs "
                f"{None if parameter is None else tuple(parameter.shape)}; use the base model the adapter was made for"
            )
        parameter.data.copy_(value)


def _targets(model: GPT, kinds: list[Literal["attention", "mlp"]]) -> list[str]:
    return [name for name in projections(model) if name.split(".")[2] in kinds]


def _additions(model: GPT) -> dict[str, LoRALinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def _insert(model: GPT, name: str, settings: Settings) -> LoRALinear:
    base = model.get_submodule(name)
    assert isinstance(base, nn.Linear)
    addition = LoRALinear(base, settings)
    replace(model, name, addition)
    return addition
