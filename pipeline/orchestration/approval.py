"""The models that wait for a person's approval, with their scores and hashes.

The hashes shown go to `tohum register`, which refuses other bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline import files, integrity
from pipeline.orchestration import verdicts
from pipeline.paths import GATES, MODELS, PARAMS
from pipeline.reporting import report


@dataclass(frozen=True)
class Candidate:
    """One model of `register.models`."""

    model: str
    sha256: str
    """Of its folder; empty if it is not there."""
    scores: tuple[tuple[str, float], ...]
    passed: bool
    """Whether its gate passed; only then it is registered."""


def candidates(params: Path = PARAMS) -> list[Candidate]:
    """The models of `register.models`, with their present files."""
    wanted = (yaml.safe_load(params.read_text(encoding="utf-8")).get("register") or {}).get("models") or []
    return [_candidate(str(model)) for model in wanted]


def table(candidates: Sequence[Candidate]) -> str:
    """Markdown: model, scores, gate, SHA-256."""
    rows = ["| model | scores | gate | SHA-256 |", "|---|---|---|---|"]
    for candidate in candidates:
        scores = ", ".join(f"{key} {value:.4f}" for key, value in candidate.scores)
        gate = "passed" if candidate.passed else "failed: will not be registered"
        rows.append(f"| {verdicts.cell(candidate.model)} | {scores} | {gate} | `{candidate.sha256}` |")
    return "\n".join(rows) + "\n"


def changed(approved: Sequence[Candidate]) -> str:
    """An error message if a model differs from the one shown; empty otherwise."""
    for candidate in approved:
        now = _candidate(candidate.model)
        if now.sha256 != candidate.sha256 or not now.passed:
            return (
                f"models/{candidate.model} changed while the approval was awaited: {candidate.sha256} was shown, "
                f"{now.sha256 or 'nothing'} is there now; nothing was registered; run the flow again"
            )
    return ""


def _candidate(model: str) -> Candidate:
    folder, verdict = MODELS / model, GATES / model / "verdict.json"
    passed = verdict.is_file() and integrity.read_json(verdict).get("passed") is True
    sha256 = files.sha256_of(folder) if folder.is_dir() else ""
    return Candidate(model, sha256, tuple(report.leading_scores(model)), passed and bool(sha256))
