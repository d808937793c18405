"""Weights and optimizer state of a run as flat named tensors, for saving and resuming."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def pack(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, modules: torch.nn.Module | None = None
) -> dict[str, Tensor]:
    """Trainable weights of the model and of the loss's modules, and optimizer state, as flat named tensors."""
    tensors = _trained(model, modules)
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, types, shapes and bits; equal for equal states on every device."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def mismatch(tensors: dict[str, Tensor], expected: dict[str, Tensor], n_parameters: int) -> str | None:
    """The first difference in name, shape or type between saved tensors and this run's; None if they fit.

    Args:
        tensors: the saved tensors by name.
        expected: this run's tensors by name; tensors below `best.` are saved all or none.
        n_parameters: of the optimizer; each `optimizer.<index>.` belongs to one of them.
    """
    optimizer = {name for name in tensors if name.startswith("optimizer.")}
    for name in optimizer:
        index = name.split(".")[1]
        if not (index.isdecimal() and int(index) < n_parameters):
            return f"{name} belongs to no parameter"
    best = any(name.startswith("best.") for name in tensors)
    wanted = {name: value for name, value in expected.items() if best or not name.startswith("best.")}
    if differing := sorted((set(tensors) - optimizer) ^ set(wanted)):
        return f"{differing[0]} is {'missing' if differing[0] in wanted else 'not part of this run'}"
    for name, value in wanted.items():
        if (saved := tensors[name]).shape != value.shape or saved.dtype != value.dtype:
            return f"{name} is {saved.dtype} {list(saved.shape)}, this run has {value.dtype} {list(value.shape)}"
    return None


@torch.no_grad()
def unpack(
    tensors: dict[str, Tensor],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    modules: torch.nn.Module | None = None,
) -> None:
    """Copies the tensors of `pack` into a model, modules and an optimizer that they fit."""
    for name, parameter in _trained(model, modules).items():
        parameter.copy_(tensors[name])
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            state["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(state)


def _trained(model: torch.nn.Module, modules: torch.nn.Module | None) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in (("model", model), ("modules", modules))
        for name, parameter in (() if module is None else module.named_parameters())
        if parameter.requires_grad
    }
