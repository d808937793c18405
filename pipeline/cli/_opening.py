"""The opening words of a chat: the task that a model was taught, its training data, and three examples of it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline import files
from pipeline.config.params import Params
from pipeline.config.recipe import Kind
from pipeline.data.conversations import texts
from pipeline.data.shards import Shard
from pipeline.evaluation import Subject
from pipeline.paths import PROVENANCE
from pipeline.prompts.spec import REWARD, TaskSpec

_SHOWN = 3
_READ = 512  # records of the training split that the examples are chosen from
_EXCERPT = 70  # characters of a text
_NOUNS: dict[Kind, str] = {
    "documents": "documents",
    "labelled": "labelled texts",
    "instructions": "instructions with answers",
    "preferences": "pairs of answers",
    "ratings": "rated answers",
}


def opening(subject: Subject, params: Params, recipe: str | None) -> list[str]:
    """The lines to print when a chat begins.

    Args:
        subject: the opened model.
        params: params.yaml of the working folder.
        recipe: the model's name in this project's params; None: it was made elsewhere, so its training data is unknown.
    """
    lines = [f"{subject.name}: {_taught(subject.tasks[0].spec)}"]
    if subject.tasks[0].spec.name == "unchanged":
        return [*lines, "Type a text and press Enter; end with Ctrl-D."]
    made = None if recipe is None else _origin(recipe, params)
    if made is None:
        return [*lines, "Its training data is not in this project, so no example is shown. End with Ctrl-D."]
    method, kind = made
    count, sources = _trained_on(subject.samples, kind)
    lines.append(f"Trained ({method}) on {count:,} {_NOUNS[kind]} of {sources}.")
    if examples := _examples(subject, kind):
        lines += ["From its training data:", *(f"  {line}" for line in examples)]
    return [*lines, "Type a text and press Enter; end with Ctrl-D."]


def _taught(task: TaskSpec) -> str:
    """The task in words."""
    if task.name == "multi_label":
        return f"it answers a text with any of {len(task.outputs)} labels: {', '.join(task.outputs)}."
    if task.name == "regress":
        return f"it answers a text with a number; the numbers of its training texts have the mean {task.mean:.6g}."
    if task.name == REWARD:
        return "a reward model; it scores an answer to a question, and gives none."
    if task.labels:
        return f"a classifier; it answers a text with one of {len(task.labels)} labels: {', '.join(task.labels)}."
    if task.name == "chat":
        return f"it answers in a conversation of several turns (template {task.template})."
    if task.template is not None:
        return f"it answers one instruction at a time (template {task.template}), without the earlier ones."
    if task.name == "unchanged":
        return "open weights, not trained here; where it is a language model, it continues your text."
    return "a language model; it continues your text and answers no question."


def _origin(model: str, params: Params) -> tuple[str, Kind] | None:
    """The way a model of params.yaml was made, and the record kind that it learned from; None: not in params.yaml."""
    if model == "base":
        return "pretraining", "documents"
    if model in params.merge:  # a merged model answers as its first
        first = _origin(params.merge[model].first, params)
        return None if first is None else (f"merged, answers as {params.merge[model].first}", first[1])
    recipe = params.finetune.get(model)
    return None if recipe is None else (f"{recipe.tuner.name} from {recipe.start}", recipe.data)


def _trained_on(samples: Path, kind: Kind) -> tuple[int, str]:
    """The number of training records of a kind, and the sources they came from with their files or addresses."""
    path = samples / kind / "train.parquet"
    count = pq.ParquetFile(path).metadata.num_rows if path.is_file() else 0
    stated = files.read_json(PROVENANCE)["sources"] if PROVENANCE.is_file() else {}
    sources = [
        f"{name} ({entry['address']})" if entry.get("address") else name
        for name, entry in stated.items()
        if entry["rows"].get(kind)
    ]
    return count, ", ".join(sources) or "an unknown source"


def _examples(subject: Subject, kind: Kind) -> list[str]:
    """Up to three training records, each on one line; of labelled texts one a label first."""
    path = subject.samples / kind / "train.parquet"
    if not path.is_file():
        return []
    if kind == "documents":
        return [_excerpt(text) for text in _texts(subject)]
    batch = next(pq.ParquetFile(path).iter_batches(batch_size=_READ), None)
    rows: list[dict[str, Any]] = [] if batch is None else batch.to_pylist()
    return [_shown(kind, row) for row in (_one_a_label(rows) if kind == "labelled" else rows)[:_SHOWN]]


def _texts(subject: Subject) -> Iterator[str]:
    """The first training documents, decoded."""
    shard = Shard.open(subject.samples / "documents", "train")
    for row in range(min(_SHOWN, len(shard))):
        yield subject.tokenizer.decode(shard.document(row)[:64].tolist())


def _one_a_label(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in an order in which every label occurs once before any occurs again."""
    seen: dict[str, int] = {}
    ranked = []
    for row in rows:
        seen[row["label"]] = seen.get(row["label"], 0) + 1
        ranked.append((seen[row["label"]], row))
    return [row for _, row in sorted(ranked, key=lambda pair: pair[0])]


def _shown(kind: Kind, row: Mapping[str, Any]) -> str:
    """A record as `question -> answer`."""
    if kind == "labelled":
        return f"{_excerpt(row['text'])} -> {row['label']}"
    question = _excerpt("\n".join([*texts(row.get("history")), row["instruction"], row["input"]]))
    answer = row["output"] if kind == "instructions" else row["chosen"]
    return f"{question} -> {_excerpt(answer)}"


def _excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.replace("<|endoftext|>", "").split())
    return line if len(line) <= _EXCERPT else f"{line[: _EXCERPT - 1].rstrip()}…"
