"""WHICH weights move. Each file is one tuner; this one holds what they share.

A tuner offers `apply` (freeze, insert), `groups` (what the optimizer moves), `state` (tensors of an adapter, empty
where there is none) and `merge` (a plain model); one that adds something also `save_adapter`. What cannot be merged
into plain weights is saved as a kind of addition that `pipeline.model.adapters` puts back.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import files
from pipeline.model import checkpoint
from pipeline.model.adapters import CONFIG, TENSORS
from pipeline.model.gpt import GPT

Encode = Callable[[str], list[int]]
"""Text to token ids."""


def moving(model: nn.Module, factor: float = 1.0) -> dict[str, Any]:
    """All weights that may move as one optimizer group.

    `params`, their `names`, the learning-rate `factor`, and `begins`: the share of the run after which they move.
    """
    return group([(name, p) for name, p in model.named_parameters() if p.requires_grad], factor)


def group(named: list[tuple[str, nn.Parameter]], factor: float = 1.0, begins: float = 0.0) -> dict[str, Any]:
    """One optimizer group of named weights; fields as in `moving`."""
    return {"params": [p for _, p in named], "names": [name for name, _ in named], "factor": factor, "begins": begins}


class Tuner(ABC):
    """What most tuners do alike: a sibling overrides what it does otherwise."""

    @abstractmethod
    def apply(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Freezes what stays, inserts what is new; draws from the generator alone."""

    def groups(self, model: GPT) -> list[dict[str, Any]]:
        """One group with all that moves, learning-rate factor 1, from the first step on."""
        return [moving(model)]

    def state(self, model: GPT) -> dict[str, Tensor]:
        """No adapter: empty."""
        return {}

    def merge(self, model: GPT) -> GPT:
        """The model itself, with no weight frozen."""
        return model.requires_grad_(True)


class Adapter(Tuner):
    """A tuner that trains what it adds, and the classification head if there is one; the network stays as it is."""

    def apply(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Freezes the model (embeddings and head too), inserts the additions, frees the `score` head."""
        model.requires_grad_(False)
        self.insert(model, generator, encode)
        if model.score is not None:
            model.score.requires_grad_(True)

    @abstractmethod
    def insert(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Puts the additions into the frozen model; draws from the generator alone."""

    def state(self, model: GPT) -> dict[str, Tensor]:
        """All that moves, under our names: the additions, and the classification head if there is one."""
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    @abstractmethod
    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes the additions as a folder of their own; equal adapters give equal bytes."""


def without_additions(model: GPT) -> GPT:
    """A plain copy with no virtual tokens: what stands beside the adapter on disk."""
    virtual, model.virtual = model.virtual, None
    plain = copy.deepcopy(model)
    model.virtual = virtual
    return plain.requires_grad_(True)


def write_adapter(
    model: GPT, folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], base_name: str | None
) -> None:
    """Writes an adapter folder in peft's layout; equal adapters give equal bytes.

    Args:
        model: whose classification head, if any, goes along.
        folder: made anew.
        tensors: under peft's names; `config`: what peft calls this kind, and its settings.
        base_name: what the config calls the base model; no path, so that bytes do not depend on a machine.
    """
    kept = dict(tensors)
    if model.score is not None:
        # peft wraps the model once more where an adapter sits inside its layers
        inner = "" if "num_virtual_tokens" in config else "model."
        kept[f"base_model.{inner}score.weight"] = model.score.weight.detach()
    shared = {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "task_type": "CAUSAL_LM" if model.score is None else "SEQ_CLS",
    }
    with files.replace_folder(folder) as temporary:
        checkpoint.write_tensors(temporary / TENSORS, kept)
        files.write_json(temporary / CONFIG, shared | dict(config))


def projections(model: GPT) -> list[str]:
    """Names of every projection of every block, wrapped or not: `blocks.0.attention.q`."""
    names = [name for name, module in model.blocks.named_modules(prefix="blocks") if isinstance(module, nn.Linear)]
    return [name.removesuffix(".base") for name in names]


def peft_targets(model: GPT, names: list[str]) -> list[str]:
    """What peft calls these projections: matched by suffix, so GPT-2's two `c_proj` carry their parent's name."""
    words = 2 if model.config.family == "gpt2" else 1
    exported = [checkpoint.exported_name(model.config.family, name) for name in names]
    return sorted({".".join(name.split(".")[-words:]) for name in exported})


def peft_place(model: GPT, name: str) -> str:
    """Where peft puts a tensor of this projection."""
    return f"base_model.model.{checkpoint.exported_name(model.config.family, name)}"
