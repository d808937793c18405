"""Peak memory and seconds of a training stage that has not run, from its settings, its data and a timing of its blocks.

    python -m pipeline.training.forecast pretrain|finetune.RECIPE ...

prints a line of JSON for each, in a process of its own: it needs torch, and `tohum plan` does not.

Seconds: an update of the recipe's own parts is timed here on networks of its shape with one block and with a few more;
what they add counts for each further one. A neighbour only makes a time longer, so the shortest of three counts, and on
a CPU the processor's time where it is shorter.
Batches: forecast_batches.py. Memory: footprint.py, with the largest of them.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline import config as params_file
from pipeline import foreign
from pipeline.config import plugins
from pipeline.config.compatibility import recipes
from pipeline.config.params import Params
from pipeline.config.recipe import Compute, Finetune, Recipe
from pipeline.contracts import Batch, Examples
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.model import library_folder, memory
from pipeline.model.config import ModelConfig
from pipeline.model.device import autocast, set_up
from pipeline.model.gpt import GPT
from pipeline.model.hf_config import model_config
from pipeline.model.hf_format import FAMILIES
from pipeline.model.library import LibraryModel
from pipeline.paths import MODELS, TOKENIZER
from pipeline.tasks import IGNORED, Task
from pipeline.tokenizer import Tokenizer
from pipeline.training import footprint
from pipeline.training import forecast_rollouts as rollouts
from pipeline.training.forecast_batches import MOST, declared, drawn
from pipeline.training.forecast_rollouts import between, clocks
from pipeline.training.schedule import resolved

_PREFIX = "forecast: "
_WARM_UP, _TIMED = 1, 3
_FURTHER = 4  # blocks more of the second network where the recipe's is deep: an error of a time counts less
_BYTES_A_SECOND = 2e8  # loading, hashing and saving of a model together


class Timing(NamedTuple):
    """Seconds of one micro-batch: an update without its optimizer step, a pass without gradients, the step; and of one
    token of every answer of a block, with rollouts.
    """

    update: float
    forward: float
    step: float
    token: float = 0.0

    def deeper(self, other: "Timing", n: float) -> "Timing":
        """Of a deeper network: n times as many blocks more than this one as `other` has."""
        return Timing(*(a + n * max(0.0, b - a) for a, b in zip(self, other, strict=True)))


def sizes(batch: Batch, padded: bool) -> footprint.BatchShape:
    """The sizes of a micro-batch; `padded`: padding is computed too (a model of transformers)."""
    inputs, targets = batch["inputs"], batch.get("targets")
    tokens, predicted = inputs.numel(), 0
    if "lengths" in batch:  # one output a text
        tokens = tokens if padded else int(batch["lengths"].sum())
    elif targets is not None and targets.shape == inputs.shape:
        wanted_BT = targets != IGNORED
        predicted = int(wanted_BT.sum())
        tokens = tokens if padded else int((wanted_BT.flip(1).cumsum(1) > 0).sum())
    return footprint.BatchShape(tokens, predicted, inputs.shape[1])


def of_parts(recipe: Recipe, compute: Compute, model: GPT, batches: list[Batch]) -> footprint.Footprint:
    """The footprint of a training whose model and examples are there."""
    size = _largest(recipe, batches, isinstance(model, LibraryModel))
    return footprint.footprint(
        model.config, _counts(model), recipe.optimizer.name, compute, size, rollouts.beside(recipe, batches)
    )


def sampled(task: Task, examples: Examples, rows: Callable[[int], Any], number: int) -> list[Batch]:
    """The first micro-batches, at most `number` and 32; `rows` gives the examples of each."""
    drawn = (rows(micro) for micro in range(min(number, MOST)))
    return [task.collate([examples[int(i)] for i in chosen]) for chosen in drawn if len(chosen)]


def _largest(recipe: Recipe, batches: list[Batch], padded: bool) -> footprint.BatchShape:
    size = max((sizes(batch, padded) for batch in batches), key=lambda size: (size.tokens, size.predicted))
    most = recipe.task.model_dump().get("logits_at_once")
    return size if most is None else size._replace(predicted=min(size.predicted, most))


def forecast(where: str, params: Params) -> dict[str, Any]:
    """Peak MiB and seconds of the recipe at `where`, and the reason why it would be refused (null: none).

    Where the lengths of its records are not known yet, both are upper bounds (`at_most`), and nothing is refused;
    seconds are null where the number of records is not known and the schedule counts passes over them.

    Raises:
        UserError: the architecture is not known yet: open weights that are not here.
    """
    began = time.perf_counter()
    recipe, kind = next((recipe, kind) for path, recipe, kind in recipes(params) if path == where)
    compute = params.compute.model_copy(update={"compile": False})
    device = set_up(compute)
    folder = start_folder(params, recipe)
    shape = _shape(params, folder)
    if recipe.schedule.steps == 0:
        return _copied(shape, folder)
    depth = getattr(recipe, "depth", None) or shape.n_layers
    least = _least_blocks(recipe, where)
    batches, n_examples, lengths, task = drawn(recipe, kind, where, shape, folder, params)
    known = recipe.schedule.epochs is None or n_examples is not None
    schedule = resolved(recipe.schedule, n_examples or 1, recipe.part("ordering", where).batch_size)
    recipe = recipe.model_copy(update={"schedule": schedule})
    padded = shape.family not in FAMILIES
    timed = sorted(batches, key=lambda batch: sizes(batch, padded).tokens)[len(batches) // 2]
    timings, totals = [], []
    most = least + (_FURTHER if depth > 2 * _FURTHER else 1)
    for n_layers in (least, most):
        model = _network(shape, n_layers, folder).to(device)
        counts, timing = _timed(model, task, recipe, where, compute, timed)
        timings.append(timing)
        totals.append(counts)
    first, second = totals
    counts = footprint.Counts(
        *(a + (depth - least) * (b - a) // (most - least) for a, b in zip(first, second, strict=True))
    )
    config = shape.model_copy(update={"n_layers": depth})
    size = _largest(recipe, batches, padded)
    beside = rollouts.beside(recipe, batches)
    expected = footprint.footprint(config, counts, recipe.optimizer.name, compute, size, beside)
    timing = timings[0].deeper(timings[1], (depth - least) / (most - least))
    loading = 4 * counts.total / _BYTES_A_SECOND
    seconds = _seconds(recipe, timing) + loading + time.perf_counter() - began
    at_most = lengths == "longest" and kind != "documents"
    refusal = footprint.refusal(where, expected, footprint.machine_bytes(), params.compute)
    return {
        "memory_mib": round(expected.total / footprint.MIB),
        "parts_mib": {name: round(value / footprint.MIB) for name, value in expected._asdict().items()},
        "seconds": round(seconds, 1) if known else None,
        "seconds_update": round(recipe.schedule.accumulate * timing.update + timing.step, 4),
        "batch": size._asdict(),
        "lengths": lengths,
        "at_most": at_most,
        "refusal": None if at_most else refusal,
    }


def _copied(shape: ModelConfig, folder: Path | None) -> dict[str, Any]:
    """The forecast of a recipe without an update: its weights are read and written."""
    total = footprint.count(shape).total
    if folder is not None and library_folder.is_library(folder):
        total = library_folder.random(folder, None).num_parameters()
    return {
        "memory_mib": round((footprint.PROCESS + footprint.LIBRARY + 4.0 * total) / footprint.MIB),
        "seconds": round(2 * 4 * total / _BYTES_A_SECOND, 1),
        "refusal": None,
    }


def start_folder(params: Params, recipe: Recipe) -> Path | None:
    """The folder of the model that a recipe starts from, or of the one at the root of its graph; None: from scratch."""
    if isinstance(recipe, Finetune):
        for name in reversed(params.lineage(recipe.start)):
            if (MODELS / name / "config.json").is_file():
                return MODELS / name
    start = params.pretrain.start
    if start.kind == "scratch":
        return None
    if start.kind == "hub" or not (Path(str(start.path)) / "config.json").is_file():
        raise UserError(f"params.yaml: pretrain.start.path is {start.path!r}, which is not on this machine yet")
    return Path(str(start.path))


def _shape(params: Params, folder: Path | None) -> ModelConfig:
    if folder is None:
        size = params.tokenize.vocab_size
        if (TOKENIZER / "tokenizer.json").is_file() or size is None:
            size = Tokenizer.load(TOKENIZER).vocab_size
        return ModelConfig(**params.pretrain.model.model_dump(), vocab_size=size)
    path = folder / "config.json"
    raw = foreign.read_object(path)
    if library_folder.is_library(folder):
        return library_folder.random(folder, None).config
    return model_config(raw, str(path))


def _network(shape: ModelConfig, n_layers: int, folder: Path | None) -> GPT:
    if shape.family not in FAMILIES:
        assert folder is not None
        return library_folder.random(folder, n_layers)
    return GPT(shape.model_copy(update={"n_layers": n_layers}), torch.Generator().manual_seed(1))


def _least_blocks(recipe: Recipe, where: str) -> int:
    """The fewest blocks that the recipe's tuner takes."""
    settings = recipe.part("tuner", where)
    return max(1, int(getattr(settings, "last", 0)), int(getattr(settings, "first", 0)))


def _timed(  # noqa: PLR0913 - a network and everything that its update consists of
    model: GPT, task: Task | None, recipe: Recipe, where: str, compute: Compute, batch: Batch
) -> tuple[footprint.Counts, Timing]:
    """The weights of a network with the recipe's tuner, and the shortest times of one micro-batch of it."""
    generator = torch.Generator().manual_seed(1)
    if task is not None:
        task.prepare(model, generator)
    elif declared(recipe, "task", "head") == "classes":
        model.add_score(2, generator)
    tuner = plugins.load("tuners", recipe.tuner.name).build(recipe.part("tuner", where))
    tuner.apply(model, generator, lambda _: [0])
    optimizer = plugins.load("optimizers", recipe.optimizer.name).build(
        recipe.part("optimizer", where), tuner.groups(model)
    )
    counts = _counts(model)
    memory.prepare(model, compute)
    runs = list(itertools.islice(_runs(model, task, optimizer, compute, batch), _WARM_UP + _TIMED))[_WARM_UP:]
    timing = Timing(*(min(times) for times in zip(*runs, strict=True)))
    token = rollouts.token_seconds(recipe, model, compute, batch["inputs"].shape[1])
    timing = timing._replace(token=token)
    return counts, timing


def _counts(model: GPT) -> footprint.Counts:
    return footprint.Counts(model.num_parameters(), model.num_parameters(trainable=True), model.embed.weight.numel())


def _runs(
    model: GPT, task: Task | None, optimizer: torch.optim.Optimizer, compute: Compute, batch: Batch
) -> Iterator[Timing]:
    """The times of one micro-batch, again and again."""
    while True:
        model.train()
        began = clocks(compute)
        with autocast(compute):
            losses = _losses(model, task, batch)
        losses.mean().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        updated = clocks(compute)
        with autocast(compute):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stepped = clocks(compute)
        model.eval()
        with torch.no_grad(), autocast(compute):
            _losses(model, task, batch)
        ended = clocks(compute)
        yield Timing(between(began, updated), between(stepped, ended), between(updated, stepped))


def _losses(model: GPT, task: Task | None, batch: Batch) -> Tensor:
    if task is not None:
        return task.losses(model, batch)
    if "lengths" in batch:
        return model.classify(batch["inputs"]).float().square().sum(-1)
    logits = model.logits(model.hidden(batch["inputs"])).float()
    return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), reduction="none")


def _seconds(recipe: Recipe, timing: Timing) -> float:
    """Seconds of all updates and validations; with rollouts as if no answer ended before its longest."""
    schedule, validation = recipe.schedule, recipe.validation
    assert schedule.steps is not None  # resolved
    update = timing.update * (1 + int(declared(recipe, "loss", "trains_model") or 0))
    timing = timing._replace(update=update)
    updates = schedule.steps * (schedule.accumulate * timing.update + timing.step)
    validations = -(-schedule.steps // validation.every) if schedule.steps else 1
    total = updates + validations * validation.batches * timing.forward
    size = recipe.part("ordering", "recipe").batch_size
    return total + rollouts.seconds(recipe, size, timing.token, timing.forward)


def main() -> None:
    """Prints the forecasts of the recipes named on the command line; none where a recipe cannot be built yet."""
    params = params_file.load()
    for where in sys.argv[1:]:
        try:
            made = forecast(where, params)
        except UserError as error:
            print(f"{where}: {error}", file=sys.stderr)
            continue
        print(_PREFIX + json.dumps({"where": where} | made), flush=True)


if __name__ == "__main__":
    entry(main, again="nothing is kept of it")
