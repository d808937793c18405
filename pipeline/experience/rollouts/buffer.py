"""The buffer of a block: its rollouts with their scores, as examples, as columns, and as tensors of the saved state.

Shapes: E rollouts, T positions (position t predicts token t + 1, as in `targets_BT` of collate), A tokens of the
longest answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.contracts import Rollout
from pipeline.experience import Rows
from pipeline.tasks import IGNORED

_COLUMN = "column."
_TENSORS = {"block": 1, "records": 1, "answers": 2, "logprobs": 2, "scores": 1, "ended": 1}
"""Name in the saved state -> dimensions; beside them a tensor for each column of the loss."""


@dataclass
class Buffer:
    """Rollouts as examples."""

    block: int
    """Number of the block from 0."""
    rollouts: Sequence[Rollout]
    records_E: Rows
    """Number of each rollout's prompt among the training examples."""
    scores_E: Tensor
    """Of the judge, float32."""
    temperature: float
    """At which the answers were drawn."""
    max_tokens: int
    """Most tokens of an answer."""
    columns: dict[str, Tensor] = field(default_factory=dict)
    """Of the loss, by name."""

    def __len__(self) -> int:
        return len(self.rollouts)

    def __getitem__(self, i: int) -> tuple[list[int], list[int]]:
        rollout = self.rollouts[i]
        return [*rollout.prompt, *rollout.answer], [*[IGNORED] * len(rollout.prompt), *rollout.answer]

    @property
    def all_columns(self) -> dict[str, Tensor]:
        """behaviour_logprobs [E, T], score, group and ended [E], and those of the loss."""
        width = max(len(rollout.prompt) + len(rollout.answer) for rollout in self.rollouts) - 1
        behaviour_ET = torch.zeros(len(self), width)
        for row, rollout in enumerate(self.rollouts):
            first = len(rollout.prompt) - 1
            behaviour_ET[row, first : first + len(rollout.answer)] = torch.tensor(rollout.logprobs)
        own = {
            "behaviour_logprobs": behaviour_ET,
            "score": self.scores_E,
            "group": torch.tensor([rollout.group for rollout in self.rollouts]),
            "ended": torch.tensor([rollout.ended for rollout in self.rollouts]),
        }
        if taken := own.keys() & self.columns.keys():
            raise ValueError(f"column {min(taken)!r} of the loss has the name of one of the experience; rename it")
        return own | self.columns

    def without_spread(self) -> list[int]:
        """First rollouts of the groups whose answers all have the same score."""
        return [first for first, group in self._groups() if len(set(self.scores_E[group].tolist())) == 1]

    def without_text(self) -> list[int]:
        """First rollouts of the groups whose answers are all empty."""
        return [first for first, group in self._groups() if not any(self.rollouts[i].text.strip() for i in group)]

    def _groups(self) -> list[tuple[int, list[int]]]:
        members: dict[int, list[int]] = {}
        for row, rollout in enumerate(self.rollouts):
            members.setdefault(rollout.group, []).append(row)
        return [(rows[0], rows) for rows in members.values()]

    # -- the saved state ----------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """The buffer as named tensors."""
        longest = max(len(rollout.answer) for rollout in self.rollouts)
        answers_EA = torch.full((len(self), longest), -1)
        logprobs_EA = torch.zeros(len(self), longest)
        for row, rollout in enumerate(self.rollouts):
            answers_EA[row, : len(rollout.answer)] = torch.tensor(rollout.answer)
            logprobs_EA[row, : len(rollout.answer)] = torch.tensor(rollout.logprobs)
        return {
            "block": torch.tensor([self.block]),
            "records": torch.from_numpy(self.records_E),
            "answers": answers_EA,
            "logprobs": logprobs_EA,
            "scores": self.scores_E,
            "ended": torch.tensor([rollout.ended for rollout in self.rollouts]),
        } | {f"{_COLUMN}{name}": column for name, column in self.columns.items()}


def problem(tensors: Mapping[str, Tensor], rollouts: int, prompts: int) -> str | None:
    """The reason why saved tensors are no buffer of so many rollouts of so many training prompts, or None."""
    if missing := sorted(_TENSORS.keys() - tensors.keys()):
        return f"{missing[0]} is missing"
    for name, tensor in tensors.items():
        if name not in _TENSORS and not name.startswith(_COLUMN):
            return f"{name} is not part of it"
        if name in _TENSORS and tensor.dim() != _TENSORS[name]:
            return f"{name} has shape {list(tensor.shape)}"
        if name != "block" and len(tensor) != rollouts:
            return f"{name} is of {len(tensor)} rollouts, a block of this run has {rollouts}"
    records_E, answers_EA = tensors["records"], tensors["answers"]
    if tensors["logprobs"].shape != answers_EA.shape or bool((answers_EA[:, :1] < 0).any()):
        return "answers and logprobs do not fit"
    if not 0 <= int(records_E.min()) <= int(records_E.max()) < prompts:
        return f"it names prompt {int(records_E.max())} of {prompts}"
    return None


def answers_of(tensors: Mapping[str, Tensor]) -> list[tuple[tuple[int, ...], tuple[float, ...], bool]]:
    """Ids, log-probabilities and whether it ended by the stop id, of every saved answer."""
    rows: list[Any] = list(zip(tensors["answers"], tensors["logprobs"], tensors["ended"].tolist(), strict=True))
    found = []
    for ids_A, logprobs_A, ended in rows:
        n = int((ids_A >= 0).sum())
        found.append((tuple(ids_A[:n].tolist()), tuple(logprobs_A[:n].tolist()), bool(ended)))
    return found


def columns_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The saved columns of the loss."""
    return {name.removeprefix(_COLUMN): value for name, value in tensors.items() if name.startswith(_COLUMN)}


def records_of(tensors: Mapping[str, Tensor]) -> Rows:
    """The saved numbers of the prompts."""
    records: Rows = tensors["records"].numpy().astype(np.int64)
    return records
