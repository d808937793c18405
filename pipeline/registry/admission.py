"""Admission to the registry: only evaluated bytes of a current graph whose gates passed.

Each function raises UserError with the reason and the next step. No tracking server is needed.
"""

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline import files, integrity
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import DVC_LOCK, EVALUATION, GATES, MODELS
from pipeline.registry import card
from pipeline.registry.card import Facts

_GATES_BEFORE = ("raw", "tokens", "samples")


def require_models(models: list[str], params: Params) -> None:
    """Raises UserError for a name that is no model of params.yaml."""
    if unknown := [model for model in models if model not in params.evaluations]:
        raise UserError(f"register: {unknown} are not models of params.yaml; one of: {', '.join(params.evaluations)}")


def require_current(models: list[str]) -> None:
    """dvc.lock must exist and nothing the models depend on may have changed since."""
    if not DVC_LOCK.is_file():
        raise UserError("dvc.lock: not there, so nothing was made yet; run `dvc repro`, then register")
    targets = [f"validate-model@{model}" for model in models]
    stale = _stale(targets)
    if "code" in stale:  # an edit that changes no result leaves the others as they are; it writes what they depend on
        _dvc("repro", "--single-item", "code")
        stale = _stale(targets)
    if stale:
        raise UserError(
            f"dvc.lock is stale: {', '.join(sorted(stale))} changed since the last run; run `dvc repro`, then register"
        )


def _stale(targets: list[str]) -> dict[str, object]:
    """The stale stages among these and their upstream stages, with the reasons."""
    stages: dict[str, object] = json.loads(_dvc("status", "--json", "--with-deps", *targets) or "{}")
    return stages


def _dvc(*arguments: str) -> str:
    """The output of a dvc command. Raises UserError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"},
    )
    if done.returncode != 0:
        raise UserError(f"dvc {arguments[0]} failed: {done.stderr.strip()[-500:]}; fix that, then register")
    return done.stdout


def admit(model: str, params: Params, today: date | None = None) -> Facts:
    """The facts of a model that may be registered.

    Raises:
        UserError: a missing or failed verdict, a waiver past its date, a damaged folder, or bytes that
            differ from the evaluated ones.
    """
    folder = MODELS / model
    _require_verdict(model)
    sha256 = _require_evaluated(model, folder)
    facts = card.gather(model, params, sha256, MODELS)
    _require_waivers(facts, today or datetime.now(UTC).date())
    return facts


def _require_verdict(model: str) -> None:
    for gate in (*_GATES_BEFORE, model):
        path = GATES / gate / "verdict.json"
        if not path.is_file():
            raise UserError(f"{model}: {path} is not there, so gate {gate} has not judged; run `dvc repro`")
        if integrity.read_json(path).get("passed") is not True:
            page = path.with_name("page.html")
            raise UserError(
                f"{model}: gate {gate} did not pass; read {page}, fix the model or its data, run `dvc repro`"
            )


def _require_evaluated(model: str, folder: Path) -> str:
    """Hash of the folder, which must be intact and equal to the evaluated one."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise UserError(f"{manifest}: not there; run `dvc repro` or `dvc checkout`")
    integrity.require_intact(folder)
    details = EVALUATION / model / "details.json"
    measured = integrity.read_json(details).get("model_sha256") if details.is_file() else None
    sha256 = files.sha256_of(folder)
    if sha256 != measured:
        raise UserError(f"{folder}: sha256 is {sha256}, {details} measured {measured}; run `dvc repro`, then register")
    return sha256


def _require_waivers(facts: Facts, today: date) -> None:
    for gate, entry in card.waived(facts):
        last = _date(entry["waiver"]["until"])
        if last < today:
            raise UserError(
                f"{facts.model}: the waiver for {entry['expectation']} on {entry['column']} (gate {gate}) "
                f"ended on {last}; fix the cause, or renew `until` in params.yaml after review"
            )


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UserError(f"params.yaml: waivers: until is {text!r}, expected a date such as 2027-01-31") from None
