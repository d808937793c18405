"""Micro-batches by which a training is foretold: of its samples, by lengths of raw records, or of the longest texts.

Samples give the recipe's own examples. Before they exist, the records of data/raw give lengths: UTF-8 bytes divided by
the bytes of a token, which the tokenizer tells if it is there; the ids are random. Before those exist too, every
example has the greatest length that the task allows: an upper bound. Windows of documents are always full.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Kind, Recipe
from pipeline.contracts import Batch
from pipeline.data.records import TEXTS
from pipeline.data.tables import batches
from pipeline.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.paths import RAW, SAMPLES, TOKENIZER
from pipeline.tasks import IGNORED, Task
from pipeline.tokenizer import Tokenizer
from pipeline.training.examples import load_examples, task_context

MOST = 32
"""Micro-batches whose sizes are looked at."""
_BYTES_A_TOKEN = 2.5
"""Where there is no tokenizer. The embedded world has 4.2 (documents) to 2.7 (messages) with 2,048 tokens: too few
bytes a token foretell too long a training, not one that fails."""
_MARKERS = 8
"""Tokens around a text: end-of-text, markers of two turns."""
_HEADINGS = len("### Instruction:\n\n\n### Input:\n\n\n### Response:\n")  # template alpaca, in bytes
_ENCODED = 200  # records by which the tokenizer's bytes a token are measured


class Drawn(NamedTuple):
    """Micro-batches of a recipe."""

    batches: list[Batch]
    n_examples: int | None
    """Of the training split; None: unknown."""
    lengths: Literal["samples", "raw", "longest"]
    """Source of the lengths; `longest`: the greatest that the task allows."""
    task: Task | None = None
    """Built for samples."""


def drawn(  # noqa: PLR0913 - a recipe, and all by which its examples are made
    recipe: Recipe, kind: Kind, where: str, shape: ModelConfig, folder: Path | None, params: Params
) -> Drawn:
    """The micro-batches of a recipe, at most 32, drawn at random.

    Args:
        recipe: it.
        kind: of its records.
        where: its path in params.yaml.
        shape: the network.
        folder: the model that it starts from; None: from scratch.
        params: of the project: shares of the splits, method of the tokenizer.
    """
    words = folder if folder is not None and (folder / "tohum-tokenizer.json").is_file() else TOKENIZER
    with suppress(UserError):  # no record of this kind yet, or limits that the stage itself will refuse
        if (SAMPLES / kind).exists() and (words / "tokenizer.json").is_file():
            return _of_samples(recipe, kind, where, shape, words)
    raw = RAW / f"{kind}.parquet"
    rows = pq.read_metadata(raw).num_rows if raw.is_file() else 0
    training = 1 - params.split.validation - params.split.test
    size = recipe.part("ordering", where).batch_size
    if kind == "documents":
        windows = None
        if rows and recipe.schedule.epochs is not None:
            whole = _lengths(raw, kind, words, params).sum() + rows
            windows = max(1, round(whole * training / shape.context_length))
        return Drawn([_longest(recipe, where, shape)], windows, "longest")
    if not rows:
        return Drawn([_longest(recipe, where, shape)], None, "longest")
    lengths = _lengths(raw, kind, words, params)
    order = np.random.default_rng(1).permutation(rows)
    size = min(size, rows)
    starts = islice(range(0, rows - size + 1, size), MOST)
    made = [_of_lengths(recipe, lengths[order[first : first + size]], shape) for first in starts]
    return Drawn(made, max(1, round(rows * training)), "raw")


def declared(recipe: Recipe, axis: str, name: str) -> Any:
    """A fact that the settings of a part declare (`head`, `emits`); None where they do not."""
    return getattr(plugins.settings_class(AXES[axis], getattr(recipe, axis).name), name, None)


def _of_samples(recipe: Recipe, kind: Kind, where: str, shape: ModelConfig, words: Path) -> Drawn:
    """Batches of the recipe's own examples. Raises UserError: none, or invalid limits."""
    context = task_context(kind, Tokenizer.load(words), shape.context_length, where)
    task: Task = plugins.load("tasks", recipe.task.name).build(recipe.part("task", where), context)
    examples = load_examples(task, kind, "train", shape.context_length)
    if not len(examples):
        raise UserError(f"{where}: the train split gives no example")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(1))
    size = min(recipe.part("ordering", where).batch_size, len(examples))
    starts = islice(range(0, len(examples) - size + 1, size), MOST)
    answer = [task.stop] * answer_tokens(recipe)
    made = [
        task.collate([_answered(examples[int(i)], answer) for i in order[first : first + size]]) for first in starts
    ]
    return Drawn(made, len(examples), "samples", task)


def rollouts_of(recipe: Recipe) -> int:
    """Answers of a block; 0 with records."""
    settings = recipe.experience.model_dump()
    return int(settings.get("prompts", 0) * settings.get("samples", 0))


def answer_tokens(recipe: Recipe) -> int:
    """Most tokens of an answer that is drawn in training; 0 with records."""
    return int(recipe.experience.model_dump().get("max_tokens", 0))


def _answered(example: Any, answer: list[int]) -> Any:
    """A prompt with a drawn answer of the greatest length; any other example as it is."""
    return (example.ids + answer, example.targets + answer) if answer else example


def _longest(recipe: Recipe, where: str, shape: ModelConfig) -> Batch:
    """A batch of texts of the greatest length, every token of which is predicted unless a head reads them."""
    size = recipe.part("ordering", where).batch_size
    longest = recipe.task.model_dump().get("max_tokens") or shape.context_length
    ids_BT = _random((size, longest), shape)
    if declared(recipe, "task", "head") == "classes":
        return {"inputs": ids_BT, "targets": ids_BT[:, 0], "lengths": torch.full((size,), longest)}
    return {"inputs": ids_BT, "targets": ids_BT}


def _of_lengths(recipe: Recipe, lengths_B2: np.ndarray, shape: ModelConfig) -> Batch:
    """A batch of random ids with these lengths of prompts and answers, which the task's limits cut."""
    task = recipe.task.model_dump()
    most = task.get("max_tokens") or shape.context_length
    around = _MARKERS + (_HEADINGS if task.get("template") == "alpaca" else 0)
    prompts_B = np.minimum(lengths_B2[:, 0] + around, task.get("max_prompt_tokens") or most)
    if declared(recipe, "task", "head") == "classes":
        rows_B = torch.from_numpy(prompts_B)
        ids_BT = _random((len(rows_B), int(rows_B.max())), shape)
        return {"inputs": ids_BT, "targets": ids_BT[:, 0], "lengths": rows_B}
    answers_B = answer_tokens(recipe) or lengths_B2[:, 1] + 1
    ends_B = np.minimum(prompts_B + answers_B, most)
    prompts_B = np.minimum(prompts_B, ends_B - 1)
    ids_BT = _random((len(ends_B), int(ends_B.max())), shape)
    places_T = np.arange(ids_BT.shape[1])
    learned_BT = (places_T >= prompts_B[:, None]) & (places_T < ends_B[:, None])
    targets_BT = ids_BT.masked_fill(torch.from_numpy(~learned_BT), IGNORED)
    return {"inputs": ids_BT[:, :-1], "targets": targets_BT[:, 1:]}


def _random(size: tuple[int, int], shape: ModelConfig) -> torch.Tensor:
    return torch.randint(0, shape.vocab_size, size, generator=torch.Generator().manual_seed(1))


def _lengths(raw: Path, kind: Kind, words: Path, params: Params) -> np.ndarray:
    """Tokens of prompt and answer of every raw record, [N, 2], estimated; of documents all are in the second."""
    answer = {"instructions": "output", "documents": "text"}.get(kind)
    columns = [name for name in TEXTS[kind] if name != "label"]
    measure = pc.utf8_length if params.tokenize.method == "characters" else pc.binary_length
    parts = []
    for batch in batches(raw, columns):
        sizes = {name: pc.fill_null(measure(batch.column(name)), 0).to_numpy(zero_copy_only=False) for name in columns}
        prompt = sum((size for name, size in sizes.items() if name != answer), np.zeros(len(batch)))
        parts.append(np.stack([prompt, sizes[answer] if answer else np.zeros(len(batch))], axis=1))
    bytes_N2 = np.concatenate(parts)
    return np.ceil(bytes_N2 / _bytes_a_token(raw, columns, words, params)).astype(np.int64)


def _bytes_a_token(raw: Path, columns: Sequence[str], words: Path, params: Params) -> float:
    """Measured on the first records if the tokenizer is there, else supposed; characters are tokens of one each."""
    if params.tokenize.method == "characters":
        return 1.0
    if not (words / "tokenizer.json").is_file():
        return _BYTES_A_TOKEN
    tokenizer = Tokenizer.load(words)
    texts = list(_texts(next(batches(raw, list(columns), _ENCODED))))
    tokens = sum(len(tokenizer.encode(text)) for text in texts)
    return sum(len(text.encode()) for text in texts) / tokens if tokens else _BYTES_A_TOKEN


def _texts(batch: pa.RecordBatch) -> Iterator[str]:
    for column in batch.columns:
        yield from (text for text in column.to_pylist() if text)
