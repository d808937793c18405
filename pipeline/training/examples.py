"""Examples of a recipe: records of one kind and split, tokenized by its task.

Documents are cut into packed windows; every other record is one example. Few-shot recipes draw some records per label.
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import integrity
from pipeline.config.recipe import Kind
from pipeline.contracts import Examples
from pipeline.data.label_cells import labels_of
from pipeline.data.shards import Shard, windows
from pipeline.errors import UserError
from pipeline.paths import SAMPLES
from pipeline.seeds import seed_for
from pipeline.tasks import Reason, Task, TaskContext
from pipeline.tokenizer import Tokenizer


class PackedWindows:
    """Consecutive windows of a shard of documents (packing), ready for a task's `collate`."""

    def __init__(self, shard: Shard, context_length: int, task: Task) -> None:
        self._shard, self._windows, self._task = shard, windows(shard, context_length), task

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, i: int) -> Any:
        return self._task.example({"ids": self._windows.window(i)})

    def column(self, name: str) -> list[str]:
        """One value per window: that of the document in which it begins. Raises UserError if there is no column."""
        begins = np.arange(len(self)) * self._windows.context_length
        documents = np.searchsorted(self._shard.starts, begins, side="right") - 1
        return _column(self._shard.index(), name, documents)


class Records:
    """Records, each tokenized once, ready for a task's `collate`; those that make no example are left out."""

    def __init__(self, table: pa.Table, task: Task, few_shot: "FewShot | None" = None) -> None:
        made = [task.example(record) for record in table.to_pylist()]
        fits = [place for place, example in enumerate(made) if not isinstance(example, Reason)]
        self.left_out = Counter(example.code for example in made if isinstance(example, Reason))
        """Reason -> number of records that make no example; the samples gate counts and bounds them."""
        self._table = table.take(pa.array(fits, pa.int64()))
        self._examples = [made[place] for place in fits]
        if few_shot is not None:
            rows = few_shot.draw(self._table)
            self._table = self._table.take(pa.array(rows))
            self._examples = [self._examples[row] for row in rows]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, i: int) -> Any:
        return self._examples[i]

    def column(self, name: str) -> list[str]:
        """One value per record. Raises UserError if there is no column."""
        return _column(self._table, name, np.arange(len(self)))


class Subset:
    """Examples at the given indices, in their order."""

    def __init__(self, examples: Examples, rows: np.ndarray) -> None:
        self._examples, self._rows = examples, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Any:
        return self._examples[int(self._rows[i])]


class FewShot(NamedTuple):
    """A few records of each label."""

    per_label: int
    seed: int
    form: str | None = None
    """`form` of the task's settings: label_sets (a record counts for each of its labels) or numbers (records have no
    label); any other reads one label."""

    def draw(self, table: pa.Table) -> np.ndarray:
        """Rows of `per_label` records of each label (of all, without labels), drawn by the seed, in order."""
        rng = np.random.default_rng(seed_for(self.seed, "few"))
        chosen = [rng.choice(rows, min(self.per_label, len(rows)), replace=False) for rows in self._groups(table)]
        return np.unique(np.concatenate(chosen)) if chosen else np.arange(len(table))

    def _groups(self, table: pa.Table) -> list[np.ndarray]:
        """Rows of each label, in the order of the labels; one group without labels."""
        if self.form == "numbers" or "label" not in table.column_names:
            return [np.arange(len(table))] if len(table) else []
        cells = table["label"].to_pylist()
        labels_of_rows = [labels_of(cell) if self.form == "label_sets" else (cell,) for cell in cells]
        rows: dict[str, list[int]] = {}
        for row, labels in enumerate(labels_of_rows):
            for label in labels:
                rows.setdefault(label, []).append(row)
        return [np.array(rows[label]) for label in sorted(rows)]


def load_examples(
    task: Task, kind: Kind, split: str, context_length: int, few_shot: FewShot | None = None
) -> PackedWindows | Records:
    """The examples of one split: packed windows of documents, or records tokenized once.

    Args:
        context_length: tokens of a window of documents.
        few_shot: draws the records; None: all.

    Raises:
        UserError: a damaged file, or few-shot documents.
    """
    if kind == "documents":
        if few_shot is not None:
            raise UserError("params.yaml: few is for records; set it to null for documents, which are cut into windows")
        return PackedWindows(Shard.open(SAMPLES / kind, split), context_length, task)
    return Records(_read(kind, split), task, few_shot)


def training_labels(kind: Kind) -> list[str]:
    """The label cells of the training split, one per record; empty for records without labels."""
    labels: list[str] = _read(kind, "train", ["label"])["label"].to_pylist() if kind == "labelled" else []
    return labels


def task_context(kind: Kind, tokenizer: Tokenizer, context_length: int, where: str) -> TaskContext:
    """Everything that a recipe's task is built from besides its settings; `where`: the recipe's path in params.yaml."""
    cells = training_labels(kind)
    return TaskContext(tokenizer, context_length, sorted(set(cells)), f"params.yaml: {where}.task", cells)


def _read(kind: Kind, split: str, columns: list[str] | None = None) -> pa.Table:
    path = SAMPLES / kind / f"{split}.parquet"
    integrity.require_intact(path)
    # pq.read_table would import pandas: half a second per stage
    return pq.ParquetFile(path).read(columns=columns)


def _column(table: pa.Table, name: str, rows: np.ndarray) -> list[str]:
    if name not in table.column_names:
        raise UserError(f"params.yaml: column {name!r} is not in the records; one of: {', '.join(table.column_names)}")
    values = table[name].take(pa.array(rows)).to_pylist()
    return ["" if value is None else value for value in values]  # a column that a source adds may have empty cells
