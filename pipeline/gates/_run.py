"""A gate's run: profile tables, validation, verdict and page, and tickets for admitted data."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import files, integrity
from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.gates import _expectations, _page, _tickets, _verdict, _wording

DATA_GATES = ("raw", "tokens", "samples")
_READS: dict[str, tuple[str, ...]] = {
    "raw": ("raw",),
    "tokens": ("tokens", "raw/documents.parquet"),
    "samples": ("samples", "raw/ledger.json", "tokens/tokenizer"),
}
"""Gate -> files and folders below data/ that it opens; they are deps of its stage in dvc.yaml."""
Timer = Callable[[], AbstractContextManager[Any]]


def judge_data(gate: str, params: Params, *, data: Path, reports: Path, work: Timer = nullcontext) -> dict[str, Any]:
    """The verdict on data/raw, data/tokens or data/samples; writes it, and tickets if it passed.

    The verdict and the tickets of the run before are removed first: where no verdict can be reached, there is none.

    Args:
        gate: raw, tokens or samples.
        params: all of params.yaml.
        data: the folder data/.
        reports: the folder reports/.
        work: makes a context that times the gate's own work, imports excluded.

    Raises:
        UserError: a file that the gate opens is missing, or differs from its recorded hash.
    """
    _withdraw(reports, gate)
    _tickets.withdraw(data / "tickets", gate)
    module = plugins.load("gates", gate)
    settings = _settings(module, params, gate)
    expectations = module.expectations(settings)
    waivers = _verdict.waivers_for(gate, params.waivers, expectations)
    _expectations.library()
    with work():
        for name in _READS[gate]:
            integrity.require_intact(data / name)
        more = {"recipes": params.finetune} if gate == "samples" else {}  # the tasks that will read the samples
        judged = _verdict.judge(gate, module.profile(settings, data, **more), expectations, waivers)
        verdict = _write(judged, reports, params)
        if verdict["passed"]:
            _tickets.write(data / "tickets", gate, module.admits(data))
    return verdict


def judge_model(name: str, params: Params, *, reports: Path, work: Timer = nullcontext) -> dict[str, Any]:
    """The verdict on the model `name`; there is no ticket, the registry reads the verdict.

    Raises:
        UserError: no metrics.json, or one that is damaged.
    """
    _withdraw(reports, name)
    thresholds = params.evaluations[name].thresholds
    model = plugins.load("gates", "model")
    settings = _settings(model, params, "model")
    _expectations.library()
    with work():
        frames = model.profile(reports / "evaluation" / name, thresholds)
        expectations = model.expectations(settings, name, thresholds, frames)
        # A waiver of gate `model` is for any model with the metric; one that names the model must fit it.
        shared = [waiver for waiver in params.waivers if waiver.gate == "model"]
        waivers = [*_verdict.waivers_for(name, params.waivers, expectations), *shared]
        verdict = _write(_verdict.judge(name, frames, expectations, waivers), reports, params)
    return verdict


def _write(judged: _verdict.Judgement, reports: Path, params: Params) -> dict[str, Any]:
    """Writes verdict.json, whose sentences are English, and the page in the language of the report."""
    wording, verdict = _wording.load(params.report.language), judged.verdict()
    _verdict.write(reports / "gates" / judged.gate, verdict, _page.page(judged.verdict(wording), wording))
    return verdict


def _withdraw(reports: Path, gate: str) -> None:
    """Removes the verdict and page of an earlier run."""
    files.remove(reports / "gates" / gate)


def _settings(module: ModuleType, params: Params, gate: str) -> Any:
    return module.Settings.model_validate(params.gates[gate])
