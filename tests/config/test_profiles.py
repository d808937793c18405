"""Profiles: without these tests a switch could write a broken params.yaml or overwrite a user's changes."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.config import profiles
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", profiles.available())
def test_rendered_is_valid_and_spelled_out_for_every_committed_profile(name: str) -> None:
    """Lost otherwise: `dvc exp run -S` would change the wrong recipes, or none, where several share their settings."""
    text = profiles.rendered([name])
    params = config.check(yaml.safe_load(text))
    assert not [event for event in yaml.parse(text) if isinstance(event, yaml.AliasEvent)]
    assert "<<:" not in text
    for model in params.finetune:
        recipe = text.split(f"\n  {model}:\n")[1]
        assert "\n    optimizer: {name: " in recipe.split("\n    validation:")[0], model


@pytest.mark.parametrize("stacked", ["real methods", "files methods", "real answers", "gsm8k answers", "files answers"])
def test_rendered_compares_methods_on_other_data_when_stacked(stacked: str) -> None:
    """Lost otherwise: a comparison would ask of the user's data what only the embedded world has, or stop."""
    raw = yaml.safe_load(profiles.rendered(stacked.split()))
    config.check(raw)
    assert all(not judged["thresholds"] for judged in raw["evaluations"].values())
    kinds = {source["kind"] for source in raw["download"]["sources"].values()}
    for name, recipe in raw["finetune"].items():
        assert recipe["data"] in kinds, name
        room = raw["pretrain"]["model"]["context_length"] - recipe["tuner"].get("virtual_tokens", 0)
        assert recipe["task"]["max_tokens"] <= room, name


def test_check_refuses_the_ceiling_of_another_world() -> None:
    """Lost otherwise: a reward model trained on coins seems 25 points below a ceiling that its pairs do not have."""
    raw = yaml.safe_load(profiles.rendered(["preferences", "preferences-null"]))
    measure = raw["evaluations"]["reward"]["measures"]["reward_pairs"]
    measure["ceiling"] = {"noise": 0.2, "shortcut": 0.0, "utility": "null"}
    config.check(raw)
    measure["ceiling"]["utility"] = "taste"
    with pytest.raises(
        UserError, match=r"reward_pairs\.ceiling is .*'taste'}, and download\.sources\.taste\.taste states"
    ):
        config.check(raw)


def test_rendered_sets_and_removes_paths_on_top_of_the_profiles() -> None:
    more = {
        "pretrain.schedule.steps": 7,
        "finetune.chat-full": profiles.REMOVED,
        "evaluations.chat-full": profiles.REMOVED,
    }
    raw = yaml.safe_load(profiles.rendered(["embedded"], more | {"register.models": ["base"]}))
    assert raw["pretrain"]["schedule"]["steps"] == 7
    assert "chat-full" not in raw["finetune"]
    assert "chat-lora" in raw["finetune"]
    with pytest.raises(UserError, match="'nowhere' is not there"):
        profiles.rendered(["embedded"], {"nowhere.steps": 1})


def test_apply_keeps_other_settings_and_comments_when_an_overlay_names_a_path(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    profiles.apply(["shakespeare-char"], target=target)
    text = target.read_text(encoding="utf-8")
    assert config.load(target).pretrain.model.context_length == 64
    assert config.load(target).sample == config.load(ROOT / "params.yaml").sample
    assert "# changes no bit of any out" in text


def test_apply_gives_the_same_bytes_when_switched_there_and_back(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    for name in ("embedded", "files", "embedded"):
        profiles.apply([name], target=target)
    assert target.read_bytes() == (ROOT / "infra/profiles/embedded.yaml").read_bytes()


def test_apply_keeps_the_users_own_changes_without_force(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    profiles.apply(["embedded"], target=target)
    mine = re.sub(r"steps: \d+", "steps: 17", target.read_text(encoding="utf-8"))
    target.write_text(mine, encoding="utf-8")
    with pytest.raises(UserError, match="holds changes that no profile made"):
        profiles.apply(["files"], target=target)
    assert target.read_text(encoding="utf-8") == mine
    profiles.apply(["files"], force=True, target=target)
    assert "messages.csv" in target.read_text(encoding="utf-8")


def test_apply_recognises_what_several_profiles_wrote(tmp_path: Path) -> None:
    """Lost otherwise: it asks for --force although params.yaml holds nothing of the user's."""
    target = tmp_path / "params.yaml"
    profiles.apply(["files", "answers"], target=target)
    profiles.apply(["embedded"], target=target)
    profiles.apply(["files", "answers"], target=target)
    mine = re.sub(r"steps: \d+", "steps: 17", target.read_text(encoding="utf-8"))
    for text in (mine, "a: [1\n"):
        target.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="holds changes that no profile made"):
            profiles.apply(["embedded"], target=target)


@pytest.mark.parametrize("damaged", ["", "[]", "{", "\xff"])
def test_apply_compares_with_the_profiles_when_the_record_of_the_last_is_damaged(tmp_path: Path, damaged: str) -> None:
    target = tmp_path / "params.yaml"
    profiles.apply(["embedded"], target=target)
    (tmp_path / ".tohum/profile.json").write_text(damaged, encoding="latin-1")
    profiles.apply(["embedded"], target=target)


def written(overlay: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of profiles that holds the embedded default and this overlay as `mine`."""
    folder.mkdir()
    (folder / "embedded.yaml").write_bytes((ROOT / "infra/profiles/embedded.yaml").read_bytes())
    (folder / "mine.yaml").write_text(overlay, encoding="latin-1")
    monkeypatch.setattr(profiles, "PROFILES", folder)


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", "mine.yaml, line 3: not readable as YAML: expected ',' or ']'"),
        ("split.test: 0.1\nsplit.test: 0.2\n", 'mine.yaml, line 2: not readable as YAML: found duplicate key "split.'),
        ("# list\n- split.test: 0.1\n", "mine.yaml, line 1: found a list; expected a mapping from dotted paths"),
        ("split.test\n", "mine.yaml, line 1: found 'split.test'; expected a mapping"),
        ("split.test: \xff\n", "mine.yaml: not readable as YAML: .*utf-8"),
        ("split.test: \x01\n", "mine.yaml: not readable as YAML"),
        ("split.test: !mine 0.1\n", "profile mine: not readable as YAML: .*!mine"),
        ("\nevaluations:\n", "mine.yaml, line 2: evaluations is empty; expected a mapping"),
        ("evaluations:\nrecipes: {}\n", "mine.yaml, line 1: evaluations is empty; expected a mapping"),
        ("split.test: 0.1\nrecipes:\n", "mine.yaml, line 2: recipes is empty; expected a mapping"),
        ("recipes: [a]\n", r"mine.yaml, line 1: recipes is \['a'\]; expected a mapping"),
        ("3: 4\n", "mine.yaml, line 1: 3 is no text; expected a dotted path"),
    ],
)
def test_rendered_names_file_and_line_when_a_profile_is_not_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: str, words: str
) -> None:
    written(overlay, tmp_path / "profiles", monkeypatch)
    with pytest.raises(UserError, match=words):
        profiles.rendered(["mine"])


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ("pretrain.schedule.stepz: 3", "pretrain.schedule.stepz is not a known key"),
        ("pretrane.schedule.steps: 3", "'pretrane' is not there"),
        ("pretrain.schedule.steps: many", "valid integer"),
    ],
)
def test_apply_writes_nothing_when_a_profile_is_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: str, words: str
) -> None:
    written(overlay, tmp_path / "profiles", monkeypatch)
    target = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=words):
        profiles.apply(["mine"], target=target)
    assert not target.exists()


def test_rendered_names_the_choices_when_a_profile_is_unknown() -> None:
    with pytest.raises(UserError, match="shakespeare-char"):
        profiles.rendered(["shakespear"])
