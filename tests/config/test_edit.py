"""params.yaml edited by a command: exactly the requested values change, or nothing does."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config
from pipeline.config import edit
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT

LORA = "finetune.spam-lora"


def in_block_style(part: re.Match[str]) -> str:
    """A part over several lines, as people write long ones: both styles are edited."""
    indent, key, settings = part.groups()
    lines = re.split(r", (?=[a-z_0-9]+: )", settings)
    return "\n".join([f"{indent}{key.strip()}", *(f"{indent}  {line}" for line in lines)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    copy = tmp_path / "params.yaml"
    text = (ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^( +)(tuner: |optimizer: )\{(name: (?:lora|muon), .*)\}$", in_block_style, text, flags=re.M)
    copy.write_text(re.sub(r"^search:.*\n(?:[ #].*\n|\n)*", "search: {}\n", text, flags=re.M), encoding="utf-8")
    return copy


def lines(difference: str, sign: str) -> list[str]:
    return [line[1:].strip() for line in difference.splitlines() if line.startswith(sign) and line[:3] != sign * 3]


@pytest.mark.parametrize(
    ("dotted", "value", "written"),
    [
        (f"{LORA}.tuner.rank", 4, "rank: 4"),
        (f"{LORA}.few", 16, "few: 16"),
        (f"{LORA}.tuner.targets", ["attention"], "targets: [attention]"),
        (f"{LORA}.tuner.rank_stabilised", True, "rank_stabilised: true"),
        ("pretrain.optimizer.epsilon", 1e-5, "epsilon: 1.0e-05"),  # 1e-05 is a text to a YAML 1.1 reader
        (LORA + ".weighting", {"name": "focal", "gamma": 2.0}, "weighting: {name: focal, gamma: 2.0}"),
    ],
)
def test_change_replaces_one_value_and_no_other_byte(path: Path, dotted: str, value: Any, written: str) -> None:
    """Lost otherwise: a `git diff` of ten lines for one number, or a comment that is gone."""
    before = path.read_text(encoding="utf-8")
    difference = edit.change(path, {dotted: value})
    assert lines(difference, "+") == [written]
    (old,) = lines(difference, "-")
    assert path.read_text(encoding="utf-8").replace(written, old) == before.replace(written, old)
    found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    for step in dotted.split("."):
        found = found[step]
    assert found == value
    assert edit.change(path, {dotted: value}) == ""


def test_change_sets_several_values_when_parts_are_on_one_line_and_over_several(path: Path) -> None:
    tuner = {"name": "layers", "last": 1, "first": 0, "pattern": None, "embeddings": False}
    values = {
        f"{LORA}.optimizer.learning_rate": 0.02,
        f"{LORA}.optimizer.epsilon": 1e-7,
        f"{LORA}.tuner": tuner,
    }
    difference = edit.change(path, values)
    recipe = config.load(path).finetune["spam-lora"]
    assert recipe.part("optimizer", "").model_dump()["epsilon"] == 1e-7
    assert recipe.tuner.name == "layers"
    assert lines(difference, "+") == [
        "{name: layers, last: 1, first: 0, pattern: null, embeddings: false}",
        "optimizer: {name: adamw, learning_rate: 0.02, weight_decay: 0.0, beta1: 0.9, beta2: 0.95, epsilon: 1.0e-07}",
    ]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({f"{LORA}.tuner.rnk": 4}, "tuner.rnk is not there"),
        ({f"{LORA}.tuner.rank.more": 4}, "rank.more is not there"),
        ({f"{LORA}.tuner.rank": 0}, "greater than 0"),
    ],
)
def test_change_writes_nothing_when_params_refuse_the_value(path: Path, values: dict[str, Any], words: str) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError, match=words):
        edit.change(path, values)
    assert path.read_bytes() == before


def test_change_writes_nothing_when_the_value_is_shared_by_alias(path: Path) -> None:
    """Lost otherwise: the winner of one recipe changes another one that borrows its lines."""
    text = path.read_text(encoding="utf-8")
    full = "weighting: {name: uniform}\n    ordering: {name: shuffled, batch_size: 16}\n"
    assert text.count(full) > 1
    text = text.replace(full, full.replace("{name: sh", "&order {name: sh"), 1)
    path.write_text(text.replace(full, full.replace("{name: shuffled, batch_size: 16}", "*order")), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"alias or a merge key; set them by hand:\n  .*batch_size: 8"):
        edit.change(path, {f"{LORA}.ordering.batch_size": 8})
    with pytest.raises(UserError, match="alias or a merge key"):
        edit.change(path, {"finetune.spam-full.ordering.batch_size": 8})
    assert path.read_bytes() == before
