"""Hyperparameter search over one recipe with optuna: trials train in this process and leave no model behind.

The study is kept in `.tohum/search.db` under the recipe's name and a fingerprint of everything that decides a trial
(search space, the rest of the recipe, data, start model, code), so a killed search continues with the trials that are
left, and other inputs start another study. The values of trial i are a function of the seed, i and the trials before
it: the trial that a kill cut off comes again with the same values, and the study ends as an uninterrupted one. Values
come from TPE (Bergstra et al. 2011); trials worse than the median at the same step are pruned (Golovin et al. 2017).
Every trial is an MLflow run below the run of its search.
"""

import json
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from pipeline import closure
from pipeline.config import search_space
from pipeline.config.params import Params
from pipeline.config.recipe import Recipe
from pipeline.config.search_space import Choices, Range
from pipeline.errors import UserError
from pipeline.paths import SEARCHES
from pipeline.seeds import seed_for
from pipeline.studies.recipe_inputs import First, inputs_of
from pipeline.tracking import lineage
from pipeline.tracking.stage import tracked_search
from pipeline.tracking.tracker import NullTracker
from pipeline.training import state as states
from pipeline.training import state_locks
from pipeline.training.build import Built, build
from pipeline.training.run import DivergedError
from pipeline.training.validation import ERRORS, error_of, measure_of

STORE = SEARCHES
_LOSS = "validation_loss_nats"


@dataclass(frozen=True)
class SearchTrial:
    """One finished trial of a search."""

    number: int
    state: str
    """complete, pruned or failed."""
    values: dict[str, Any]
    loss: float
    """Validation loss in nats of the weights that the recipe keeps, or the error of the measure that it keeps them by
    (1 - accuracy); of a pruned trial the last one measured."""
    seconds: float
    reason: str
    """The reason of a failure or divergence; empty otherwise."""


class RecipeSearch:
    """The search over one recipe of params.yaml, with the trials that ran."""

    def __init__(self, name: str, params: Params) -> None:
        """Opens the study of these params, data and code, or makes it.

        Raises:
            UserError: no such search, or its inputs are not there.
        """
        if name not in params.search:
            raise UserError(f"params.yaml: search has no {name!r}; one of: {', '.join(params.search) or 'none yet'}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.params, self._name = search_space.read(params, name), params, name
        self.settings, self._measure = self.space.settings, measure_of(self.space.recipe.validation)
        self._inputs = lineage.input_hashes(self.space.where.replace(".", "@"), params)
        self._inputs = {f"dvc.in.{path}": digest for path, digest in self._inputs.items()}
        self.key = self._fingerprint()
        self.title = f"{name}-{self.key[:12]}"
        STORE.parent.mkdir(exist_ok=True)
        self._study = optuna.create_study(
            storage=RDBStorage(f"sqlite:///{STORE}"),
            study_name=self.title,
            pruner=MedianPruner(self.settings.pruner.startup_trials, self.settings.pruner.warmup_validations),
            load_if_exists=True,
        )

    @property
    def figure(self) -> str:
        """The value that is minimised, for tables: `loss, nats`, `1 - accuracy` or `rmse`."""
        if self._measure is None:
            return "loss, nats"
        return self._measure if self._measure in ERRORS else f"1 - {self._measure}"

    def trials(self) -> list[SearchTrial]:
        """The finished trials in their order, without killed ones."""
        return [self._trial_of(number, trial) for number, trial in enumerate(self._finished())]

    def best(self) -> SearchTrial:
        """The complete trial with the lowest loss, the first of equals. Raises UserError if there is none."""
        complete = [trial for trial in self.trials() if trial.state == "complete"]
        if not complete:
            reasons = sorted({trial.reason for trial in self.trials() if trial.reason})
            todo = "; ".join(reasons) or f"run `tohum search {self.space.name}`"
            raise UserError(f"search.{self.space.name}: no trial with these params, data and code is complete; {todo}")
        return min(complete, key=lambda trial: trial.loss)

    def run(self) -> None:
        """Runs the trials that are left. Raises UserError if another process runs the same search."""
        with state_locks.locked(self.key):
            for cut_off in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self._study.tell(cut_off.number, state=TrialState.FAIL)  # a new trial gets the same values
            uid = self._study.user_attrs.get("run_uid") or uuid.uuid4().hex
            self._study.set_user_attr("run_uid", uid)
            with tracked_search("search", f"search@{self.space.name}", self.params, uid, self._inputs) as run:
                for number in self._left():
                    self._trial(number, uid)
                    if losses := self._losses():
                        name = f"best_{_LOSS}" if self._measure is None else "best_error"
                        run.log({name: min(losses)}, number + 1)

    def _left(self) -> Iterator[int]:
        """The numbers of the trials that are left, with a bar."""
        done, total = len(self._finished()), self.settings.trials
        off = None if self.params.runtime.progress else True
        name = f"search {self.space.name}"
        with tqdm(total=total, initial=min(done, total), desc=name, unit="trial", disable=off) as bar:
            for number in range(done, total):
                yield number
                bar.set_postfix(best=f"{min(self._losses(), default=math.nan):.4f}", refresh=False)
                bar.update()

    def _trial(self, number: int, search_uid: str) -> None:
        """Runs one trial: values from optuna, training, and the loss reported to optuna."""
        self._study.sampler = TPESampler(
            seed=seed_for(self.settings.seed, "trial", number) % 2**32,
            n_startup_trials=self.settings.pruner.startup_trials,
            constant_liar=False,
        )
        asked = self._study.ask({path: _distribution(dimension) for path, dimension in self.space.dimensions.items()})
        tags = {"tohum.recipe": self.space.name, **self._inputs}
        try:
            with tracked_search("trial", f"trial {number}", self.params, search_uid, tags) as run:
                loss = self._train(asked, run)
                ended = TrialState.PRUNED if loss is None else TrialState.COMPLETE
                run.tag(**{"tohum.trial": ended.name.lower()})
        except (UserError, torch.OutOfMemoryError) as error:
            asked.set_user_attr("reason", str(error))
            loss, ended = None, TrialState.FAIL
        self._study.tell(asked, loss, state=ended)

    def _train(self, asked: optuna.Trial, run: NullTracker) -> float | None:
        """Validation loss (or error of the measure) of the weights that the recipe would keep with these values.

        None for a pruned trial.
        """
        values = self._values(asked.params)
        run.params(values)
        recipe = self.space.drawn(values)
        run.params({self.space.where.partition(".")[0]: recipe.model_dump(by_alias=True)})
        if self.params.compute.compile:
            torch.compiler.reset()  # each trial compiles as a process of its own would
        start = inputs_of(self._name, recipe)
        built = build(self.space.where, recipe, start.kind, start.load, self.params, start.tokenizer, start.reference)
        built, recipe = self._compared(built, recipe)
        reports = _Reports(run, asked, built.parts.schedule.updates, self._measure)
        params = self.params.model_copy(update={"runtime": self.params.runtime.model_copy(update={"progress": False})})
        try:
            progress = built.trainer(recipe, params, reports, f"search.{self.space.name}").run(None)  # not continued
        except optuna.TrialPruned:
            return None
        except DivergedError as error:  # pruned, not failed: TPE ignores failed trials
            asked.set_user_attr("reason", str(error))
            run.tag(**{"tohum.error": str(error)})
            return None
        followed = float(progress.curve[-1][_LOSS]) if recipe.validation.keep == "last" else progress.best_error
        run.record["loss_nats" if self._measure is None else "error"] = followed
        return followed

    def _compared(self, built: Built, recipe: Recipe) -> tuple[Built, Recipe]:
        """The trial with the recipe's own validation examples, at any batch size."""
        base = self.space.recipe
        examples = base.validation.batches * base.part("ordering", self.space.where).batch_size
        batches = math.ceil(examples / built.parts.ordering.batch_size)
        validation = recipe.validation.model_copy(update={"batches": batches})
        built = replace(built, validation=First(built.validation, examples))
        return built, recipe.model_copy(update={"validation": validation})

    def _values(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """Optuna's values as the recipe takes them: floats of four digits, choices as they are in params.yaml."""
        values = {}
        for path, dimension in self.space.dimensions.items():
            value = drawn[path]
            if isinstance(dimension, Choices):
                value = json.loads(value)
            elif isinstance(value, float):
                value = min(max(float(f"{value:.4g}"), dimension.low), dimension.high)
            values[path] = value
        return values

    def _finished(self) -> list[FrozenTrial]:
        """Trials that ended by themselves; one that a kill cut off is failed without a reason."""
        trials = self._study.get_trials(deepcopy=False)
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [trial for trial in trials if trial.state in ended or _failed(trial)]

    def _losses(self) -> list[float]:
        return [trial.loss for trial in self.trials() if trial.state == "complete"]

    def _trial_of(self, number: int, trial: FrozenTrial) -> SearchTrial:
        seen = trial.value if trial.value is not None else math.nan
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        state = "failed" if _failed(trial) else trial.state.name.lower()
        return SearchTrial(number, state, self._values(trial.params), seen, seconds, trial.user_attrs.get("reason", ""))

    def _fingerprint(self) -> str:
        """Hash of everything that decides a trial's loss; not the number of trials, nor the values that are varied."""
        start = inputs_of(self._name, self.space.recipe)
        if missing := [str(path) for path in dict.fromkeys(start.inputs) if not path.exists()]:
            raise UserError(f"search.{self.space.name}: {', '.join(missing)}: not there yet; run `dvc repro` first")
        settings = {
            "search": self.settings.model_dump(exclude={"trials"}),
            "recipe": self.space.rest(),
            "compute": self.params.compute.model_dump(),
            "optuna": optuna.__version__,
        }
        parts = closure.recipe_parts(self.space.recipe, *self.space.corners())
        return states.fingerprint(settings, start.inputs, closure.code([__name__, start.load.__module__], parts))


class _Reports:
    """A log that passes metrics on, reports every validation to optuna, and ends a trial that optuna prunes."""

    def __init__(self, run: NullTracker, trial: optuna.Trial, steps: int, measure: str | None) -> None:
        self.record, self._measure = run.record, measure
        self._run, self._trial, self._steps, self._validations = run, trial, steps, 0

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """See NullTracker.log. Raises TrialPruned, or DivergedError where the loss is no number."""
        self._run.log(metrics, step)
        if (loss := metrics.get(_LOSS)) is None:
            return
        if not math.isfinite(loss):
            raise DivergedError(f"the validation loss is {loss} at step {step}")
        name = self._measure
        error = loss if name is None else error_of(name, metrics[f"validation_{name}"])
        self._trial.report(error, self._validations)
        self._validations += 1
        if step != self._steps and self._trial.should_prune():  # after the last step nothing is saved any more
            raise optuna.TrialPruned


def _distribution(dimension: Range | Choices) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution([json.dumps(choice) for choice in dimension.choices])
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def _failed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and "reason" in trial.user_attrs
