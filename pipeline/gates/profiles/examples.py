"""Records that make no example of a recipe's task: an answer too long for its limits, a label unknown in training.

By the functions with which the recipes' tasks make their examples, so training leaves out nothing that this gate did
not count.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipeline.config.recipe import Finetune, Kind
from pipeline.data.label_cells import distinct_labels
from pipeline.gates._rules import MOST_EXAMPLES, Example, Tally
from pipeline.gates.profiles.splits import Samples
from pipeline.prompts.examples import reason
from pipeline.prompts.spec import TaskSpec


class LeftOut(NamedTuple):
    """The records of one kind and split that make no example of one task."""

    kind: Kind
    split: str
    task: str
    """Name and settings of the task."""
    records: int
    left_out: Tally
    reasons: Counter[str]
    """Reason -> number of records."""


def left_out(samples: Samples, recipes: Mapping[str, Finetune]) -> Iterator[LeftOut]:
    """Per task of the recipes, the records that make no example; recipes of one task are counted once."""
    tasks: dict[str, str] = {}
    for name, recipe in recipes.items():
        if recipe.data != "documents" and samples.records(recipe.data):
            tasks.setdefault(recipe.data + recipe.task.model_dump_json(), name)
    for _, name in sorted(tasks.items()):  # in an order that does not depend on that of the recipes
        yield from _left_out(samples, name, recipes[name])


def _left_out(samples: Samples, name: str, recipe: Finetune) -> Iterator[LeftOut]:
    kind = recipe.data
    settings = recipe.part("task", f"finetune.{name}")
    labels = sorted({label for split, label in samples.counts(kind, "label") if split == "train"})
    form = getattr(settings, "form", None)
    if form == "label_sets":
        labels = distinct_labels(labels)
    fields = {key: value for key, value in settings.model_dump().items() if key in TaskSpec.model_fields}
    if form == "numbers":  # mean and deviation are irrelevant here
        fields |= {"mean": 0.0, "deviation": 1.0}
    spec = TaskSpec(name=recipe.task.name, labels=tuple(labels), **fields)
    row = 0
    found = {
        split: LeftOut(kind, split, _shown(recipe), size, Tally(), Counter())
        for split, size in samples.sizes[kind].items()
    }
    for split, batch in samples.batches(kind, samples.columns(kind)):
        tally, reasons = found[split].left_out, found[split].reasons
        for record in batch.to_pylist():
            fault = reason(form, samples.tokenizer, spec, record)
            if fault is not None:
                reasons[fault.code] += 1
                if tally.count < MOST_EXAMPLES:
                    shown = samples.example(kind, row)
                    tally.add(Example(shown.id, shown.origin, f"{fault.detail}: {shown.text}"))
                else:
                    tally.count += 1
            row += 1
    yield from (counted for counted in found.values() if counted.records)


def _shown(recipe: Finetune) -> str:
    """The task as params.yaml spells it, shortened."""
    fields = recipe.task.model_dump()
    return f"{fields.pop('name')} ({', '.join(f'{key} {value}' for key, value in fields.items())})"[:200]
