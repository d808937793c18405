"""The metadata header of the model card, as Hugging Face reads it: language, licence, base model, datasets, results.

https://huggingface.co/docs/hub/model-cards#model-card-metadata. Made by huggingface_hub's ModelCardData from facts of
the graph; a licence that sources do not agree on is `other`, and the card's table of sources says which they are.
"""

from typing import Any

from pipeline.registry.facts import Facts

# Metric -> name by which the Hub knows it.
_METRICS = {
    "accuracy": "accuracy", "macro_f1": "f1", "micro_f1": "f1", "exact_match": "exact_match", "chrf": "chrf",
    "rouge_l": "rouge", "perplexity": "perplexity", "rmse": "rmse", "mae": "mae",
}  # fmt: skip
_CLASSIFIES = ("classify", "cloze", "multi_label", "regress", "reward")
_HUB = "hf://datasets/"


def render(facts: Facts, name: str) -> str:
    """The header between its lines of dashes; `name` is the registered model's."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "text-classification" if facts.tasks[0].name in _CLASSIFIES else "text-generation"
    results = [
        EvalResult(
            task_type=task, dataset_type="held-out", dataset_name=", ".join(sorted(facts.sources)) or facts.model,
            dataset_split="test", metric_type=_METRICS[metric], metric_name=metric, metric_value=round(value, 6),
        )
        for metric, value in sorted(facts.metrics.items())
        if metric in _METRICS
    ]  # fmt: skip
    data = ModelCardData(
        language=_languages(facts),
        license=_licence(facts),
        library_name="transformers",
        pipeline_tag=task,
        base_model=_base_model(facts, name),
        datasets=_datasets(facts),
        tags=["tohum", *_tags(facts)],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _languages(facts: Facts) -> list[str] | None:
    """Languages of the documents or records, as the raw gate counted them; None where it did not."""
    rows = facts.gates.get("raw", {}).get("profile", {}).get("languages", [])
    return sorted({str(row["language"]) for row in rows}) or None


def _licence(facts: Facts) -> str:
    """The one licence of all sources and open weights as an identifier, else `other`."""
    licences = {str(entry.get("licence") or "other").lower() for entry in facts.sources.values()}
    if facts.open_weights:
        licences.add(str(facts.open_weights.get("licence") or "other").lower())
    one = licences.pop() if len(licences) == 1 else "other"
    return one if " " not in one else "other"


def _base_model(facts: Facts, name: str) -> str | list[str] | None:
    """The open weights' repository, or the registered names of the models that it was made from; None for a base."""
    if facts.open_weights.get("repository"):
        return str(facts.open_weights["repository"])
    prefix = name.removesuffix(facts.model)
    parents = [facts.recipe[key] for key in ("from", "first", "second") if isinstance(facts.recipe.get(key), str)]
    return [f"{prefix}{parent}" for parent in parents] or None


def _datasets(facts: Facts) -> list[str] | None:
    addresses = (str(entry.get("address") or "") for entry in facts.sources.values())
    return sorted({one.removeprefix(_HUB) for one in addresses if one.startswith(_HUB)}) or None


def _tags(facts: Facts) -> list[str]:
    """Family, task and tuner."""
    tuner: Any = facts.recipe.get("tuner") or {}
    known = [facts.shape.get("model_type"), facts.tasks[0].name, tuner.get("name")]
    return [str(one) for one in dict.fromkeys(known) if one]
