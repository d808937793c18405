"""Progress of a training: everything that a resumed run needs besides tensors, as strict JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

_BEST = ("best_loss", "best_error", "best_error_loss")


@dataclass
class Progress:
    """Progress of a run: everything that a resumed run needs besides tensors."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    """Lowest validation loss, nats."""
    best_error: float = math.inf
    """Lowest value of what weights are kept by: the loss, or the error of a measure (validation.py)."""
    best_error_loss: float = math.inf
    """Validation loss at that step."""
    since_best: int = 0
    losses: list[float] = field(default_factory=list)
    """Training losses since the last validation, nats."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Step, train_loss_nats, validation_loss_nats and the measure that weights are kept by, of every validation."""
    stopped_early: bool = False
    tokens: int = 0
    states: dict[str, str] = field(default_factory=dict)
    """Update -> SHA-256 of weights and optimizer state after it: at the first validation and at the end."""

    @property
    def best_measures(self) -> dict[str, float]:
        """The measure that weights are kept by at the best step, as best_validation_<measure>; empty for the loss."""
        best = next((point for point in self.curve if point["step"] == self.best_step), {})
        losses = ("validation_loss_nats",)
        return {f"best_{k}": v for k, v in best.items() if k.startswith("validation_") and k not in losses}

    def shown(self, figures: Mapping[str, float]) -> dict[str, str]:
        """The end of the progress bar: the last validation's loss, and reward and KL of a block of rollouts."""
        said = {"loss": f"{self.curve[-1]['validation_loss_nats']:.3f}"} if self.curve else {}
        names = {"reward": "reward", "kl": "kl_nats"}
        return said | {word: f"{figures[name]:.3f}" for word, name in names.items() if name in figures}

    def as_json(self) -> dict[str, Any]:
        """Strict JSON: infinite best values (none yet) become null."""
        return self.__dict__ | {name: None for name in _BEST if math.isinf(getattr(self, name))}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Progress":
        """The progress from `as_json`. Raises ValueError for any other value."""
        try:
            best = {name: math.inf if value[name] is None else value[name] for name in _BEST}
            progress = TypeAdapter(cls).validate_python(value | best)
            for point in progress.curve:
                point["step"] = int(point["step"])  # a float, 6.0, would give a kept state other bytes
        except (KeyError, ValidationError) as error:
            raise ValueError(f"not the progress of a training: {str(error).splitlines()[-1]}") from None
        if progress.as_json() != value:
            raise ValueError("not the progress of a training: other fields or types")
        return progress
