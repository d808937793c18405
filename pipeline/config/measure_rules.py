"""Which models and files a measure may read besides its own model, so that DVC knows when its results are old.

A stage evaluate@X depends on models/base, models/X and data/samples. Whatever else a measure reads must decide the
bytes of models/X (a model that it was trained from, or the judge that it learned from), or be pinned by its SHA-256.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config.params import Params
from pipeline.config.recipe import Part


def faults(params: Params) -> Iterator[str]:
    """The measures that read something else, in words."""
    for model, evaluation in params.evaluations.items():
        models, judges = _made_with(model, params)
        for measure, fields in evaluation.measures.items():
            where = f"evaluations.{model}.measures.{measure}"
            parent = fields.get("parent")
            if parent is not None and parent not in models:
                yield (
                    f"{where}.parent is {parent!r}, which {model} was not trained from; one of: "
                    f"{', '.join(sorted(models))}, or null"
                )
            yield from _of_ceiling(where, fields, params)
            for key in ("judge", "truth"):
                yield from _of_judge(f"{where}.{key}", fields.get(key), {f"models/{name}" for name in models} | judges)


def _of_judge(where: str, part: Any, known: set[str]) -> Iterator[str]:
    """A judge is named or null, and reads something that the model was made with, or that is pinned.

    Raises:
        UserError: an unknown judge, or one with wrong settings.
    """
    if not isinstance(part, Mapping):
        return
    if part.get("name") == "none":
        yield f"{where}.name is 'none'; write `null` for no judge"
        return
    settings = Part.model_validate(part).settings("judges", where)
    if settings.reads not in known and getattr(settings, "sha256", None) is None:
        pinned = ", or pin a folder below inputs/ by its sha256" if hasattr(settings, "sha256") else ""
        yield (
            f"{where}.reads is {settings.reads!r}, which the model was not made with; one of: "
            f"{', '.join(sorted(known))}{pinned}"
        )


def _of_ceiling(where: str, fields: Mapping[str, Any], params: Params) -> Iterator[str]:
    """A ceiling has the figures of the world whose pairs are measured: others would be a false yardstick."""
    source = params.download.sources.get(str(fields.get("source")))
    taste = getattr(source, "taste", None)
    if not (isinstance(fields.get("ceiling"), Mapping) and isinstance(taste, Mapping)):
        return
    stated = {key: taste.get(key) for key in fields["ceiling"]}
    if stated != fields["ceiling"]:
        yield (
            f"{where}.ceiling is {dict(fields['ceiling'])}, and download.sources.{fields['source']}.taste states "
            f"{stated}; write those, or null"
        )


def _made_with(model: str, params: Params) -> tuple[set[str], set[str]]:
    """Models that decide a model's bytes, itself and base included, and the files and folders of judges."""
    models, judges, waiting = {"base"}, set[str](), [model]
    while waiting:
        name = waiting.pop()
        if name in models and name != model:
            continue
        models.add(name)
        if merge := params.merge.get(name):
            waiting += [one for one in (merge.of, merge.first, merge.second) if one not in models]
        elif recipe := params.finetune.get(name):
            judge = getattr(recipe, "judge", None)
            reads = getattr(judge, "reads", None)
            if isinstance(reads, str):
                judges.add(reads)
                waiting += [reads.removeprefix("models/")] if reads.startswith("models/") else []
            waiting += [one for one in (recipe.start, recipe.reference) if one not in models]
    return models, judges
