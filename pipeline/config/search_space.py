"""Search spaces of hyperparameter searches: the section `search` of params.yaml, checked against its recipes.

    search:
      spam-lora:
        trials: 12
        seed: 1
        pruner: {warmup_validations: 1, startup_trials: 4}
        space:
          optimizer.learning_rate: {low: 1.0e-4, high: 3.0e-2, log: true}
          tuner.rank: {choices: [2, 4, 8, 16]}

A path lies inside the recipe; a choice may be any value, also a whole part (`tuner`). `base` names `pretrain`. The
recipe must accept both ends of every range and every choice, so a typo is found before the first trial.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from pipeline.config import compatibility, judgement_rules, plugins
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Finetune, Kind, Recipe
from pipeline.config.section import Count, Positive, Section, validated
from pipeline.errors import UserError

# Settings of the measured loss and its records: trials that differ here could not be compared.
KEPT = ("from", "start", "reference", "judge", "data", "task", "validation")
KEPT_OF_JUDGEMENT = ("loss", "experience.name", "experience.max_tokens", "experience.temperature")
"""Kept too where the loss validates in its own way: on pairs, thumbs and rollouts."""


class Range(Section):
    """A number in a closed interval; an integer where both ends and the recipe's own value are integers."""

    low: int | float
    """Lower end."""
    high: int | float
    """Upper end."""
    log: bool
    """Whether it is drawn evenly in the logarithm."""

    @model_validator(mode="after")
    def _has_an_inside(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}; with log: true it must be above 0")
        return self

    def ends(self) -> list[Any]:
        """The values that the recipe must accept."""
        return [self.low, self.high]


class Choices(Section):
    """One of several values."""

    choices: list[Any] = Field(min_length=1)
    """The values."""

    @model_validator(mode="after")
    def _differ(self) -> "Choices":
        if twice := [value for i, value in enumerate(self.choices) if value in self.choices[:i]]:
            raise ValueError(f"names {twice[0]!r} twice")
        return self

    def ends(self) -> list[Any]:
        """The values that the recipe must accept."""
        return self.choices


class Pruner(Section):
    """Median pruning: a trial stops when its best loss is worse than the median of the others at that validation."""

    warmup_validations: Count
    """Validations of a trial before it may be pruned."""
    startup_trials: Count
    """First trials, whose values are drawn at random and which are not pruned."""


class SearchSettings(Section):
    """A hyperparameter search over one recipe."""

    trials: Positive
    """Number of trials."""
    seed: int
    """Seed of the sampler."""
    pruner: Pruner
    """Early end of bad trials."""
    space: dict[str, dict[str, Any]] = Field(min_length=1)
    """Dotted path inside the recipe -> a Range or Choices."""


@dataclass(frozen=True)
class Space:
    """One entry of `search`, checked."""

    name: str
    """Recipe, or base."""
    where: str
    """Path of the recipe in params.yaml."""
    recipe: Recipe
    """The recipe as params.yaml has it."""
    settings: SearchSettings
    """The entry."""
    dimensions: dict[str, Range | Choices]
    """By path, sorted."""

    def drawn(self, values: dict[str, Any]) -> Recipe:
        """The recipe with these values at their paths. Raises UserError where it does not accept them."""
        fields = _fields(self.recipe, self.where)
        for path, value in values.items():
            section, last = _section(fields, path, self.where)
            section[last] = value
        recipe: Recipe = validated(type(self.recipe), fields, self.where)
        for axis in AXES:
            recipe.part(axis, self.where)
        return recipe

    def rest(self) -> dict[str, Any]:
        """The recipe's settings that no trial varies."""
        fields = _fields(self.recipe, self.where)
        for path in self.dimensions:
            section, last = _section(fields, path, self.where)
            del section[last]
        return fields

    def corners(self) -> list[Recipe]:
        """The recipe with every end and every choice, one at a time."""
        return [self.drawn({path: end}) for path, dimension in self.dimensions.items() for end in dimension.ends()]


def check(params: Params) -> None:
    """Checks every entry of `search`. Raises UserError that names `search.<recipe>.space.<path>`."""
    for name in params.search:
        read(params, name)


def read(params: Params, name: str) -> Space:
    """The checked entry of `search` for one recipe, or `base`."""
    recipes: dict[str, Recipe] = {"base": params.pretrain, **params.finetune}
    entry = f"search.{name}"
    if name not in recipes:
        raise UserError(f"params.yaml: {entry} names no recipe; one of: {', '.join(recipes)}")
    settings: SearchSettings = validated(SearchSettings, params.search[name], entry)
    where = "pretrain" if name == "base" else f"finetune.{name}"
    fields = _fields(recipes[name], where)
    dimensions = {path: _dimension(values, fields, path, entry) for path, values in sorted(settings.space.items())}
    for path in dimensions:
        if inner := [other for other in dimensions if other.startswith(f"{path}.")]:
            raise UserError(
                f"params.yaml: {entry}.space.{inner[0]} lies inside {path}, which is varied whole; keep one"
            )
    space = Space(name, where, recipes[name], settings, dimensions)
    for path, dimension in dimensions.items():
        for end in dimension.ends():
            try:
                tried = space.drawn({path: end})
                kind: Kind = tried.data if isinstance(tried, Finetune) else "documents"
                for fault in compatibility.faults(where, tried, kind, params):
                    raise UserError(f"params.yaml: {fault}")
            except UserError as error:
                raise UserError(f"params.yaml: {entry}.space.{path}: {end!r} is refused; {error}") from None
    return space


def _dimension(values: dict[str, Any], fields: dict[str, Any], path: str, entry: str) -> Range | Choices:
    """One entry of the space; a range must suit the recipe's own value at its path."""
    where = f"{entry}.space.{path}"
    if path.split(".")[0] in KEPT:
        raise UserError(f"params.yaml: {where}: trials are compared by one loss, so these stay: {', '.join(KEPT)}")
    compared = fields["task"]["name"] in _compared() and any(
        f"{path}.".startswith(f"{kept}.") or f"{kept}.".startswith(f"{path}.") for kept in KEPT_OF_JUDGEMENT
    )
    if compared:
        raise UserError(
            f"params.yaml: {where}: trials are compared by the loss's own validation, so these stay: "
            f"{', '.join(KEPT_OF_JUDGEMENT)}"
        )
    section, last = _section(fields, path, where)
    dimension: Range | Choices = validated(Choices if "choices" in values else Range, values, where)
    value = section[last]
    if type(value) is int and any(isinstance(end, float) for end in dimension.ends()):
        raise UserError(f"params.yaml: {where}: the recipe's value is {value}, an integer; found {dimension.ends()}")
    if isinstance(dimension, Choices):
        return dimension
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise UserError(f"params.yaml: {where}: the recipe's value is {value!r}, not a number; use choices")
    if isinstance(value, float):
        return Range(low=float(dimension.low), high=float(dimension.high), log=dimension.log)
    return dimension


def _compared() -> list[str]:
    """The tasks whose losses validate in their own way."""
    return [
        name
        for name in plugins.choices("tasks")
        if getattr(plugins.settings_class("tasks", name), "emits", None) in judgement_rules.COMPARED
    ]


def _fields(recipe: Recipe, where: str) -> dict[str, Any]:
    """The recipe as params.yaml spells it, every value in its type."""
    fields = recipe.model_dump(by_alias=True)
    for axis in fields.keys() & AXES.keys():  # pretraining has no judge
        fields[axis] = {"name": fields[axis]["name"]} | recipe.part(axis, where).model_dump(by_alias=True)
    return fields


def _section(fields: dict[str, Any], path: str, where: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds the value at `path`, and its key there."""
    value: Any = fields
    section: dict[str, Any] = fields
    last = path.split(".")[-1]
    for step in path.split("."):
        if not isinstance(value, dict) or step not in value:
            known = ", ".join(value) if isinstance(value, dict) else "nothing below it"
            raise UserError(f"params.yaml: {where}: the recipe has no {step!r} there; one of: {known}")
        section, value = value, value[step]
    return section, last
