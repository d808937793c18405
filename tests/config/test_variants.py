"""The short notation of profiles: a lost difference would compare a method with itself and call it equal."""

from typing import Any

import pytest

from pipeline.config import variants
from pipeline.errors import UserError

SHARED: dict[str, Any] = {
    "from": "base",
    "few": None,
    "seed": 7,
    "tuner": {"name": "full"},
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "evaluation": {"measures": {"classification": {"split": "test"}}, "thresholds": {}},
}
BASE = {"measures": {"perplexity": {"split": "test"}}, "thresholds": {}}


def expanded(recipes: dict[str, Any]) -> dict[str, Any]:
    """A profile of these recipes over SHARED, and a base, expanded."""
    return variants.expanded({"evaluations": {"base": BASE}, "recipes": {"shared": SHARED} | recipes}, "mine.yaml")


def test_expanded_gives_a_recipe_and_an_evaluation_for_each_seed() -> None:
    values = expanded({"seeds": [1, 2], "variants": {"full": {}, "few": {"few": 16}}})
    assert list(values["finetune"]) == ["full-s1", "full-s2", "few-s1", "few-s2"]
    assert list(values["evaluations"]) == ["base", "full-s1", "full-s2", "few-s1", "few-s2"]
    plain = {key: value for key, value in SHARED.items() if key != "evaluation"}
    assert values["finetune"]["full-s2"] == plain | {"seed": 2}
    assert values["finetune"]["few-s1"] == plain | {"seed": 1, "few": 16}
    assert values["evaluations"]["few-s1"] == SHARED["evaluation"]
    assert "recipes" not in values


def test_expanded_keeps_the_plain_name_and_the_shared_seed_without_seeds() -> None:
    values = expanded({"variants": {"full": {}, "few": {"few": 16, "seed": 3}}})
    assert {model: recipe["seed"] for model, recipe in values["finetune"].items()} == {"full": 7, "few": 3}


def test_expanded_replaces_a_part_whole_and_one_setting_inside_a_part() -> None:
    lora = {"name": "lora", "rank": 2}
    values = expanded({"variants": {"lora": {"tuner": lora, "optimizer.learning_rate": 0.5}, "full": {}}})
    assert values["finetune"]["lora"]["tuner"] == lora
    assert values["finetune"]["lora"]["optimizer"] == {"name": "adamw", "learning_rate": 0.5}
    assert values["finetune"]["full"]["optimizer"] == {"name": "adamw", "learning_rate": 0.01}


def test_expanded_starts_from_another_variant_with_like() -> None:
    few = {"few": 16, "seeds": [4], "evaluation.thresholds": {"accuracy": {"at_least": 0.9, "at_most": None}}}
    values = expanded(
        {"seeds": [1, 2], "variants": {"few": few, "faster": {"like": "few", "optimizer.learning_rate": 1.0}}}
    )
    assert list(values["finetune"]) == ["few-s4", "faster-s4"]
    assert values["finetune"]["faster-s4"] == values["finetune"]["few-s4"] | {
        "optimizer": {"name": "adamw", "learning_rate": 1.0}
    }
    assert values["evaluations"]["faster-s4"] == values["evaluations"]["few-s4"]


def test_expanded_shares_no_mapping_between_recipes() -> None:
    values = expanded({"seeds": [1, 2], "variants": {"full": {}}})
    assert values["finetune"]["full-s1"]["optimizer"] is not values["finetune"]["full-s2"]["optimizer"]


def test_expanded_returns_a_profile_without_recipes_unchanged() -> None:
    assert variants.expanded({"split.test": 0.1}, "mine.yaml") == {"split.test": 0.1}


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        (
            {"variants": {"a": {"tunr": {}}}},
            r"mine.yaml: recipes.variants.a.tunr: 'tunr' .*one of: from, few, seed, tuner",
        ),
        (
            {"variants": {"a": {"optimizer.rate": 1.0}}},
            "recipes.variants.a.optimizer.rate: 'rate' .*: name, learning_rate",
        ),
        ({"variants": {"a": {"few.er": 1}}}, "recipes.variants.a.few.er: 'er' is not a known key there; one of: none"),
        (
            {"variants": {"a": {}, "b": {"like": "c"}}},
            "recipes.variants.b.like is 'c'; one of the variants before it: a",
        ),
        ({"variants": {"a": {"seeds": ["x"]}}}, "recipes.variants.a.seeds.0: .*valid integer"),
        ({"variants": {"a": {}}, "sedes": [1]}, r"recipes.sedes is not a known key.*did you mean 'seeds'"),
        ({"variants": {}}, "recipes.variants"),
        ({"variants": {"a-s1": {}, "a": {"seeds": [1]}}}, "recipes.variants.a makes 'a-s1', which is there already"),
        ({"variants": {"base": {}}}, "recipes.variants.base makes 'base', which is there already"),
        ({"shared": {"seed": 1}, "variants": {"a": {}}}, "recipes.shared.evaluation is missing"),
        (
            {"seeds": [1, 2], "variants": {"a": {"seed": 77}}},
            r"mine.yaml: recipes.variants.a.seed is 77, and its seeds are \[1, 2\]; .*write `seeds: \[77\]`",
        ),
        ({"variants": {"a": {"seeds": [3]}, "b": {"like": "a", "seed": 4}}}, r"variants.b.seed is 4, .* are \[3\]"),
        ({"seeds": [True], "variants": {"a": {}}}, r"mine.yaml: recipes.seeds.0: .*valid integer, found True"),
        ({"variants": {"a": {"seeds": ["3"]}}}, r"recipes.variants.a.seeds.0: .*valid integer, found '3'"),
        ({"variants": {"a.b": {}}}, r"mine.yaml: recipes.variants.a.b: the name is 'a.b'; expected letters"),
        ({"variants": {"../a": {}}}, "the name is '../a'; expected letters"),
        ({"variants": {"a@b": {}}}, "the name is 'a@b'; expected letters"),
        ({"variants": {"": {}}}, "the name is ''; expected letters"),
    ],
)
def test_expanded_names_the_path_and_the_choices_when_the_notation_is_wrong(
    recipes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        expanded(recipes)


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ({"finetune": {"full": SHARED}}, "mine.yaml: finetune, found beside recipes, .*move its recipes to"),
        ({"evaluations.full-s1": BASE}, "mine.yaml: evaluations.full-s1, found beside recipes.variants.full, which"),
        ({"finetune.full-s1": SHARED}, "mine.yaml: finetune.full-s1, found beside recipes.variants.full, which"),
        ({"evaluations": {"full-s1": BASE}}, "recipes.variants.full makes 'full-s1', which is there already"),
        ({"evaluations": None}, "mine.yaml: evaluations is None; expected a mapping"),
    ],
)
def test_expanded_refuses_a_second_definition_of_a_recipe(beside: dict[str, Any], words: str) -> None:
    """Lost otherwise: one of the two is dropped without a word."""
    recipes = {"seeds": [1], "shared": SHARED, "variants": {"full": {}}}
    with pytest.raises(UserError, match=words):
        variants.expanded({"recipes": recipes} | beside, "mine.yaml")
