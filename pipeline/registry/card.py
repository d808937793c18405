"""The model card in Markdown (Mitchell et al. 2019): architecture, scores, data, gates, training, costs, limits.

Written for the reviewer who decides whether the model may be used. All of it is read from files of the graph.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline import files, foreign, integrity
from pipeline.config.params import Params
from pipeline.paths import EVALUATION, GATES, MODELS, PROVENANCE, RUNS, SAMPLES, TRAINING
from pipeline.prompts import spec as specs
from pipeline.prompts.spec import TaskSpec
from pipeline.reporting import in_words
from pipeline.tracking import lineage


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
    return Facts(
        model=model, sha256=sha256, gates=gates,
        metrics=integrity.read_recorded(evaluated / "metrics.json", evaluated / "details.json"),
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


def render(facts: Facts, name: str) -> str:
    """The card as Markdown; `name` is the registered model's."""
    parts = [
        f"# {name}",
        _summary(facts),
        "## Scores\n\n" + _scores(facts),
        "## Data\n\n" + _sources(facts.sources),
        "## Gates\n\n" + _table(["gate", "verdict"], ([gate, lineage.verdict_summary(verdict)]
                                                     for gate, verdict in facts.gates.items())),
        "## Waivers\n\n" + _waivers(facts),
        "## Training\n\n" + " → ".join(facts.stages) + _amount(facts) + "\n\n```yaml\n"
        + yaml.safe_dump(facts.recipe, sort_keys=False, allow_unicode=True) + "```",
        "## Costs\n\n" + _costs(facts.runs),
        "## Limits\n\n" + _limits(facts),
        "## Origin\n\n" + _table(["", ""], ([key, f"`{value}`"] for key, value in
                                            (_hashes_of(facts) | facts.tags).items())),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _hashes_of(facts: Facts) -> dict[str, str]:
    """The model's hash; of an adapter the base's too, and of open weights their repository, commit, hash, licence."""
    rows = {"model sha256": facts.sha256}
    if facts.base:
        rows |= {"stored as": "adapter only", "base": facts.base["name"], "base sha256": facts.base["sha256"]}
    names = {"repository": "open weights", "revision": "commit", "sha256": "sha256", "licence": "licence"}
    for key, name in names.items():
        if facts.open_weights.get(key):
            rows[name if key == "repository" else f"open weights {name}"] = str(facts.open_weights[key])
    return rows


def _summary(facts: Facts) -> str:
    kind = {
        "classify": "Classifier",
        "cloze": "Classifier by words",
        "multi_label": "Classifier with several labels a text",
        "regress": "Regression model",
        "instruct": "Instruction follower",
        "chat": "Chat model",
        "unchanged": "Unchanged open weights",
    }.get(facts.tasks[0].name, "Language model")
    shape = facts.shape
    layers, width = (  # in the names of our families, DistilBERT and T5
        next((shape[name] for name in names if shape.get(name)), None)
        for names in (
            ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
            ("hidden_size", "n_embd", "dim", "d_model"),
        )
    )
    named = next((spec.labels for spec in facts.tasks if spec.labels), ())
    labels = f" Labels: {', '.join(named)}." if named else ""
    return (
        f"{kind} of the {shape.get('model_type', 'unknown')} family: {layers} layers, {width} wide, "
        f"vocabulary {shape.get('vocab_size')}.{labels}"
    )


def _scores(facts: Facts) -> str:
    """The metrics with the interval of those that are shares of records, and the model beside its baseline."""
    rows = (
        [key, f"{value:.6g}", in_words.interval(facts.metrics, key), _bound(facts.thresholds.get(key))]
        for key, value in sorted(facts.metrics.items())
    )
    table = _table(["measure", "value", "95 % interval", "required"], rows)
    sentence = in_words.baseline_sentence(facts.metrics)
    return f"{sentence}\n\n{table}" if sentence else table


def _amount(facts: Facts) -> str:
    """Epochs and tokens of the last stage; empty for a merged model."""
    examples = "records" if facts.recipe.get("data", "documents") != "documents" else "windows"
    amount = in_words.amount_of_training(facts.training, examples)
    return f"\n\n{amount}, {facts.training['tokens']:,.0f} tokens in {facts.stages[-1]}." if amount else ""


def _sources(sources: Mapping[str, Mapping[str, Any]]) -> str:
    rows = (
        [
            key,
            entry.get("address") or entry.get("name"),
            entry.get("licence"),
            _consent(entry),
            ", ".join(f"{kind} {n}" for kind, n in sorted((entry.get("rows") or {}).items()) if n),
            (entry.get("sha256") or "")[:12],
        ]
        for key, entry in sorted(sources.items())
    )
    table = _table(["source", "address", "licence", "consent", "records", "sha256"], rows)
    return "\n".join([table, "", *(f"- {line}" for line in lines)]) if (lines := _made_from_others(sources)) else table


def _made_from_others(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each source whose records a model or an augmentation made of another source's."""
    lines = []
    for key, entry in sorted(sources.items()):
        details = entry.get("details", {})
        if twins := details.get("twins"):
            words = ", ".join(f"{n:,} by {name}" for name, n in twins.items())
            lines.append(
                f"{key}: {sum(twins.values()):,} changed copies ({words}) of the {details['records']:,} records of "
                f"{details['of']}, {details['share_of_records']:.0%} of their number; in training only."
            )
        elif models := details.get("models"):
            lines.append(
                f"{key}: questions and answers written by {', '.join(models)} ({details['asked']}), prompts "
                f"`{details['prompts_sha256'][:12]}`; compared with their passages by the raw gate."
            )
    return lines


def _consent(entry: Mapping[str, Any]) -> Any:
    """The basis of a source's records; where they state their own, the number of records of each."""
    stated = entry.get("consents")
    return ", ".join(f"{basis} {n}" for basis, n in sorted(stated.items())) if stated else entry.get("consent")


def _waivers(facts: Facts) -> str:
    rows = (
        [gate, entry["expectation"], entry["column"], entry["waiver"]["reason"], entry["waiver"]["until"]]
        for gate, entry in waived(facts)
    )
    return _table(["gate", "expectation", "column", "reason", "until"], rows) if waived(facts) else "None."


def _costs(runs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            stage,
            _number(run.get("seconds_total")),
            _number(run.get("peak_memory_mib")),
            _number(run.get("energy_wh_measured")),
            _number(run.get("energy_wh_estimated")),
            f"{run.get('device', '')}, {run.get('threads', '')} threads",
        ]
        for stage, run in runs.items()
    ]
    header = ["stage", "seconds", "memory MiB", "Wh measured", "Wh estimated", "device"]
    return _table(header, rows) if rows else "No run records."


def _trained_on(facts: Facts) -> str:
    """What the model has learned from, in words."""
    if facts.tasks[0].name == "unchanged":
        return "- Trained by its authors alone, on their data; on none of the sources above."
    if facts.open_weights:
        return (
            "- Starts from open weights, trained by their authors on data that this card does not know; then trained "
            "on the sources above. Errors and biases of both are included."
        )
    return "- Trained only on the sources above, their errors and biases included."


def _limits(facts: Facts) -> str:
    context = facts.shape.get("max_position_embeddings") or facts.shape.get("n_positions")
    lines = [
        f"- Reads at most {facts.tasks[0].max_prompt_tokens or context} tokens; longer texts are cut, elsewhere by "
        "transformers than here (README.md in the model's folder, with code for transformers and peft).",
        _trained_on(facts),
        "- Was evaluated on held-out records of the same sources; results on other text may be worse.",
    ]
    if any("synthetic" in (entry.get("consents") or {entry.get("consent")}) for entry in facts.sources.values()):
        lines.append(
            "- Was trained on synthetic text about an invented world: a check of the pipeline, not a model for use."
        )
    if "epsilon" in facts.training:
        lines.append(
            "- Trained with differential privacy of each example of its last recipe, epsilon "
            f"{facts.training['epsilon']:.2f} at delta {facts.training['delta']:g}; none against anyone with the seed."
        )
    lines += [line for spec in facts.tasks if (line := _decision(spec))]
    if any(spec.generates for spec in facts.tasks):
        lines.append("- May make false statements; its answers are not filtered.")
    return "\n".join(lines)


def _decision(task: TaskSpec) -> str:
    """How a task decides its answer from its scores; empty for one that generates text."""
    shown = ", ".join(f"{label} {threshold:.3g}" for label, threshold in (task.thresholds or {}).items())
    chosen = {"f1": "the highest F1", "cost": "the lowest mean cost"}.get(task.decided_by or "", "")
    if task.name == "regress":
        return (
            f"- Always answers with a number; the numbers of its training texts have the mean {task.mean:.6g} and the "
            f"standard deviation {task.deviation:.6g}. It states no uncertainty."
        )
    if not task.labels:
        return ""
    if task.name == "multi_label":
        limits = f"its threshold, chosen on validation for {chosen}: {shown}" if shown else "0.5"
        return f"- Answers with every label whose probability reaches {limits}; probabilities are not calibrated."
    if shown:
        return (
            f"- Always answers with one of its labels, the one whose probability is largest relative to its threshold, "
            f"chosen on validation for {chosen}: {shown}; the score is not calibrated."
        )
    return "- Always answers with one of its labels; the score is not calibrated."


def _hashes(model: str, stage: str) -> dict[str, str]:
    outs = lineage.dvc_outs()
    tags = {f"dvc.in.{path}": digest for path, digest in lineage.locked_inputs(stage).items()}
    return tags | {f"dvc.out.models/{model}": digest for path, digest in outs.items() if path == f"models/{model}"}


def _bound(bound: Mapping[str, float | None] | None) -> str:
    if bound is None:
        return ""
    least, most = bound.get("at_least"), bound.get("at_most")
    return ", ".join(
        [*([f">= {least:g}"] if least is not None else []), *([f"<= {most:g}"] if most is not None else [])]
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; bars and line breaks in cells cannot break it."""

    def line(cells: Iterable[Any]) -> str:
        texts = ("" if cell is None else str(cell) for cell in cells)
        return "| " + " | ".join(" ".join(text.replace("|", "\\|").split()) for text in texts) + " |"

    return "\n".join([line(header), line("---" for _ in header), *map(line, rows)])


def _read(path: Path) -> dict[str, Any]:
    return files.read_json(path) if path.is_file() else {}
