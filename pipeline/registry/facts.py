"""The facts of one model in the files of the graph: what its card, its version and its admission are made from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import files, foreign, integrity, outcomes
from pipeline.config.params import Grid, Params
from pipeline.outcomes import Slice
from pipeline.paths import EVALUATION, GATES, MODELS, PROVENANCE, RUNS, SAMPLES, TRAINING
from pipeline.prompts import spec as specs
from pipeline.prompts.spec import TaskSpec
from pipeline.reporting import risks
from pipeline.reporting.risks import Risk
from pipeline.tracking import lineage

NO_GRID = Grid(grams_per_kwh=None, source=None)


@dataclass(frozen=True)
class Facts:
    """The facts of one model in the graph's files."""

    model: str
    """Name of the model."""
    sha256: str
    """SHA-256 of its folder."""
    metrics: dict[str, float]
    """Metrics of its evaluation."""
    gates: dict[str, dict[str, Any]]
    """Gate or model -> verdict."""
    tasks: tuple[TaskSpec, ...]
    """Its tasks by its folder's tohum.json: labels, template, limits; a merged model has several."""
    shape: dict[str, Any]
    """config.json of its folder."""
    recipe: dict[str, Any]
    """Its recipe in params.yaml."""
    thresholds: dict[str, dict[str, float | None]]
    """Metric -> bounds."""
    stages: list[str]
    """The stages that led to it, in order; the last one made it."""
    runs: dict[str, dict[str, Any]]
    """Stage -> run record."""
    sources: dict[str, dict[str, Any]]
    """Source -> provenance."""
    tags: dict[str, str] = field(default_factory=dict)
    """git commit and DVC hashes."""
    training: dict[str, float] = field(default_factory=dict)
    """reports/training/<model>.json."""
    base: dict[str, Any] = field(default_factory=dict)
    """base.json of a folder that holds an adapter only."""
    evaluated: dict[str, Any] = field(default_factory=dict)
    """What its evaluation depended on: `measures`, `compute`, `samples_sha256`; for evaluating another model alike."""
    open_weights: dict[str, Any] = field(default_factory=dict)
    """origin.json of models/base: the open weights that all models were made from."""
    language: str = "en"
    """Language of the card."""
    grid: Grid = NO_GRID
    """Carbon intensity of the grid."""
    review: dict[str, Any] = field(default_factory=lambda: {"identity": "any", "signers": {}})
    """`identity` and `signers` of the review settings."""
    risks: tuple[Risk, ...] = ()
    """The metrics that the policy judges as risks and this model has, the worst first."""
    slices: tuple[Slice, ...] = ()
    """The worst slice of every metric with outcomes by record."""


def gather(model: str, params: Params, sha256: str, models: Path = MODELS) -> Facts:
    """Reads the facts of one model from the files of the graph."""
    stages = chain(model, params)
    recipe = params.pretrain if model == "base" else params.finetune.get(model) or params.merge[model]
    integrity.require_intact(PROVENANCE)
    provenance = files.read_json(PROVENANCE)["sources"] if PROVENANCE.is_file() else {}
    folder = models / model
    gates = {
        gate: integrity.read_json(path)
        for gate in ("raw", "tokens", "samples", model)
        if (path := GATES / gate / "verdict.json").is_file()
    }
    names = [
        "download",
        "tokenize",
        "sample",
        *(name for step in params.lineage(model) for name in (_maker(step, params), f"evaluate@{step}")),
    ]
    evaluated = EVALUATION / model
    metrics = integrity.read_recorded(evaluated / "metrics.json", evaluated / "details.json")
    return Facts(
        model=model, sha256=sha256, gates=gates,
        metrics=metrics,
        tasks=specs.read(folder), shape=_read(folder / "config.json"),
        recipe=recipe.model_dump(mode="json", by_alias=True, exclude={"model"}),
        thresholds=params.evaluations[model].model_dump(mode="json")["thresholds"], stages=stages,
        runs={name: files.read_json(path) for name in names if (path := RUNS / f"{name}.json").is_file()},
        sources=provenance, tags=lineage.git_state() | _hashes(model, stages[-1]),
        training=_training(TRAINING / f"{model}.json"),
        evaluated={
            "measures": params.evaluations[model].model_dump(mode="json")["measures"],
            "compute": params.compute.model_dump(mode="json"),
            "samples_sha256": integrity.identity(SAMPLES) if SAMPLES.is_dir() else "",
        },
        language=params.report.language, grid=params.report.grid,
        review=params.review.model_dump(mode="json", include={"identity", "signers"}),
        risks=tuple(risk for risk in risks.judged(metrics, params.review.policy.risks) if risk.value is not None),
        slices=tuple(outcomes.worst(outcomes.slices(outcomes.read(evaluated / "outcomes.parquet")))),
        base=_read(folder / foreign.BASE), open_weights=_read(models / "base" / foreign.ORIGIN),
    )  # fmt: skip


def _training(path: Path) -> dict[str, Any]:
    return integrity.read_recorded(path, path.with_suffix(".hashes.json")) if path.is_file() else {}


def chain(model: str, params: Params) -> list[str]:
    """The stages from pretraining to the one that makes `model`."""
    return [_maker(step, params) for step in params.lineage(model)]


def _maker(model: str, params: Params) -> str:
    """The stage that makes a model."""
    if model == "base":
        return "pretrain"
    return f"merge@{model}" if model in params.merge else f"finetune@{model}"


def waived(facts: Facts) -> list[tuple[str, dict[str, Any]]]:
    """Gate and verdict entry of every expectation that passed only because of a waiver."""
    return [(gate, entry) for gate, verdict in facts.gates.items() for entry in lineage.waived_expectations(verdict)]


def _hashes(model: str, stage: str) -> dict[str, str]:
    outs = lineage.dvc_outs()
    tags = {f"dvc.in.{path}": digest for path, digest in lineage.locked_inputs(stage).items()}
    return tags | {f"dvc.out.models/{model}": digest for path, digest in outs.items() if path == f"models/{model}"}


def _read(path: Path) -> dict[str, Any]:
    return files.read_json(path) if path.is_file() else {}
