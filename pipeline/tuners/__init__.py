"""Tuners: which weights are trained. Each file is one: `build(settings) -> Tuner`.

A tuner offers `apply` (freeze weights, insert adapter modules), `groups` (the optimizer's parameter groups), `state`
(an adapter's tensors, empty where there is none) and `merge` (a plain model); an `Adapter` also has `save_adapter`.
Adapters that cannot be merged into plain weights are saved in a form that `pipeline.model.adapters` inserts again when
the model folder is read.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import files
from pipeline.model.adapters import CONFIG, TENSORS
from pipeline.model.gpt import GPT
from pipeline.model.hf_format import exported_name
from pipeline.model.weights import write_tensors

Encode = Callable[[str], list[int]]
"""Text to token ids."""


def trainable_group(model: nn.Module, factor: float = 1.0) -> dict[str, Any]:
    """All trainable weights as one parameter group.

    `params`, their `names`, the learning-rate `factor`, and `begins`: the share of the run after which they are
    trained (0: from the first update).
    """
    return group([(name, p) for name, p in model.named_parameters() if p.requires_grad], factor)


def group(named: list[tuple[str, nn.Parameter]], factor: float = 1.0, begins: float = 0.0) -> dict[str, Any]:
    """One parameter group of named weights; fields as in `trainable_group`."""
    return {"params": [p for _, p in named], "names": [name for name, _ in named], "factor": factor, "begins": begins}


class Tuner(ABC):
    """Base class: trains weights of the model itself, all in one parameter group, with nothing to merge."""

    @abstractmethod
    def apply(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Sets `requires_grad` of every weight and inserts new modules; all randomness comes from `generator`.

        A tuner that leaves no weight of a model to train (norms without a scale, for example) is refused by training;
        its test skips that family.

        Raises:
            UserError: a model that the tuner is not for; its test skips that family too.
        """

    def groups(self, model: GPT) -> list[dict[str, Any]]:
        """One group of all trainable weights, learning-rate factor 1, from the first update on."""
        return [trainable_group(model)]

    def state(self, _model: GPT) -> dict[str, Tensor]:
        """The adapter's tensors: none here."""
        return {}

    def merge(self, model: GPT) -> GPT:
        """The model itself, with all weights trainable again."""
        return model.requires_grad_(True)


class Adapter(Tuner):
    """Base class: trains inserted modules and the classification head, if any; the base model stays frozen."""

    def apply(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Freezes the model (embeddings and language head too), inserts the adapter, trains the `score` head."""
        model.requires_grad_(False)
        self.insert(model, generator, encode)
        if model.score is not None:
            model.score.requires_grad_(True)

    @abstractmethod
    def insert(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Inserts the adapter's modules into the frozen model; all randomness comes from `generator`."""

    def state(self, model: GPT) -> dict[str, Tensor]:
        """All trainable tensors by our names: the adapter's, and the classification head's if there is one."""
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    @abstractmethod
    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes the adapter as a folder of its own; equal adapters give equal bytes."""


def without_virtual_tokens(model: GPT) -> GPT:
    """A copy of the model without its virtual tokens, all weights trainable; saved beside the adapter."""
    virtual, model.virtual = model.virtual, None
    plain = copy.deepcopy(model)
    model.virtual = virtual
    return plain.requires_grad_(True)


def write_adapter(
    model: GPT, folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], base_name: str | None
) -> None:
    """Writes an adapter folder in peft's layout; equal adapters give equal bytes.

    Args:
        model: gives the family and, if it has one, the classification head, which is saved too.
        folder: replaced as a whole.
        tensors: by peft's names.
        config: peft's `peft_type` and the settings of that type.
        base_name: path of the base model in the config, relative to `folder`: it holds on every machine and in any
            working folder. None: not named.
    """
    kept = dict(tensors)
    if model.score is not None:
        # peft wraps the model once more for adapters inside its layers
        inner = "" if "num_virtual_tokens" in config else "model."
        kept[f"base_model.{inner}score.weight"] = model.score.weight.detach()
    shared = {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "task_type": "CAUSAL_LM" if model.score is None else "SEQ_CLS",
    }
    with files.replace_folder(folder) as temporary:
        write_tensors(temporary / TENSORS, kept)
        files.write_json(temporary / CONFIG, shared | dict(config))


def projections(model: GPT) -> list[str]:
    """Names of every projection of every block, wrapped or not: `blocks.0.attention.q`."""
    names = [name for name, module in model.blocks.named_modules(prefix="blocks") if isinstance(module, nn.Linear)]
    return [name.removesuffix(".base") for name in names]


def peft_targets(model: GPT, names: list[str]) -> list[str]:
    """peft's `target_modules` for these projections: suffixes; GPT-2's two `c_proj` need their parent's name."""
    parts = 2 if model.config.family == "gpt2" else 1
    exported = [exported_name(model.config.family, name) for name in names]
    return sorted({".".join(name.split(".")[-parts:]) for name in exported})


def peft_place(model: GPT, name: str) -> str:
    """The prefix of peft's tensor names for this projection."""
    return f"base_model.model.{exported_name(model.config.family, name)}"
