"""Recipes that cannot work are refused when params are read: every task, record kind, start and loss."""

import copy
from itertools import product
from typing import Any

import pytest
import yaml

from pipeline import config
from pipeline.config import plugins
from pipeline.config.recipe import AXES, KINDS
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT

RAW: dict[str, Any] = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
READS = {
    "next_token": "documents", "classify": "labelled", "cloze": "labelled", "instruct": "instructions",
    "chat": "instructions", "unchanged": "no recipe of `finetune`", "multi_label": "labelled", "regress": "labelled",
    "preference": "preferences", "reward": "preferences", "thumbs": "preferences",
    "prompts": "instructions, preferences",
}  # fmt: skip


def started(model: str) -> dict[str, Any]:
    """The start of a recipe whose loss needs no other model."""
    return {"from": model, "reference": model, "judge": {"name": "none", "reads": f"models/{model}"}}


ADDITIONS = ("prompt", "prefix", "bottleneck")
STARTS = {"base": {"name": "full"}, "spam-full": {"name": "full"}} | {
    f"with-{name}": {"name": name} | plugins.example("tuners", name) for name in ADDITIONS
}


def params(task: str, kind: str, start: str, loss: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Params with one recipe `tried`, and recipes with every tuner that adds to a model."""
    raw = copy.deepcopy(RAW)
    raw["search"], raw["register"]["models"] = {}, []
    for name, tuner in STARTS.items():
        if name not in ("base", "spam-full"):
            raw["finetune"][name] = raw["finetune"]["spam-lora"] | {"tuner": tuner}
    raw["finetune"]["tried"] = raw["finetune"]["spam-lora"] | {
        "data": kind, "from": start, "reference": "spam-full" if loss == "distill" else start,
        "judge": {"name": "none", "reads": f"models/{start}"},
        "task": {"name": task} | plugins.example("tasks", task),
        "loss": {"name": loss} | plugins.example("losses", loss),
    }  # fmt: skip
    if getattr(plugins.settings_class("losses", loss), "source", "records") == "rollouts":
        raw["finetune"]["tried"] |= {"experience": part("experience", "rollouts"), "judge": part("judges", "rule")}
    raw["finetune"]["tried"] |= changes or {}
    if raw["finetune"]["tried"]["reference"] == "other":
        taught = {"from": "base", "reference": "tried", "loss": part("losses", "distill")}
        raw["finetune"]["other"] = raw["finetune"]["spam-lora"] | taught
    raw["evaluations"] |= dict.fromkeys(raw["finetune"], raw["evaluations"]["spam-lora"])
    return raw


@pytest.mark.parametrize(("task", "kind"), product(plugins.choices("tasks"), KINDS))
def test_check_accepts_a_recipe_exactly_where_its_parts_fit(task: str, kind: str) -> None:
    """A new task or loss is tried with everything that is there."""
    for start, loss in product(STARTS, plugins.choices("losses")):
        raw = params(task, kind, start, loss)
        asked: Any = plugins.settings_class("tasks", task)
        compared: Any = plugins.settings_class("losses", loss)
        fits = asked.emits in compared.takes and getattr(compared, "head", asked.head) == asked.head
        if kind in READS.get(task, kind).split(", ") and not start.startswith("with-") and fits:
            config.check(raw)
            continue
        with pytest.raises(UserError) as caught:
            config.check(raw)
        assert str(caught.value).startswith("params.yaml: finetune.tried."), caught.value


def part(folder: str, name: str, **changes: Any) -> dict[str, Any]:
    """The entry of a part with example settings."""
    return {"name": name} | plugins.example(folder, name) | changes


INSTRUCT, ATTENTION = part("tasks", "instruct"), part("losses", "attention")
SCHEDULE = RAW["finetune"]["spam-lora"]["schedule"]
VALIDATION = RAW["finetune"]["spam-lora"]["validation"]
PRIVACY = {"epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0}
NO_ROOM = part("tasks", "chat", max_tokens=64, max_prompt_tokens=64)
CASES: list[tuple[dict[str, Any], str]] = [
    (
        {"task": INSTRUCT},
        "tried.task.name is 'instruct', which reads instructions, and the recipe has data: labelled; for labelled one "
        "of: classify, cloze",
    ),
    ({"few": 3, "data": "documents", "task": part("tasks", "next_token")}, "tried.few draws records"),
    (
        {"data": "preferences", "task": part("tasks", "reward"), "loss": part("losses", "dpo")},
        "tried.loss.name is 'dpo', which compares answers by a language head, and task 'reward' has a scalar head; one "
        "of: bradley_terry",
    ),
    (
        {"data": "preferences", "task": part("tasks", "thumbs"), "loss": part("losses", "kto")}
        | {"schedule": SCHEDULE | {"accumulate": 2}},
        "tried.loss compares the examples of a micro-batch with each other, and schedule.accumulate is 2; set it to 1",
    ),
    (
        {"reference": "base", "loss": part("losses", "distill")},
        "tried.reference is 'base', which has no classification head",
    ),
    (
        {**started("with-prompt")},
        "tried.from is 'with-prompt', whose tuner 'prompt' keeps virtual tokens",
    ),
    (
        {"loss": part("losses", "squared_error")},
        "tried.loss.name is 'squared_error', which takes number, and task 'classify' gives classes; one of: "
        "adversarial, attention, cross_entropy, distill",
    ),
    (
        {
            "task": part("tasks", "regress"),
            "loss": part("losses", "squared_error"),
            "weighting": part("weighting", "classes"),
        },
        "tried.weighting.name is 'classes', which takes classes, and task 'regress' gives number; one of: reweight, "
        "uniform",
    ),
    (
        {"validation": VALIDATION | {"keep": {"measure": "exact_match"}}},
        "tried.validation.keep.measure is 'exact_match', and task 'classify' has accuracy, f1; one of those, or keep: "
        "best",
    ),
    ({"depth": 5}, "tried.depth is 5, and 'base' has 4 blocks"),
    (
        {"depth": 1, "loss": ATTENTION},
        "tried.loss.heads names block 1, heads [0, 1]; the model has blocks 0 to 0",
    ),
    (
        {"task": part("tasks", "classify", max_tokens=257)},
        "tried.task.max_tokens is 257, and pretrain.model.context_length 256",
    ),
    (
        {"data": "instructions", "weighting": part("weighting", "classes"), "task": INSTRUCT},
        "tried.weighting.name is 'classes', which reads labelled",
    ),
    ({"data": "instructions", "task": NO_ROOM}, "leaves no room for an answer"),
    ({"loss": ATTENTION | {"towards": "first"}}, "words go with towards: words"),
    ({"reference": "spam-full"}, "tried.reference is 'spam-full', and loss 'cross_entropy' compares with no model"),
    (
        {"reference": "spam-full", "loss": part("losses", "distill"), "schedule": SCHEDULE | {"accumulate": 2}},
        "tried.loss compares the examples of a micro-batch with each other, and schedule.accumulate is 2",
    ),
    (
        {"tuner": part("tuners", "prompt", virtual_tokens=200), "task": part("tasks", "classify", max_tokens=96)},
        "tried.task.max_tokens is 96, and pretrain.model.context_length 256, of which virtual tokens take 200",
    ),
    (
        {"privacy": PRIVACY, "ordering": part("ordering", "poisson"), "weighting": part("weighting", "reweight")}
        | {"schedule": SCHEDULE | {"clip_norm": 0.0}},
        "tried.weighting.name is 'reweight'; with privacy a weight may depend on its own example alone",
    ),
    ({"task": part("tasks", "cloze", pattern="{label} {text}")}, "expected {text} once and {label} once, at the end"),
    ({"task": part("tasks", "cloze", verbalizers={"a": "x", "b": "x"})}, "a different word for each of the labels"),
    (
        {
            "from": "spam-full",
            "reference": "spam-full",
            "judge": {"name": "none", "reads": "models/spam-full"},
            "tuner": part("tuners", "lora", merged=False),
        },
        "tried.tuner.merged is false, which stores the adapter without its base, and `from` is 'spam-full'; only",
    ),
    (
        {"depth": 2, "tuner": part("tuners", "ia3", merged=False)},
        "tried.tuner.merged is false, which stores the adapter without its base, and depth is 2: no folder has",
    ),
    (
        {
            "from": "spam-full",
            "reference": "spam-full",
            "judge": {"name": "none", "reads": "models/spam-full"},
            "tuner": part("tuners", "prefix", with_base=False),
        },
        "tried.tuner.with_base is false, which stores the adapter without its base, and `from` is 'spam-full'; only",
    ),
    (
        {"reference": "other", "loss": part("losses", "distill")},
        "finetune.tried: its `from`, `reference` or judge is made with 'tried' itself",
    ),
]


@pytest.mark.parametrize(("changes", "words"), CASES)
def test_check_names_recipe_and_value_of_an_impossible_recipe(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        config.check(params("classify", "labelled", "base", "cross_entropy", changes))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("axis", "name", "words"),
    [
        ("task", "classify", "task.name is 'classify', which reads labelled, and the recipe trains on documents"),
        ("loss", "distill", "loss.name is 'distill', which needs a reference model, and pretraining has none"),
        ("weighting", "classes", "weighting.name is 'classes', which reads labelled"),
    ],
)
def test_check_refuses_impossible_pretraining(axis: str, name: str, words: str) -> None:
    raw = copy.deepcopy(RAW)
    raw["pretrain"][axis] = part(AXES[axis], name)
    with pytest.raises(UserError) as caught:
        config.check(raw)
    assert f"pretrain.{words}" in str(caught.value)


def test_check_refuses_recipes_from_a_base_whose_pretraining_left_additions() -> None:
    raw = copy.deepcopy(RAW)
    raw["pretrain"]["tuner"] = part("tuners", "prompt")
    with pytest.raises(UserError, match="from is 'base', whose tuner 'prompt' keeps virtual tokens"):
        config.check(raw)


def test_check_refuses_an_adapter_without_its_base_over_weights_of_4_bits() -> None:
    """A reader would need the library and the hardware of the training to have the same model."""
    raw = params("classify", "labelled", "base", "cross_entropy", {"tuner": part("tuners", "lora", merged=False)})
    raw["compute"]["weights"] = "nf4"
    for recipe in (raw["pretrain"], *(recipe for name, recipe in raw["finetune"].items() if name != "tried")):
        recipe["tuner"] = part("tuners", "lora")
    with pytest.raises(UserError, match=r"tried.tuner.merged is false, .* and compute.weights is nf4: a reader"):
        config.check(raw)


def test_check_refuses_a_base_that_is_stored_as_an_adapter_only() -> None:
    """All other models stand on models/base, and its open weights are no dependency of their stages."""
    raw = copy.deepcopy(RAW)
    raw["pretrain"]["tuner"] = part("tuners", "lora", merged=False)
    with pytest.raises(UserError, match=r"pretrain.tuner.merged is false, .* and pretrain makes the base of all other"):
        config.check(raw)


def test_check_accepts_a_recipe_and_a_merge_from_a_model_that_is_stored_as_an_adapter_only() -> None:
    """Their stages depend on models/base too, so its adapter is always completed."""
    raw = params("classify", "labelled", "base", "cross_entropy", {"tuner": part("tuners", "lora", merged=False)})
    raw["finetune"]["next"] = raw["finetune"]["spam-full"] | {
        "from": "tried",
        "reference": "tried",
        "judge": {"name": "none", "reads": "models/tried"},
    }
    rule = {"name": "linear", "scales": [1.0, 1.0]}
    raw["merge"] = {"both": {"of": "base", "first": "spam-full", "second": "tried", "rule": rule}}
    raw["evaluations"] |= dict.fromkeys(("both", "next"), raw["evaluations"]["spam-full"])
    config.check(raw)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tuner": part("tuners", "prefix")}, "merge.both.second is 'tried', whose tuner keeps virtual tokens"),
        ({"depth": 2}, "merge.both.second is 'tried' of another depth than 'base'"),
    ],
)
def test_check_refuses_merges_that_cannot_be_made(changes: dict[str, Any], words: str) -> None:
    raw = params("classify", "labelled", "base", "cross_entropy", changes)
    rule = {"name": "linear", "scales": [1.0, 1.0]}
    raw["merge"] = {"both": {"of": "base", "first": "spam-full", "second": "tried", "rule": rule}}
    raw["evaluations"]["both"] = raw["evaluations"]["spam-full"]
    with pytest.raises(UserError, match=words):
        config.check(raw)


def test_check_refuses_a_search_whose_trials_cannot_work() -> None:
    raw = params("classify", "labelled", "base", "cross_entropy")
    trial = RAW["search"]["spam-lora"]
    raw["search"] = {"tried": trial | {"space": {"depth": {"choices": [2, 99]}}}}
    with pytest.raises(UserError, match=r"search.tried.space.depth: 99 is refused; .*depth is 99"):
        config.check(raw)


def test_check_refuses_4_bit_weights_where_a_recipe_trains_them() -> None:
    """Lost otherwise: the run would end at the first training stage, after the data stages."""
    raw = copy.deepcopy(RAW)
    raw["compute"]["weights"] = "nf4"
    with pytest.raises(UserError, match=r"compute\.weights is nf4, and pretrain\.tuner\.name is 'full'"):
        config.check(raw)
    raw["pretrain"]["schedule"]["steps"] = 0  # open weights as they are
    with pytest.raises(UserError, match=r"finetune\.spam-full\.tuner\.name is 'full', which trains every weight"):
        config.check(raw)
