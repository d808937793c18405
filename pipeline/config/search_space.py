"""What a search may vary: the section `search` of params.yaml, checked against the recipes that it names.

    search:
      spam-lora:
        trials: 12
        seed: 1
        pruner: {warmup_validations: 1, startup_trials: 4}
        space:
          optimizer.learning_rate: {low: 1.0e-4, high: 3.0e-2, log: true}
          tuner.rank: {choices: [2, 4, 8, 16]}

A path is one inside the recipe; a choice may be any value, a whole part (`tuner`) too. `base` names `pretrain`. Every
end of a range and every choice must be a setting that the recipe accepts, so a typo costs no trial.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Recipe
from pipeline.config.section import Count, Positive, Section, validated
from pipeline.errors import UserError

# What decides which loss is measured, and on what: trials that differ here could not be compared.
KEPT = ("from", "start", "reference", "data", "objective", "validation")


class Range(Section):
    """A number between two ends, which are in it; whole where both ends and the recipe's own value are."""

    low: int | float
    high: int | float
    log: bool
    """Drawn evenly in the logarithm."""

    @model_validator(mode="after")
    def _is_one(self) -> "Range":
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

    @model_validator(mode="after")
    def _differ(self) -> "Choices":
        if twice := [value for i, value in enumerate(self.choices) if value in self.choices[:i]]:
            raise ValueError(f"names {twice[0]!r} twice")
        return self

    def ends(self) -> list[Any]:
        """The values that the recipe must accept."""
        return self.choices


class Pruner(Section):
    """When a trial is given up: its best loss so far is worse than the median of the others at that validation."""

    warmup_validations: Count
    """Validations of a trial before it may be given up."""
    startup_trials: Count
    """Trials that come first: values drawn at random, none given up."""


class Search(Section):
    """A search over one recipe: how many trials, over which values."""

    trials: Positive
    seed: int
    pruner: Pruner
    space: dict[str, dict[str, Any]] = Field(min_length=1)
    """Path inside the recipe -> a Range or Choices."""


@dataclass(frozen=True)
class Space:
    """One entry of `search`, checked."""

    name: str
    where: str
    """The recipe's path in params.yaml."""
    recipe: Recipe
    settings: Search
    dimensions: dict[str, Range | Choices]
    """By path, sorted."""

    def drawn(self, values: dict[str, Any]) -> Recipe:
        """The recipe with these values at their paths. Raises UserError where it does not accept them."""
        fields = _fields(self.recipe, self.where)
        for path, value in values.items():
            place, last = _place(fields, path, self.where)
            place[last] = value
        made: Recipe = validated(type(self.recipe), fields, self.where)
        for axis in AXES:
            made.part(axis, self.where)
        return made

    def rest(self) -> dict[str, Any]:
        """The recipe's settings that no trial varies."""
        fields = _fields(self.recipe, self.where)
        for path in self.dimensions:
            place, last = _place(fields, path, self.where)
            del place[last]
        return fields

    def corners(self) -> list[Recipe]:
        """The recipe with every end and every choice, one at a time."""
        return [self.drawn({path: end}) for path, one in self.dimensions.items() for end in one.ends()]


def check(params: Params) -> None:
    """Checks every entry of `search`. Raises UserError that names `search.<recipe>.space.<path>`."""
    for name in params.search:
        read(params, name)


def read(params: Params, name: str) -> Space:
    """The checked entry of `search` for one recipe, or `base`."""
    recipes: dict[str, Recipe] = {"base": params.pretrain, **params.finetune}
    at = f"search.{name}"
    if name not in recipes:
        raise UserError(f"params.yaml: {at} names no recipe; one of: {', '.join(recipes)}")
    settings: Search = validated(Search, params.search[name], at)
    where = "pretrain" if name == "base" else f"finetune.{name}"
    fields = _fields(recipes[name], where)
    dimensions = {path: _dimension(one, fields, path, at) for path, one in sorted(settings.space.items())}
    for path in dimensions:
        if inner := [other for other in dimensions if other.startswith(f"{path}.")]:
            raise UserError(f"params.yaml: {at}.space.{inner[0]} lies inside {path}, which is varied whole; keep one")
    space = Space(name, where, recipes[name], settings, dimensions)
    for path, one in dimensions.items():
        for end in one.ends():
            try:
                space.drawn({path: end})
            except UserError as error:
                raise UserError(f"params.yaml: {at}.space.{path}: {end!r} is refused; {error}") from None
    return space


def _dimension(given: dict[str, Any], fields: dict[str, Any], path: str, at: str) -> Range | Choices:
    """One entry of the space; a range must suit the value that stands at its path."""
    at = f"{at}.space.{path}"
    if path.split(".")[0] in KEPT:
        raise UserError(f"params.yaml: {at}: trials are compared by one loss, so these stay: {', '.join(KEPT)}")
    place, last = _place(fields, path, at)
    one: Range | Choices = validated(Choices if "choices" in given else Range, given, at)
    value = place[last]
    if type(value) is int and any(isinstance(end, float) for end in one.ends()):
        raise UserError(f"params.yaml: {at}: {value} stands there, a whole number; found {one.ends()}")
    if isinstance(one, Choices):
        return one
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise UserError(f"params.yaml: {at}: {value!r} stands there, which is no number; use choices")
    if isinstance(value, float):
        return Range(low=float(one.low), high=float(one.high), log=one.log)
    return one


def _fields(recipe: Recipe, where: str) -> dict[str, Any]:
    """The recipe as params.yaml spells it, every value in its type."""
    fields = recipe.model_dump(by_alias=True)
    for axis in AXES:
        fields[axis] = {"name": fields[axis]["name"]} | recipe.part(axis, where).model_dump(by_alias=True)
    return fields


def _place(fields: dict[str, Any], path: str, at: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds the value at `path`, and its key there."""
    place: Any = fields
    *steps, last = path.split(".")
    for step in [*steps, last]:
        if not isinstance(place, dict) or step not in place:
            known = ", ".join(place) if isinstance(place, dict) else "nothing below it"
            raise UserError(f"params.yaml: {at}: the recipe has no {step!r} there; one of: {known}")
        holder, place = place, place[step]
    return holder, last
