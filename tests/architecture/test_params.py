"""A changed param runs exactly the stages that can feel it: what every stage tracks, as DVC itself resolves it."""

from functools import cache
from pathlib import Path

import pytest
import yaml

from pipeline import closure, config
from pipeline.config import profiles
from pipeline.paths import CODE as ROOT


@cache
def tracked() -> dict[str, list[str]]:
    """Stage name -> params keys it tracks."""
    from dvc.repo import Repo

    found: dict[str, list[str]] = {}
    with Repo(str(ROOT)) as repo:
        for stage in repo.index.stages:
            found[stage.name] = [key for dep in stage.deps for key in getattr(dep, "params", [])]
    return found


def feel(param: str) -> set[str]:
    """The stages that track a key above, below or equal to `param`; stage `code` is judged by what it writes."""
    return {
        name
        for name, keys in tracked().items()
        if name != "code"
        and any(param == key or param.startswith(f"{key}.") or key.startswith(f"{param}.") for key in keys)
    }


PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
MODELS = ("base", *PARAMS["finetune"], *PARAMS["merge"])
GATES = {f"validate@{gate}" for gate in ("raw", "tokens", "samples")} | {f"validate-model@{name}" for name in MODELS}
TRAINED = {"pretrain", *(f"finetune@{name}" for name in PARAMS["finetune"])}


@pytest.mark.parametrize(
    ("param", "stages"),
    [
        ("merge", {"report"}),
        ("finetune.spam-lora.tuner.rank", {"finetune@spam-lora", "report"}),
        ("finetune.spam-lora.optimizer.learning_rate", {"finetune@spam-lora", "report"}),
        ("evaluations.chat-full.measures.exact_match.max_tokens", {"evaluate@chat-full", "report"}),
        ("evaluations.base.thresholds.bits_per_byte_over_known", {"validate-model@base", "report"}),
        ("gates.raw.max_personal.email", {"validate@raw"}),
        ("gates.model.min_distinct_2", {f"validate-model@{name}" for name in MODELS}),
        ("pretrain.optimizer.learning_rate", {"pretrain"}),
        ("download.sources.world.labelled", {"download"}),
        ("tokenize.vocab_size", {"tokenize"}),
        ("split.test", {"tokenize", "sample"}),
        ("sample.decontaminate", {"sample"}),
        ("compute.threads", TRAINED | {f"evaluate@{name}" for name in MODELS}),
        ("runtime.log_every", set()),
        ("runtime.checkpoint_seconds", set()),
        ("runtime.tracking.uri", set()),
        ("register.models", set()),
        ("report.language", {"report"} | GATES),
        ("report.grid.grams_per_kwh", {"report"}),
        ("review.policy.risks", {"report"}),
        ("review.policy.better", set()),
        ("search.spam-lora.trials", set()),
    ],
)
def test_a_changed_param_touches_exactly_these_stages(param: str, stages: set[str]) -> None:
    assert feel(param) == stages


def test_a_changed_value_changes_no_stages_code_and_a_changed_part_that_of_its_recipe() -> None:
    """Stage `code` runs for any change of a recipe, since it cannot know which one names a part; the others do not."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    before = closure.stages(config.check(raw), graph)
    raw["search"], lora = {}, raw["finetune"]["spam-lora"]
    lora["tuner"]["rank"], lora["optimizer"]["learning_rate"] = 2, 0.5
    assert closure.stages(config.check(raw), graph) == before
    lora["tuner"] = {"name": "full"}
    after = closure.stages(config.check(raw), graph)
    assert {stage for stage in before if before[stage] != after[stage]} == {"finetune@spam-lora"}


def test_a_changed_rule_merges_again_and_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also: DVC reads the merges of a profile as a graph, two models into one."""
    from dvc.repo import Repo

    monkeypatch.chdir(ROOT)
    (tmp_path / "params.yaml").write_text(profiles.rendered(["merged"]), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
        keys = {name: {key for dep in one.deps for key in getattr(dep, "params", [])} for name, one in stages.items()}
        before = {one.name for one in repo.index.graph.successors(stages["merge@both-ties-s1"])}
    assert {name for name, found in keys.items() if found & {"merge", "merge.both-ties-s1"}} == {
        "code", "merge@both-ties-s1", "report"
    }  # fmt: skip
    assert before == {"code", "pretrain", "finetune@spam-lora-s1", "finetune@chat-lora-s1"}


def test_more_messages_do_not_retrain_the_base() -> None:
    """Between download and pretrain stand only files and tickets of the documents."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        deps = {stage.name: {dep.def_path for dep in stage.deps} for stage in repo.index.stages}
    for name in ("tokenize", "pretrain"):
        data = {path for path in deps[name] if path.startswith("data/") and not path.startswith("data/code/")}
        assert data
        assert all("documents" in path or "tokenizer" in path for path in data), data
