"""Records that make no example of a recipe's task: an answer too long for its limits, a label unknown in training.

Each recipe's own task is asked, record by record, so a stage that trains finds nothing that this gate did not count.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipeline.config import plugins
from pipeline.config.recipe import Finetune, Kind
from pipeline.gates._rules import MOST_EXAMPLES, Tally
from pipeline.gates.profiles.splits import Samples


class LeftOut(NamedTuple):
    """The records of one kind that make no example of one task."""

    kind: Kind
    recipes: str
    """The recipes with this task, as a list of names."""
    records: int
    left_out: Tally
    reasons: Counter[str]
    """Reason -> number of records."""


def left_out(samples: Samples, recipes: Mapping[str, Finetune]) -> Iterator[LeftOut]:
    """Per task of the recipes, the records that make no example; recipes of one task are counted once.

    Raises:
        UserError: a task that cannot be built for these records, such as verbalizers for other labels.
    """
    alike: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        if recipe.data != "documents" and samples.records(recipe.data):
            alike.setdefault(recipe.data + recipe.task.model_dump_json(), []).append(name)
    for names in alike.values():
        yield _left_out(samples, names, recipes[names[0]])


def _left_out(samples: Samples, names: list[str], recipe: Finetune) -> LeftOut:
    from pipeline.tasks import Reason, TaskContext  # imports torch: two seconds, only where a recipe fine-tunes

    kind = recipe.data
    settings = recipe.part("task", f"finetune.{names[0]}")
    labels = sorted({label for split, label in samples.counts(kind, "label") if split == "train"})
    where = f"params.yaml: finetune.{names[0]}.task"
    # the context's length is compared when params are read, or when open weights are
    context = TaskContext(samples.tokenizer, settings.max_tokens, labels, where)
    task = plugins.load("tasks", recipe.task.name).build(settings, context)
    tally, reasons, row = Tally(), Counter[str](), 0
    for _, batch in samples.batches(kind, samples.columns(kind)):
        for record in batch.to_pylist():
            example = task.example(record)
            if isinstance(example, Reason):
                reasons[example.code] += 1
                if tally.count < MOST_EXAMPLES:
                    shown = samples.example(kind, row)
                    tally.add(type(shown)(shown.id, shown.origin, f"{example.detail}: {shown.text}"))
                else:
                    tally.count += 1
            row += 1
    return LeftOut(kind, _listed(names), row, tally, reasons)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
