"""Trials of pretraining: its recipe with a few settings changed, trained and measured once each.

A trial is a set of changes and a seed. It trains on the documents of this project as `pretrain` would, and is measured
on all held-out documents of the validation split, each from its start, so that trials with other windows, masks or
batches are compared by one figure. Its result is kept in `.tohum/studies` under a fingerprint of everything that
decides it (recipe, compute, data, code, torch): a study that was stopped continues with the trials that are left, a
changed one runs the new trials.

Each trial is a process of its own: `python -m pipeline.studies.trials KEY TRIAL`, the trial as JSON.
"""

import copy
import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline import closure, config, files
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Compute, Pretrain
from pipeline.config.section import validated
from pipeline.data.shards import Shard
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.evaluation import Subject, perplexity
from pipeline.model.gpt import GPT
from pipeline.orchestration.process import beside, cores
from pipeline.paths import SAMPLES, STUDIES, TOKENIZER
from pipeline.studies import needs
from pipeline.tokenizer import Tokenizer
from pipeline.training import state_locks
from pipeline.training.build import build
from pipeline.training.run import DivergedError
from pipeline.training.schedule import micro_batches
from pipeline.training.start import start

FOLDER = STUDIES
_AT_ONCE = 32  # documents in one batch of the measure; only memory depends on it


class Trial(NamedTuple):
    """One training of a study."""

    name: str
    seed: int
    changes: dict[str, Any]
    """Dotted path below `pretrain` -> value; `{times: 1.5}` is that multiple of its present value, `{of: path,
    times: 0.5}` of another path's."""


class Result(NamedTuple):
    """A trial's measured result."""

    loss_nats: float
    """Mean per token of the held-out documents; infinite where training diverged."""
    bits_per_byte: float
    known_nats: float | None
    """Entropy per token of the source; None where it is not known of every document."""
    tokens: int
    """Tokens trained on."""
    weights: int
    """Parameters that multiply: without an embedding table that is no head too."""
    flops: float
    """Floating-point operations of training (`flops_a_token`)."""
    seconds: float
    """Wall time of training and measuring, beside other trials."""


@dataclass
class _NoLog:
    """A log that drops its metrics."""

    record: dict[str, Any]

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Drops them."""


def recipe_of(params: Params, trial: Trial) -> Pretrain:
    """`pretrain` with the trial's changes. Raises UserError where they do not fit, naming the trial."""
    old = params.pretrain.model_dump(mode="json", by_alias=True)
    raw = copy.deepcopy(old) | {"seed": trial.seed}
    for path, value in trial.changes.items():
        if path.startswith("model.") and params.pretrain.start.kind != "scratch":
            raise UserError(f"{trial.name}: {path} is about fresh weights, pretrain.start.kind is not scratch")
        place, last = _at(raw, path, trial)
        if isinstance(value, dict) and set(value) in ({"times"}, {"of", "times"}):
            before, key = _at(old, value.get("of", path), trial)
            made = before[key] * value["times"]
            value = round(made) if isinstance(place[last], int) else made
        place[last] = value
    recipe: Pretrain = validated(Pretrain, raw, "pretrain", trial.name)
    for axis in AXES:
        recipe.part(axis, f"{trial.name}: pretrain")
    return recipe


def _at(raw: dict[str, Any], path: str, trial: Trial) -> tuple[dict[str, Any], str]:
    """The mapping that holds the setting at a dotted path, and its key there."""
    *steps, last = path.split(".")
    place = raw
    for step in steps:
        place = place.get(step, {})
    if last not in place:
        raise UserError(f"{trial.name}: pretrain has no {path}; one of: {', '.join(place) or 'nothing there'}")
    return place, last


def tokens_of(recipe: Pretrain) -> int:
    """Tokens that a recipe trains on, unless it stops early."""
    schedule = recipe.schedule
    windows = sum(len(micro_batches(schedule, step)) for step in range(schedule.updates))
    return windows * int(recipe.part("ordering", "pretrain").batch_size) * recipe.model.context_length


def compute_of(params: Params) -> Compute:
    """The compute settings of a trial: one thread on a CPU, where trials run side by side; on a GPU params.yaml's."""
    return params.compute.model_copy(update={"threads": 1} if params.compute.device == "cpu" else {})


def keys(params: Params, trials: Sequence[Trial]) -> list[str]:
    """The fingerprint of each trial. Raises UserError where data or changes are wrong."""
    needs.samples()
    inputs = [SAMPLES / "documents", TOKENIZER]
    shared = {
        "compute": compute_of(params).model_dump(),
        "data": [files.sha256_of(path) for path in inputs],
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }
    recipes = [recipe_of(params, trial) for trial in trials]
    wholes = [shared | {"recipe": recipe.model_dump(mode="json"), "code": _code_of(recipe)} for recipe in recipes]
    return [hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32] for whole in wholes]


def _code_of(recipe: Pretrain) -> closure.Code:
    """The code that decides the result of a trial; its measure is imported here, no other is taken by name."""
    return closure.code([__name__, start.__module__], {**closure.recipe_parts(recipe), "evaluation": []})


def kept(key: str) -> Result | None:
    """The kept result of a trial; None if it did not run."""
    path = FOLDER / f"{key}.json"
    if not path.exists():
        return None
    raw = files.read_json(path)
    return Result(**raw | {name: math.inf for name in ("loss_nats", "bits_per_byte") if raw[name] is None})


def run(params: Params, trials: Sequence[Trial]) -> list[Result]:
    """The results of all trials; missing ones are run, one per core (or one on a GPU) at a time.

    Raises:
        UserError: data that is not there, a change that does not fit, a trial that failed.
    """
    names = keys(params, trials)
    left = {key: trial for key, trial in zip(names, trials, strict=True) if kept(key) is None}

    def command(key: str) -> list[str]:
        return [__name__, key, json.dumps(left[key]._asdict())]

    lanes = 1 if params.compute.device == "cuda" else cores()
    beside({f"{trial.name}, seed {trial.seed}": command(key) for key, trial in left.items()}, lanes)
    results = [kept(key) for key in names]
    return [result for result in results if result is not None]


def work() -> None:
    """Trains and measures the trial of this process's command line.

    Raises:
        UserError: its key is no longer that of these params, documents and code.
    """
    key, trial = sys.argv[1], Trial(**json.loads(sys.argv[2]))
    params = config.load()
    if keys(params, [trial]) != [key]:
        raise UserError("params.yaml, documents or code changed while the study ran; start it again")
    result = train(params, trial, key)
    print(f"{trial.name}, seed {trial.seed}: {result.loss_nats:.4f} nats a token")


def train(params: Params, trial: Trial, key: str) -> Result:
    """Trains and measures one trial in this process, and keeps the result."""
    recipe = recipe_of(params, trial)
    quiet = params.runtime.model_copy(update={"progress": False})
    params = params.model_copy(update={"compute": compute_of(params), "runtime": quiet})
    built = build("pretrain", recipe, "documents", start(recipe)[0], params, TOKENIZER)
    with state_locks.locked(key) as state:
        trainer, began = built.trainer(recipe, params, _NoLog({}), trial.name), time.perf_counter()
        try:
            trainer.run(state)
            loss, bits, known = _measured(built.model, params)
        except DivergedError:  # a result too: it would diverge every time
            loss, bits, known = math.inf, math.inf, None
        tokens = trainer.progress.tokens
        seconds = time.perf_counter() - began
        result = Result(loss, bits, known, tokens, weights(built.model), tokens * flops_a_token(built.model), seconds)
        strict = {name: None if value == math.inf else value for name, value in result._asdict().items()}
        files.write_json(FOLDER / f"{key}.json", strict)
        state.clear()
    return result


def _measured(model: GPT, params: Params) -> tuple[float, float, float | None]:
    """Nats per token and bits per byte of all held-out documents, and the source's entropy in nats per token."""
    subject = Subject("trial", model.eval(), Tokenizer.load(TOKENIZER), (), SAMPLES, params.compute)
    settings = perplexity.Settings(split="validation", batch_size=_AT_ONCE, max_documents=None)
    metrics, _, _ = perplexity.measure(settings, subject)
    known = None
    if not np.isnan(Shard.open(SAMPLES / "documents", settings.split).bits).any():
        known = metrics["bits_per_byte_known"] * metrics["bytes_per_token"] * math.log(2)
    return metrics["loss_nats"], metrics["bits_per_byte"], known


def weights(model: GPT) -> int:
    """Parameters that multiply: all but the embedding table, which counts where it is also the head."""
    table = 0 if model.config.tie_embeddings else model.embed.weight.numel()
    return model.num_parameters() - table - (0 if model.positions is None else model.positions.weight.numel())


def flops_a_token(model: GPT) -> float:
    """Operations of forward and backward per token: 6 per parameter, and attention (Chowdhery et al. 2022,
    appendix B: 12 n_layers n_heads head_dim context_length), of which a causal mask leaves half."""
    shape = model.config
    attention = 6 * shape.n_layers * shape.n_heads * shape.head_dim * shape.context_length
    return float(6 * weights(model) + attention)


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; NaN of a single value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half the width of its 95 % interval by Student's t; NaN of a single value."""
    from scipy.stats import t

    n = len(values)
    half = float(t.ppf(0.975, n - 1)) * deviation(values) / math.sqrt(n) if n > 1 else math.nan
    return statistics.fmean(values), half


def by_name(trials: Sequence[Trial], results: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    """The results of all seeds of each name, in the order of the names."""
    for name in dict.fromkeys(trial.name for trial in trials):
        yield name, [result for trial, result in zip(trials, results, strict=True) if trial.name == name]


if __name__ == "__main__":
    from pipeline.studies.trials import work as work_by_name  # a key depends on the module's name, here `__main__`

    entry(work_by_name, again="the study's command continues with the trials that are left")
