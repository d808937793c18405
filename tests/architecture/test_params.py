"""A changed param runs exactly the stages that can feel it: what every stage tracks, as DVC itself resolves it."""

from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
    """The stages that track a key above, below or equal to `param`."""
    return {
        name
        for name, keys in tracked().items()
        if any(param == key or param.startswith(f"{key}.") or key.startswith(f"{param}.") for key in keys)
    }


MODELS = ("base", "spam-full", "spam-layers", "spam-lora", "chat-lora", "chat-full")
TRAINED = {"pretrain", *(f"finetune@{name}" for name in MODELS[1:])}


@pytest.mark.parametrize(
    ("param", "stages"),
    [
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
        ("runtime.tracking.uri", set()),
        ("register.models", set()),
    ],
)
def test_a_changed_param_touches_exactly_these_stages(param: str, stages: set[str]) -> None:
    assert feel(param) == stages


def test_more_messages_do_not_retrain_the_base() -> None:
    """Between download and pretrain stand only files and tickets of the documents."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        deps = {stage.name: {dep.def_path for dep in stage.deps} for stage in repo.index.stages}
    for name in ("tokenize", "pretrain"):
        data = {path for path in deps[name] if path.startswith("data/")}
        assert data
        assert all("documents" in path or "tokenizer" in path for path in data), data
