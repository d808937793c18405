"""A round in params.yaml: valid, with replay of earlier rounds, and without a change of the user's own lines."""

import difflib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.rating import next_round
from pipeline.rating.pairs import Model
from tests.commands import tohum

JUDGE = "def rate(prompt, first, second):\n    return 0 if len(first) > len(second) else 1\n"


def rated(path: str, *more: str) -> int:
    Path("judge.py").write_text(JUDGE)
    return tohum("rate", "chat-full", "--by", "judge.py", "--count", "6", "--max-tokens", "2", "--to", path, *more)


def params() -> Any:
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


def test_write_adds_source_recipe_and_evaluation(
    project: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    before, old = Path("params.yaml").read_text(encoding="utf-8"), params()
    assert rated("inputs/ratings-1.jsonl", "--write") == 0
    assert "tohum register && tohum review chat-full-ratings-1" in capsys.readouterr().out
    after, new = Path("params.yaml").read_text(encoding="utf-8"), params()
    recipe, evaluation = new["finetune"]["chat-full-ratings-1"], new["evaluations"]["chat-full-ratings-1"]
    assert (recipe["from"], recipe["reference"], recipe["loss"]["name"]) == ("chat-full", "chat-full", "dpo")
    assert recipe["ordering"]["shares"] == {model.sha256: 3.0}
    assert evaluation["measures"]["rated_pairs"]["source"] == "ratings-1"
    assert evaluation["measures"]["exact_match"] == old["evaluations"]["chat-full"]["measures"]["exact_match"]
    assert evaluation["thresholds"]["rated_pairs_low"] == {"at_least": 0.5, "at_most": None}
    assert new["download"]["sources"]["ratings-1"]["path"] == "inputs/ratings-1.jsonl"
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] == "-"]
    assert changed == [f"-   models: {_listed(old)}"]


def _listed(raw: Any) -> str:
    return f"[{', '.join(raw['register']['models'])}]"


def test_write_again_takes_the_grown_file_and_keeps_the_rest(project: Path) -> None:
    rated("inputs/ratings-1.jsonl", "--write")
    first = params()
    rated("inputs/ratings-1.jsonl", "--count", "9", "--write")
    second = params()
    assert second["download"]["sources"]["ratings-1"].pop("sha256") != first["download"]["sources"]["ratings-1"].pop(
        "sha256"
    )
    assert second == first


def test_write_reads_corrections_only_where_the_file_has_some(project: Path) -> None:
    """Lost otherwise: columns are added to instructions and labelled texts, and every model is trained anew."""
    path = Path("inputs/ratings-1.jsonl")
    rated(str(path), "--write")
    source = params()["download"]["sources"]["ratings-1"]
    assert (source["choices"], source["corrections"], source["labels"]) == (True, False, False)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[0]["ratings"][0] |= {"form": "correction", "value": "Günaydın"}
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")
    rated(str(path), "--write")
    assert params()["download"]["sources"]["ratings-1"]["corrections"] is True


def test_write_mixes_earlier_rounds_in_as_replay(project: Path, model: Model) -> None:
    """Three files: two of earlier models, off-policy by now, and the newest."""
    rated("inputs/ratings-1.jsonl")
    for number in (1, 2):
        old = Path("inputs/ratings-1.jsonl").read_text(encoding="utf-8").replace(model.sha256, str(number) * 64)
        path = Path(f"inputs/old-{number}.jsonl")
        path.write_text(old, encoding="utf-8")
        raw = params()
        text = next_round.inserted(
            Path("params.yaml").read_text(encoding="utf-8"),
            {path.stem: next_round.SETTINGS | {"path": str(path), "sha256": None}},
        )
        Path("params.yaml").write_text(text, encoding="utf-8")
        assert list(params()["download"]["sources"]) == [*raw["download"]["sources"], path.stem]
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("inputs/old-2.jsonl", "inputs/*.jsonl"), encoding="utf-8")
    with pytest.raises(UserError, match=r"old-2 reads inputs/ratings-1\.jsonl already"):
        next_round.add(Path("inputs/ratings-1.jsonl"), "chat-full", model.sha256)
    Path("params.yaml").write_text(text.replace("inputs/old-2.jsonl", "inputs/*-2.jsonl"), encoding="utf-8")
    next_round.add(Path("inputs/ratings-1.jsonl"), "chat-full", model.sha256)
    recipe = params()["finetune"]["chat-full-ratings-1"]
    assert recipe["ordering"]["shares"] == {model.sha256: 3.0, "1" * 64: 1.0, "2" * 64: 1.0}


def test_write_takes_the_limits_of_a_model_that_learned_from_a_judge(project: Path, model: Model) -> None:
    rated("inputs/ratings-1.jsonl")
    raw = params()
    raw["finetune"]["chat-full"]["task"] |= {"name": "prompts", "max_tokens": 77}
    recipe = next_round._recipe(raw, Path("inputs/ratings-1.jsonl"), "chat-full", model.sha256)
    assert (recipe["task"]["name"], recipe["task"]["max_tokens"]) == ("preference", 77)


def test_write_refuses_what_gives_no_round(project: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rated("inputs/ratings-1.jsonl")
    path, before = Path("inputs/ratings-1.jsonl"), Path("params.yaml").read_bytes()
    with pytest.raises(
        UserError,
        match=r"finetune\.spam-full: no recipe .* with one of the tasks instruct, preference, prompts, thumbs",
    ):
        next_round.add(path, "spam-full", model.sha256)
    with pytest.raises(UserError, match="is no longer the rated model"):
        next_round.add(path, "chat-full", "0" * 64)
    Path("judge.py").write_text("def rate(prompt, first, second):\n    return 'tie'\n")
    tohum("rate", "chat-full", "--by", "judge.py", "--count", "2", "--max-tokens", "2", "--to", "inputs/ties.jsonl")
    with pytest.raises(UserError, match="holds no choice between two answers"):
        next_round.add(Path("inputs/ties.jsonl"), "chat-full", model.sha256)
    for name, words in (("world", "download.sources.world is another source"), ("a.b", "are named as the file, 'a.b'")):
        shutil.copy(path, f"inputs/{name}.jsonl")
        with pytest.raises(UserError, match=words):
            next_round.add(Path(f"inputs/{name}.jsonl"), "chat-full", model.sha256)
    assert Path("params.yaml").read_bytes() == before
    raw = params()
    Path("params.yaml").write_text(yaml.safe_dump(raw, default_flow_style=True), encoding="utf-8")
    with pytest.raises(UserError, match="is on one line"):
        next_round.add(path, "chat-full", model.sha256)
    shutil.rmtree("inputs")
