"""Tuners: which weights are trained. Each file is one: `build(settings) -> Tuner`.

A tuner offers `apply` (freeze weights, insert adapter modules), `groups` (the optimizer's parameter groups), `state`
(an adapter's tensors, empty where there is none) and `merge` (a plain model); an `Adapter` also has `save_adapter`.
Adapters that cannot be merged into plain weights are saved in a form that `pipeline.model.adapters` inserts again when
the model folder is read.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline import files
from pipeline.errors import UserError
from pipeline.model.adapter_folder import head_weights, library_name
from pipeline.model.adapters import CONFIG, TENSORS
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.model.library_sizes import attention_part
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

    whole: bool = True
    """Whether the model folder holds all weights; false: the adapter only, beside the name of its base."""

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
    # peft wraps the model once more for adapters inside its layers
    inner = "" if "num_virtual_tokens" in config else "model."
    kept = {**tensors, **{f"base_model.{inner}{name}": value for name, value in head_tensors(model).items()}}
    shared = {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "task_type": _peft_task(model),
    }
    with files.replace_folder(folder) as temporary:
        write_tensors(temporary / TENSORS, kept)
        files.write_json(temporary / CONFIG, shared | dict(config))


def _peft_task(model: GPT) -> str:
    if model.score is not None:
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if getattr(model, "architecture", "") == "encoder_decoder" else "CAUSAL_LM"


def projections(model: GPT) -> list[str]:
    """Names of every projection of every block, wrapped or not: `blocks.0.attention.q`."""
    if isinstance(model, LibraryModel):
        return model.projections()
    names = [name for name, module in model.blocks.named_modules(prefix="blocks") if isinstance(module, nn.Linear)]
    return [name.removesuffix(".base") for name in names]


def part_of_block(model: GPT, name: str) -> Literal["attention", "mlp"]:
    """The half of its block that a projection belongs to."""
    if isinstance(model, LibraryModel):
        return "attention" if attention_part(name) else "mlp"
    return "attention" if name.split(".")[2] == "attention" else "mlp"


def chosen_projections(model: GPT, targets: Sequence[str]) -> list[str]:
    """The projections that `targets` name: `attention`, `mlp`, or a projection's name in transformers (`q_proj`).

    Raises:
        UserError: a name that no projection of the model has.
    """
    every = projections(model)
    chosen: set[str] = set()
    for target in targets:
        if target in ("attention", "mlp"):
            matching = [name for name in every if part_of_block(model, name) == target]
        else:
            matching = [name for name in every if f".{library_name(model, name)}".endswith(f".{target}")]
        if not matching:
            known = sorted({library_name(model, name).rpartition(".")[2] for name in every})
            raise UserError(
                f"params.yaml: tuner.targets names {target!r}, which no projection of this {model.config.family} model "
                f"is called; attention, mlp, or some of: {', '.join(known)}"
            )
        chosen.update(matching)
    return [name for name in every if name in chosen]


def peft_targets(model: GPT, names: Sequence[str]) -> list[str]:
    """peft's `target_modules` for these projections: suffixes of their names that no other linear layer has."""
    wanted = {library_name(model, name) for name in names}
    if not isinstance(model, LibraryModel):
        parts = 2 if model.config.family == "gpt2" else 1  # GPT-2's two `c_proj` need their parent's name
        return sorted({".".join(name.split(".")[-parts:]) for name in wanted})
    linear = [name.removesuffix(".base") for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    others = {library_name(model, name) for name in linear} - wanted
    return sorted({_shortest(name, others) for name in wanted})


def _shortest(name: str, others: set[str]) -> str:
    """The shortest suffix of whole parts that no other projection ends with."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        suffix = ".".join(parts[-count:])
        if not any(f".{other}".endswith(f".{suffix}") for other in others):
            return suffix
    return name


def peft_place(model: GPT, name: str) -> str:
    """The prefix of peft's tensor names for this projection."""
    return f"base_model.model.{library_name(model, name)}"


def head_tensors(model: GPT) -> dict[str, Tensor]:
    """The classification head's weights by their names in transformers; {} without one."""
    return {name: weight.detach() for name, weight in head_weights(model).items()}


def require_own_family(model: GPT, tuner: str) -> None:
    """Raises UserError for a model that transformers computes."""
    if isinstance(model, LibraryModel):
        raise UserError(
            f"params.yaml: tuner.name is {tuner!r}, which needs one of our own families, and this is a "
            f"{model.config.family} model, which transformers computes; use full, layers, gradual, lora, ia3 or "
            "bottleneck"
        )


def modules_to_save(model: GPT) -> list[str] | None:
    """peft's `modules_to_save`: the classification head."""
    if isinstance(model, LibraryModel):
        return model.head_modules() if model.is_classifier else None
    return None if model.score is None else ["score"]
