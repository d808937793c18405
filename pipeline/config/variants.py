"""The short notation of profiles: recipes as differences from shared settings, over several seeds.

    recipes:
      seeds: [1, 2, 3]
      shared: {from: base, ..., tuner: {name: full}, optimizer: {...}, evaluation: {measures: ..., thresholds: ...}}
      variants:
        full: {}
        lora: {tuner: {name: lora, rank: 2, ...}, optimizer.learning_rate: 1.5e-2}
        dora: {like: lora, tuner.decompose: true}

`expanded` turns this into the sections `finetune` and `evaluations` of params.yaml, every setting spelled out: the
recipes full-s1, full-s2, full-s3, lora-s1 and so on, each with its seed and its evaluation. params.yaml itself never
holds the short form: `dvc exp run -S` changes the wrong recipes where several share a value.
"""

import re
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from pipeline.config.section import Section, validated
from pipeline.errors import UserError

KEY = "recipes"
Seed = Annotated[int, Field(strict=True)]
_NAME = re.compile(r"\w[\w-]*")
"""Of a variant: it becomes a key of dotted paths, a folder below models/ and an item of a stage (`finetune@NAME`)."""


class Variant(Section):
    """One recipe of the profile: its differences from the shared settings, or from another variant.

    Every further key is a difference: a dotted path inside the recipe, or inside its `evaluation`, and the value that
    is set there, whole. The path must exist.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    like: str | None = None
    """An earlier variant, whose settings and seeds are the defaults; null or absent: the profile's."""
    seeds: list[Seed] | None = Field(default=None, min_length=1)
    """Seeds of this variant only; null or absent: the same as its origin's."""

    @property
    def differences(self) -> dict[str, Any]:
        """Dotted path inside the recipe -> value, in the order written."""
        return dict(self.__pydantic_extra__ or {})


class Recipes(Section):
    """The section `recipes` of a profile."""

    seeds: list[Seed] | None = Field(default=None, min_length=1)
    """One recipe `<variant>-s<seed>` for each; null or absent: one recipe `<variant>`, with the seed of `shared`."""
    shared: dict[str, Any]
    """A whole recipe as in `finetune`, and its `evaluation` as in `evaluations`."""
    variants: dict[str, Variant] = Field(min_length=1)
    """Recipes by name, in the order in which they are trained and shown."""


def expanded(overlay: dict[str, Any], name: str) -> dict[str, Any]:
    """The overlay with its `recipes` written out as `finetune` and `evaluations`; without that key, as it is.

    Models that the overlay's own `evaluations` names (base, merges) keep their evaluation; base stays first.

    Args:
        overlay: dotted path in params.yaml -> value, and `recipes`.
        name: of the file, for errors.

    Raises:
        UserError: an unknown key or path, a `like` that names no earlier variant, a model named twice, a `finetune`
            beside `recipes`, a variant's seed that its seeds would overwrite, a name unfit for a path.
    """
    if KEY not in overlay:
        return overlay
    if "finetune" in overlay:
        raise UserError(
            f"{name}: finetune, found beside {KEY}, which writes all of finetune; expected one of the two: move its "
            f"recipes to {KEY}.variants"
        )
    recipes: Recipes = validated(Recipes, overlay[KEY], KEY, name)
    if missing := [key for key in ("seed", "evaluation") if key not in recipes.shared]:
        raise UserError(f"{name}: {KEY}.shared.{missing[0]} is missing; it is a whole recipe with its evaluation")
    finetune: dict[str, Any] = {}
    evaluations: dict[str, Any] = {}
    own = overlay.get("evaluations", {})
    if not isinstance(own, dict):
        raise UserError(f"{name}: evaluations is {own!r}; expected a mapping from models to their evaluations")
    for variant, (recipe, seeds) in _variants(recipes, name).items():
        models = {f"{variant}-s{seed}": seed for seed in seeds} if seeds else {variant: recipe["seed"]}
        for model, seed in models.items():
            if model in finetune or model in own:
                raise UserError(f"{name}: {KEY}.variants.{variant} makes {model!r}, which is there already; rename one")
            for path in (f"finetune.{model}", f"evaluations.{model}"):
                if path in overlay:
                    raise UserError(
                        f"{name}: {path}, found beside {KEY}.variants.{variant}, which makes it too; expected in one "
                        "place: write the difference into the variant"
                    )
            settings = copied(recipe) | {"seed": seed}
            evaluations[model] = settings.pop("evaluation")
            finetune[model] = settings
    base = {model: own[model] for model in own if model == "base"}
    written = {"finetune": finetune, "evaluations": base | evaluations | own}
    return written | {path: value for path, value in overlay.items() if path not in {KEY, *written}}


def copied(value: Any) -> Any:
    """A copy of the mappings and lists all the way down, so that no two recipes share one."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


def _variants(recipes: Recipes, name: str) -> dict[str, tuple[dict[str, Any], list[int] | None]]:
    """Variant -> its recipe, `evaluation` included, and its seeds."""
    made: dict[str, tuple[dict[str, Any], list[int] | None]] = {}
    for key, variant in recipes.variants.items():
        where = f"{name}: {KEY}.variants.{key}"
        if not _NAME.fullmatch(key):
            raise UserError(f"{where}: the name is {key!r}; expected letters, digits, - and _ (no dot, slash or @)")
        recipe, seeds = recipes.shared, recipes.seeds
        if variant.like is not None:
            if variant.like not in made:
                before = ", ".join(made) or "none"
                raise UserError(f"{where}.like is {variant.like!r}; one of the variants before it: {before}")
            recipe, seeds = made[variant.like]
        seeds = variant.seeds or seeds
        if seeds and "seed" in variant.differences:
            seed = variant.differences["seed"]
            raise UserError(
                f"{where}.seed is {seed!r}, and its seeds are {list(seeds)}; expected one of the two: write "
                f"`seeds: [{seed}]`"
            )
        recipe = copied(recipe)
        for path, value in variant.differences.items():
            _set(recipe, path, copied(value), where)
        made[key] = (recipe, seeds)
    return made


def _set(recipe: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Sets one difference. Raises UserError where the recipe has no such path."""
    *steps, last = path.split(".")
    section: Any = recipe
    for depth, step in enumerate([*steps, last]):
        if not isinstance(section, dict) or step not in section:
            known = list(section) if isinstance(section, dict) else []
            known += [] if depth else ["like", "seeds"]
            raise UserError(f"{where}.{path}: {step!r} is not a known key there; one of: {', '.join(known) or 'none'}")
        if depth < len(steps):
            section = section[step]
    section[last] = value
