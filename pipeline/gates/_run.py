"""Runs a gate: profile, judge, write verdict and page, and give tickets to what passed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import integrity
from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.gates import _expectations, _tickets, _verdict

DATA_GATES = ("raw", "tokens", "samples")
_READS: dict[str, tuple[str, ...]] = {
    "raw": ("raw",),
    "tokens": ("tokens", "raw/documents.parquet"),
    "samples": ("samples", "raw/ledger.json", "tokens/tokenizer"),
}
"""Gate -> files and folders below data/ that it opens, as dvc.yaml says."""
Work = Callable[[], AbstractContextManager[Any]]


def judge_data(gate: str, params: Params, *, data: Path, reports: Path, work: Work = nullcontext) -> dict[str, Any]:
    """The verdict on data/raw, data/tokens or data/samples; tickets if it passed, none if it did not.

    `work` surrounds what is work, and not the import of the tools.

    Raises:
        UserError: a file that the gate opens is missing, or differs from its recorded hash.
    """
    module = plugins.load("gates", gate)
    settings = _settings(module, params, gate)
    rules = module.expectations(settings)
    waivers = _verdict.waivers_for(gate, params.waivers, rules)
    _expectations.door()
    with work():
        for name in _READS[gate]:
            integrity.require_intact(data / name)
        _tickets.withdraw(data / "tickets", gate)
        verdict = _verdict.reach(gate, module.profile(settings, data), rules, waivers)
        _verdict.write(reports / "gates" / gate, verdict)
        if verdict["passed"]:
            _tickets.write(data / "tickets", gate, module.admits(data))
    return verdict


def judge_model(name: str, params: Params, *, reports: Path, work: Work = nullcontext) -> dict[str, Any]:
    """The verdict on a model; there is no ticket, the registry reads the verdict."""
    thresholds = params.evaluations[name].thresholds
    model = plugins.load("gates", "model")
    settings = _settings(model, params, "model")
    _expectations.door()
    with work():
        frames = model.profile(reports / "evaluation" / name, thresholds)
        rules = model.expectations(settings, name, thresholds, frames)
        # A waiver of gate `model` is for any model with the metric; one that names the model must fit it.
        shared = [waiver for waiver in params.waivers if waiver.gate == "model"]
        waivers = [*_verdict.waivers_for(name, params.waivers, rules), *shared]
        verdict = _verdict.reach(name, frames, rules, waivers)
        _verdict.write(reports / "gates" / name, verdict)
    return verdict


def _settings(module: ModuleType, params: Params, gate: str) -> Any:
    return module.Settings.model_validate(params.gates[gate])
