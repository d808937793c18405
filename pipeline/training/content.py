"""Tensors of a training state: weights, optimizer, modules of the loss, example weights, and the buffer of rollouts.

Names: `model.`, `modules.`, `optimizer.`, `best.` (the best weights so far), `weighting.` and `experience.`.
"""

from torch import Tensor

from pipeline.experience import Experience
from pipeline.model.gpt import GPT
from pipeline.training import tensors as named
from pipeline.training.loop import Parts

_BUFFER = "experience."


def tensors(model: GPT, parts: Parts, experience: Experience, best: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors that a resumed run needs, by name."""
    found = named.pack(model, parts.optimizer, parts.loss.modules)
    found |= {f"best.{k}": v for k, v in best.items()}
    found |= {f"{_BUFFER}{k}": v for k, v in experience.memory.items()}
    return found | {f"weighting.{k}": v for k, v in parts.weighting.memory.items()}


def restore(saved: dict[str, Tensor], model: GPT, parts: Parts, experience: Experience) -> None:
    """Copies the tensors of a state, for which `mismatch` gives None, into a run."""
    for name, value in parts.weighting.memory.items():
        value.copy_(saved[f"weighting.{name}"])
    named.unpack(saved, model, parts.optimizer, parts.loss.modules)
    experience.restore(below(_BUFFER, saved))


def mismatch(saved: dict[str, Tensor], expected: dict[str, Tensor], parts: Parts, experience: Experience) -> str | None:
    """The first difference between the tensors of a state and those of this run; None if they fit.

    Args:
        saved: the tensors of the state.
        expected: `tensors` of this run, with best weights; its buffer may be another or none.
        parts: of this run.
        experience: of this run.
    """
    if reason := experience.problem(below(_BUFFER, saved)):
        return f"its buffer: {reason}"
    rest = {name: value for name, value in saved.items() if not name.startswith(_BUFFER)}
    wanted = {name: value for name, value in expected.items() if not name.startswith(("optimizer.", _BUFFER))}
    return named.mismatch(rest, wanted, sum(len(group["params"]) for group in parts.optimizer.param_groups))


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
