"""The event `tohum.drift`: evidence that a served model has lost quality, sent to Prefect by the watch.

Its payload names model, episode and evidence. An automation of the deployment `retrain-on-drift` (prefect.yaml)
answers it. An episode is one stretch of bad quality: however many looks see it, it is retrained for once, and the kept
note of it makes an event that comes twice, or late, harmless.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import files
from pipeline.errors import UserError
from pipeline.paths import FLOW

EVENT = "tohum.drift"
_DONE = FLOW / "retrained.json"
"""Model -> the episode that the last finished retraining was for. In the project's folder."""


@dataclass(frozen=True)
class Seen:
    """One look of the watch at a model."""

    model: str
    verdict: str
    """quiet, warning or alarm."""
    evidence: tuple[str, ...]
    """input: the requests changed; quality: labels, ratings or losses say that the answers are worse."""
    episode: str

    @property
    def sentence(self) -> str:
        """Verdict and evidence in words."""
        return f"{self.model}: {self.verdict}" + (f", evidence: {' and '.join(self.evidence)}" if self.evidence else "")

    @property
    def asks_for_retraining(self) -> bool:
        """Whether there is evidence of lost quality; changed requests alone only warn."""
        return self.verdict == "alarm" and "quality" in self.evidence


def read(lines: Sequence[str], model: str) -> list[Seen]:
    """The looks in the output of `tohum watch --json`: a JSON object a line.

    Raises:
        UserError: there is none.
    """
    looks = []
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            look: Any = json.loads(line)
            evidence = tuple(map(str, look["evidence"]))
            looks.append(Seen(str(look["model"]), str(look["verdict"]), evidence, str(look["episode"] or "")))
        except (ValueError, KeyError, TypeError):
            continue
    if not looks:
        last = lines[-1] if lines else "nothing"
        raise UserError(f"tohum watch {model}: no verdict, it printed {last}; run it by hand")
    return looks


def retrained(model: str, episode: str) -> bool:
    """Whether a finished retraining was for this episode already. An event without an episode is never answered."""
    return bool(episode) and _notes().get(model) == episode


def note(model: str, episode: str) -> None:
    """Records that the model was retrained for the episode."""
    files.write_json(_DONE, _notes() | {model: episode})


def _notes() -> dict[str, Any]:
    try:
        notes: Any = files.read_json(_DONE)
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}
