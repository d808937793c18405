"""params.yaml is checked before anything runs: without it a typo costs a training run, or silently does nothing."""

import copy
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.seeds import seed_for


@pytest.fixture
def raw() -> dict:
    return yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))


def put(raw: dict, path: str, value: object) -> dict:
    changed = copy.deepcopy(raw)
    place = changed
    *steps, last = path.split(".")
    for step in steps:
        place = place[step]
    place[last] = value
    return changed


def test_the_committed_params_are_the_embedded_profile_and_valid() -> None:
    """A clone would otherwise start with something nobody tested."""
    committed = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert committed == (ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"), (
        "also put the recipe into infra/profiles/embedded.yaml, or keep yours in a profile"
    )
    assert config.load(ROOT / "params.yaml").pretrain.task.name == "next_token"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("sample.decontaminat", True, ["sample.decontaminat", "did you mean 'decontaminate'", "deduplicate"]),
        ("pretrain.schedule.steps", "many", ["pretrain.schedule.steps", "integer", "'many'"]),
        (
            "pretrain.optimizer.lerning_rate",
            1.0,
            ["pretrain.optimizer.lerning_rate", "did you mean 'learning_rate'"],
        ),
        (
            "finetune.spam-lora.tuner.name",
            "lorra",
            ["finetune.spam-lora.tuner", "'lorra'", "lora", "full", "layers"],
        ),
        ("finetune.spam-lora.tuner.rank", 0, ["finetune.spam-lora.tuner.rank", "greater than 0"]),
        ("finetune.spam-lora.from", "bases", ["finetune.spam-lora.from", "'bases'", "spam-full"]),
        ("finetune.spam-lora.data", "spam", ["finetune.spam-lora.data", "labelled"]),
        ("download.sources.world.licence", None, ["download.sources.world.licence"]),
        ("download.sources.world.peple", 3, ["download.sources.world.peple", "people"]),
        ("split.validation", 0.96, ["split", "leave nothing to train on"]),
        ("pretrain.model.n_kv_heads", 2, ["pretrain.model", "n_kv_heads 2 does not divide"]),
        ("gates.row", {}, ["gates.row", "raw", "samples"]),
        ("evaluations.base.measures.perplexityy", {}, ["perplexityy", "perplexity"]),
        ("register.models", ["nobody"], ["nobody", "spam-full"]),
        (
            "waivers",
            [{"gate": "raw", "expectation": "e", "column": "c", "reason": "r", "until": "next spring"}],
            ["waivers.0.until", "isoformat", "next spring"],
        ),
        ("colour", "red", ["colour", "compute"]),
        ("pretrain.optimizer.learning_rate", float("nan"), ["pretrain.optimizer.learning_rate"]),
        ("pretrain.model.logit_softcap", 15.0, ["family qwen3 has no logit_softcap", "family to nanochat"]),
        (
            "pretrain.model.family",
            "qwen2",
            ["family qwen2 always has biases of its queries, keys and values; set bias"],
        ),
        ("pretrain.model.family", "nanochat", ["finetune.spam-full.task.name is 'classify'", "no classifier"]),
        (
            "pretrain.start",
            {"kind": "hub", "path": "a/b", "revision": None, "sha256": None, "licence": None, "zero_projections": True},
            ["zero_projections is about fresh weights, kind is hub"],
        ),
        ("finetune.spam-lora", {"objective": {}}, ["finetune.spam-lora", "the key `objective` is now `task`"]),
        ("pretrain.schedule.batch_warmup_steps", 9, ["pretrain.schedule", "nothing to grow to"]),
    ],
)
def test_check_names_path_value_and_choices_when_a_value_is_wrong(
    raw: dict, path: str, value: object, words: list
) -> None:
    with pytest.raises(UserError) as caught:
        config.check(put(raw, path, value))
    for word in words:
        assert word in str(caught.value)


def test_check_accepts_a_family_without_classifier_when_no_recipe_classifies(raw: dict) -> None:
    raw["finetune"] = {name: recipe for name, recipe in raw["finetune"].items() if name.startswith("chat")}
    raw["evaluations"] = {name: one for name, one in raw["evaluations"].items() if not name.startswith("spam")}
    raw["register"]["models"], raw["search"] = ["base"], {}
    raw = put(put(raw, "pretrain.model.family", "nanochat"), "pretrain.model.logit_softcap", 15.0)
    assert config.check(raw).pretrain.model.logit_softcap == 15.0


def test_check_refuses_a_missing_key(raw: dict) -> None:
    del raw["pretrain"]["schedule"]["warmup_steps"]
    with pytest.raises(UserError, match=r"pretrain\.schedule\.warmup_steps is missing"):
        config.check(raw)


def test_check_refuses_a_recipe_without_evaluation(raw: dict) -> None:
    """A recipe without evaluation would never be judged."""
    del raw["evaluations"]["spam-lora"]
    with pytest.raises(UserError, match="spam-lora"):
        config.check(raw)


def with_merges(raw: dict, **merges: dict) -> dict:
    """Merges of chat-lora and spam-lora by halves, but for what is given; measured as base is."""
    whole = {"of": "base", "first": "chat-lora", "second": "spam-lora"}
    whole["rule"] = {"name": "linear", "scales": [0.5, 0.5]}
    evaluations = raw["evaluations"] | dict.fromkeys(merges, raw["evaluations"]["base"])
    return raw | {"merge": {name: whole | changes for name, changes in merges.items()}, "evaluations": evaluations}


def test_check_accepts_a_merge_wherever_a_model_is_named(raw: dict) -> None:
    """Merged again, started from, registered; its lineage has every model once, in an order in which they are made."""
    raw = with_merges(raw, both={}, three={"first": "both", "second": "chat-full"})
    raw["finetune"]["more"] = raw["finetune"]["spam-full"] | {
        "from": "three",
        "reference": "three",
        "judge": {"name": "none", "reads": "models/three"},
    }
    raw["evaluations"]["more"] = raw["evaluations"]["spam-full"]
    raw["register"] = raw["register"] | {"models": ["three"]}
    lineage = config.check(raw).lineage("more")
    assert lineage == ["base", "chat-lora", "spam-lora", "both", "chat-full", "three", "more"]


@pytest.mark.parametrize(
    ("merges", "words"),
    [
        ({"both": {"first": "chat"}}, "merge.both.first is 'chat'; one of: .*'spam-lora'"),
        ({"both": {"of": "both"}}, "merge.both.of is 'both'; one of"),
        ({"both": {"second": "chat-lora"}}, "merge.both names a model twice"),
        ({"both": {"of": "spam-full"}}, "merge.both.first is 'chat-lora', which was not tuned from 'spam-full'"),
        ({"spam-full": {}}, "merge.spam-full: another model has that name"),
        ({"a": {"first": "b"}, "b": {"first": "a"}}, "a from b from a: no model can be made from itself"),
        ({"both": {"rule": {"name": "tie"}}}, "merge.both.rule.name is 'tie'; one of: linear, ties"),
        ({"both": {"rule": {"name": "linear", "scales": [1.0]}}}, r"merge.both.rule.scales.1"),
        ({"both": {"rule": {"name": "ties", "density": 0.0, "scale": 1.0}}}, "merge.both.rule.density"),
    ],
)
def test_check_refuses_an_impossible_merge(raw: dict, merges: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        config.check(with_merges(raw, **merges))


def test_check_refuses_a_merge_without_evaluation(raw: dict) -> None:
    raw = with_merges(raw, both={})
    del raw["evaluations"]["both"]
    with pytest.raises(UserError, match=r"every merge, no other; missing: \['both'\]; unknown: \[\]"):
        config.check(raw)


def test_load_names_the_file_when_it_is_missing_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        config.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1", encoding="utf-8")
    with pytest.raises(UserError, match="not readable as YAML"):
        config.load(tmp_path / "params.yaml")


def test_section_refuses_assignment(raw: dict) -> None:
    params = config.check(raw)
    with pytest.raises(ValueError, match="frozen"):
        params.compute.threads = 8  # type: ignore[misc]


def test_seed_for_differs_by_purpose_and_step_and_repeats() -> None:
    assert seed_for(1, "order", 2) == seed_for(1, "order", 2)
    assert len({seed_for(s, p, i) for s in (1, 2) for p in ("order", "dropout") for i in range(50)}) == 200


def test_load_imports_no_heavy_library() -> None:
    """Every stage pays for what config imports."""
    import subprocess
    import sys

    heavy = ("torch", "mlflow", "optuna", "prefect", "datasets", "great_expectations")
    code = f"import sys, pipeline.config as c; c.load(); print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
