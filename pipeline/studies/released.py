"""A released model in a folder, as a study starts from it: what it is, and its lines of params.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import start_rules
from pipeline.config.recipe import InitialWeights, Kind
from pipeline.errors import UserError
from pipeline.model import open_weights
from pipeline.tokenizer import Tokenizer, adopt, adopted

_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")


@dataclass(frozen=True)
class Base:
    """A released model to start from."""

    folder: Path
    """As in params.yaml."""
    family: str
    architecture: str
    """decoder, encoder or encoder_decoder."""
    parameters: int
    context_length: int
    width: int
    """d_model."""
    sha256: str
    tokenizer_sha256: str
    licence: str | None
    template: str
    """Prompt template of recipes on it."""

    @property
    def generates(self) -> bool:
        """Whether it has a language head."""
        return self.architecture != "encoder"

    @property
    def described(self) -> str:
        """Family, kind and size in words."""
        return f"{self.family}, {self.architecture.replace('_', '-')}, {self.parameters / 1e6:.1f} M weights"

    @property
    def changes(self) -> dict[str, Any]:
        """Dotted path -> value in params.yaml: its vocabulary, and a base model that is its copy."""
        start = {
            "kind": "folder", "path": str(self.folder), "revision": None, "sha256": self.sha256,
            "licence": self.licence, "zero_projections": False,
        }  # fmt: skip
        tokenize = {"method": "folder", "vocab_size": None, "pattern": None, "path": str(self.folder)}
        return {
            "tokenize": tokenize | {"sha256": self.tokenizer_sha256},
            "pretrain.start": start,
            "pretrain.task": {"name": "unchanged"},
            "pretrain.tuner": {"name": "full"},
            "pretrain.schedule.steps": 0,
            "pretrain.schedule.warmup_steps": 0,
        }


def read_base(folder: Path) -> Base:
    """Facts about a model folder. Raises UserError where it could not be a start."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; --base takes a model folder in the Hugging Face layout (config.json, "
            "safetensors, tokenizer.json); `tohum adopt` makes one of a GGUF file"
        )
    released, vocabulary = open_weights.released(folder), adopt(folder)
    start = InitialWeights(
        kind="folder", path=str(folder), revision=None, sha256=None, licence=None, zero_projections=False
    )
    known = start_rules.architecture(start)
    return Base(
        folder, released.family, known[1] if known else "decoder", released.parameters,
        _size(released.config, _CONTEXT, 512), _size(released.config, _WIDTH, 384), released.sha256,
        adopted.pin(folder), released.licence, template_of(vocabulary),
    )  # fmt: skip


def template_of(tokenizer: Tokenizer) -> str:
    """The template of prompts and recipes: the folder's own chat template, our markers, or plain headings."""
    if tokenizer.chat_template is not None:
        try:
            _ = tokenizer.chat_template.turn
        except UserError:  # answers cannot be told in it
            return "alpaca"
        return "model"
    return "chat" if "<|assistant|>" in tokenizer.special else "alpaca"


def _size(raw: dict[str, Any], names: tuple[str, ...], otherwise: int) -> int:
    """The first of these keys of config.json that is a number."""
    return next((int(raw[name]) for name in names if isinstance(raw.get(name), int)), otherwise)


def lora_recipe(kind: Kind, base: Base) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, recipe and measures of LoRA on a released model, for labelled texts or instructions.

    Limits, batch size and updates are set for the data afterwards (sizing.py). The adapter is stored without its base.
    """
    if kind == "labelled":
        name, task = "label-lora", {"name": "classify", "max_tokens": 128}
        measures: dict[str, Any] = {"classification": {"split": "test", "batch_size": 64, "baseline": "bag_of_words"}}
    else:
        name = "answer-lora"
        task = {"name": "instruct", "template": base.template, "max_tokens": 256, "max_prompt_tokens": 192}
        measures = {"exact_match": {"split": "test", "batch_size": 32, "max_tokens": 32, "max_records": None}}
    recipe = {
        "from": "base", "reference": "base", "judge": {"name": "none", "reads": "models/base"},
        "data": kind, "depth": None, "few": None, "seed": 1, "privacy": None,
        "task": task, "loss": {"name": "cross_entropy"},
        "tuner": {
            "name": "lora", "rank": 8, "alpha": 16.0, "rank_stabilised": False, "decompose": False, "dropout": 0.0,
            "targets": ["attention", "mlp"], "merged": False,
        },
        "weighting": {"name": "uniform"}, "ordering": {"name": "shuffled", "batch_size": 16},
        "optimizer": {
            "name": "adamw", "learning_rate": 1.0e-3, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999,
            "epsilon": 1.0e-8,
        },
        "schedule": {
            "shape": "linear", "steps": 120, "warmup_steps": 12, "final_share": 0.0, "accumulate": 1,
            "batch_warmup_steps": 0, "clip_norm": 1.0,
        },
        "validation": {"every": 24, "batches": 10, "patience": 0, "keep": "best"},
    }  # fmt: skip
    return name, recipe, measures
