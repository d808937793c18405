"""Weights of the training states kept beside a model (models/<name>.states), put into the model for a while."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pipeline import integrity
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.paths import MODELS

_STATE = re.compile(r"step-(\d{8,})")
_WEIGHT = "model."  # before the names of trained weights, beside those of the optimizer


def _folders(model: str, models: Path) -> dict[int, Path]:
    """Update -> folder of its state, ascending."""
    folder = models / f"{model}.states"
    found = {int(name[1]): path for path in folder.glob("step-*") if (name := _STATE.fullmatch(path.name))}
    return dict(sorted(found.items()))


def kept_updates(model: str, models: Path = MODELS) -> list[int]:
    """The updates whose states are kept, ascending; empty where there are none."""
    return list(_folders(model, models))


@contextmanager
def with_kept_weights(model: GPT, name: str, update: int, models: Path = MODELS) -> Iterator[GPT]:
    """The model with the weights that it had after this update; it has its own again afterwards.

    Raises:
        UserError: a damaged state, or one whose weights are not the model's, as those of an adapter that was merged.
    """
    integrity.require_intact(models / f"{name}.states")
    path = _folders(name, models)[update] / "tensors.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            names = [key for key in file.keys() if key.startswith(_WEIGHT)]  # noqa: SIM118 - it is no dict
            weights = {key.removeprefix(_WEIGHT): file.get_tensor(key) for key in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: {error}; run `dvc checkout {models / name}.states`") from None
    own = dict(model.named_parameters())
    if foreign := sorted(key for key in weights if key not in own or own[key].shape != weights[key].shape):
        raise UserError(
            f"{path} holds {foreign[0]}, which models/{name} does not have: the tuner merged what it had trained; set "
            "states to false, or train with tuner full"
        )
    before = {key: own[key].detach().clone() for key in weights}
    try:
        _copy(own, weights)
        yield model
    finally:
        _copy(own, before)


@torch.no_grad()
def _copy(own: dict[str, torch.nn.Parameter], weights: dict[str, torch.Tensor]) -> None:
    for key, value in weights.items():
        own[key].copy_(value)
