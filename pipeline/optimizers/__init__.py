"""Optimizers. Each file is one: `build(settings, groups) -> torch.optim.Optimizer`.

`groups` come from a tuner (`pipeline.tuners.group`). This file holds Muon, which `muon` and `normuon` share: orthogonal
updates for the matrices inside the blocks, AdamW for all other weights. Five Newton-Schulz steps bring the momentum's
singular values to about one (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the quintic
coefficients are theirs). The update is scaled by sqrt(max(1, rows / columns)), as there. Matrices of one shape go
through the iteration together: one batched product instead of many small ones.

Shapes: N matrices of R rows and C columns.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
_STEPS = 5


class MuonSettings(Protocol):
    """The settings that every variant of Muon has."""

    @property
    def learning_rate(self) -> float:
        """Peak for embeddings, heads and vectors (AdamW)."""

    @property
    def matrix_learning_rate(self) -> float:
        """Peak for the matrices of the blocks (Muon)."""

    @property
    def momentum(self) -> float:
        """Decay of the momentum of the matrices' gradients."""

    @property
    def weight_decay(self) -> float:
        """Decoupled weight decay of matrices."""

    @property
    def beta1(self) -> float:
        """AdamW's decay of the first moment."""

    @property
    def beta2(self) -> float:
        """AdamW's decay of the second moment."""

    @property
    def epsilon(self) -> float:
        """Added to the denominators."""


class Muon(torch.optim.Optimizer):
    """Muon and AdamW in one optimizer; `algorithm` of a parameter group selects the update."""

    def __init__(self, settings: MuonSettings, groups: list[dict[str, Any]]) -> None:
        self.settings = settings
        split = []
        for group in groups:
            inside = [
                p.dim() == 2 and name.startswith("blocks.")
                for p, name in zip(group["params"], group["names"], strict=True)
            ]
            matrices = [p for p, is_inside in zip(group["params"], inside, strict=True) if is_inside]
            rest = [p for p, is_inside in zip(group["params"], inside, strict=True) if not is_inside]
            for algorithm, params, rate in (
                ("muon", matrices, settings.matrix_learning_rate),
                ("adamw", rest, settings.learning_rate),
            ):
                if params:
                    peak = rate * group["factor"]
                    split.append(
                        {
                            "params": params,
                            "lr": peak,
                            "peak": peak,
                            "algorithm": algorithm,
                            "begins": group["begins"],
                            "fused": algorithm == "adamw",  # torch loads its step count to the weights' device
                        }
                    )
        super().__init__(split, {})

    @torch.no_grad()
    def step(self, _closure: Any = None) -> None:  # type: ignore[override]  # training passes no closure
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:  # the parameters of a group that is still frozen have no gradient
                (self._muon if group["algorithm"] == "muon" else self._adamw)(params, group["lr"])

    def _muon(self, params: list[Tensor], rate: float) -> None:
        settings = self.settings
        grads = [p.grad for p in params if p.grad is not None]
        momenta = [self._state(p, "momentum") for p in params]
        torch._foreach_lerp_(momenta, grads, 1 - settings.momentum)
        nesterov = torch._foreach_lerp(grads, momenta, settings.momentum)
        if settings.weight_decay:
            torch._foreach_mul_(params, 1 - rate * settings.weight_decay)
        by_shape: dict[torch.Size, list[int]] = {}
        for i, p in enumerate(params):
            by_shape.setdefault(p.shape, []).append(i)
        for shape, indices in by_shape.items():
            weights = [params[i] for i in indices]
            updates_NRC = self.rescale(orthogonalize(torch.stack([nesterov[i] for i in indices])), weights)
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_add_(weights, updates_NRC.unbind(), alpha=-rate * scale)

    def rescale(self, updates_NRC: Tensor, _weights: list[Tensor]) -> Tensor:
        """updates_NRC: the orthogonal updates of N weights of one shape as they are; a variant may rescale them."""
        return updates_NRC

    def _adamw(self, params: list[Tensor], rate: float) -> None:
        settings = self.settings
        for decays in (True, False):
            chosen = [p for p in params if (p.dim() >= 2) == decays]
            if chosen:
                steps = [self._state(p, "step", ()) for p in chosen]
                torch._foreach_add_(steps, 1)
                torch._fused_adamw_(
                    chosen,
                    [p.grad for p in chosen if p.grad is not None],
                    [self._state(p, "first") for p in chosen],
                    [self._state(p, "second") for p in chosen],
                    [],
                    steps,
                    lr=rate,
                    beta1=settings.beta1,
                    beta2=settings.beta2,
                    weight_decay=settings.weight_decay if decays else 0.0,
                    eps=settings.epsilon,
                    amsgrad=False,
                    maximize=False,
                )

    def _state(self, p: Tensor, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        state: dict[str, Tensor] = self.state[p]
        if name not in state:
            state[name] = torch.zeros_like(p) if shape is None else torch.zeros(shape, device=p.device)
        return state[name]


def orthogonalize(matrices_NRC: Tensor) -> Tensor:
    """U V^T of each matrix, [N, R, C], approximately: Newton-Schulz leaves singular values in about [0.7, 1.2].

    In bfloat16 under autocast, as in the paper: the iteration tolerates its rounding.
    """
    a, b, c = _QUINTIC
    x: Tensor = matrices_NRC / (matrices_NRC.norm(dim=(1, 2), keepdim=True) + 1e-7)
    device, dtype = x.device.type, x.dtype
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device), memory_format=torch.contiguous_format)
    with torch.autocast(device, enabled=False):  # autocast would check every argument of every product
        for _ in range(_STEPS):
            gram = x @ x.mT
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).to(dtype)
