"""tohum try on texts with several labels a row: recognised, counted by label, and turned into multi-label recipes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config
from pipeline.config import profiles
from pipeline.errors import UserError
from pipeline.paths import INPUTS
from pipeline.studies import own_profile, workspace
from pipeline.studies.guess import guess
from pipeline.studies.probe import probe_params
from pipeline.studies.survey import Survey

LABELS = ([], ["fatura"], ["fatura", "kargo"], ["kargo"], ["kargo", "şifre"])


def tickets(folder: Path, labels: Any = LABELS, n: int = 60) -> Path:
    path = folder / "tickets.jsonl"
    rows = [{"message": f"lütfen yardım edin, bu {i}. mesajım", "labels": labels[i % len(labels)]} for i in range(n)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_guess_takes_lists_of_labels(tmp_path: Path) -> None:
    guessed = guess(tickets(tmp_path))
    assert (guessed.kind, guessed.label_form, guessed.columns["label"]) == ("labelled", "several", "labels")
    assert list(guessed.labels) == ["fatura", "kargo", "şifre"]
    assert guessed.rejected == {}
    assert json.loads(guessed.as_json())["label_form"] == "several"
    assert any("several of 3 labels a row: fatura, kargo, şifre" in sentence for sentence in guessed.sentences)


def test_guess_of_lists_of_one_label_stays_one_label(tmp_path: Path) -> None:
    guessed = guess(tickets(tmp_path, (["fatura"], ["kargo"])))
    assert (guessed.kind, guessed.label_form) == ("labelled", "one")
    assert "label_form" not in guessed.as_json()


def test_guess_refuses_lists_of_texts_that_do_not_repeat(tmp_path: Path) -> None:
    unique = [[f"anahtar {i}", f"kelime {i}"] for i in range(60)]
    with pytest.raises(UserError, match=r"lists of \d+ different texts; expected a few labels that repeat"):
        guess(tickets(tmp_path, unique))


def test_params_of_a_try_and_of_a_profile_train_multi_label_recipes(tmp_path: Path) -> None:
    guessed = guess(tickets(tmp_path))
    tried = workspace.params(INPUTS / "tickets.jsonl", guessed)
    full = yaml.safe_load(profiles.rendered(["files"]))
    profiles.change(full, own_profile._own(full, INPUTS / "file", guessed))
    for raw in (tried, full):
        params = config.check(raw)
        names = [name for name, recipe in params.finetune.items() if recipe.data == "labelled"]
        assert "spam-lora" in names
        for name in names:
            assert params.finetune[name].task.name == "multi_label"
            assert params.finetune[name].loss.name == "binary_cross_entropy"
            assert "multi_label" in params.evaluations[name].measures
            assert "classification" not in params.evaluations[name].measures
        assert "bag_of_words" not in params.evaluations["base"].measures
        assert raw["download"]["sources"]["own"]["label_form"] == "several"


def test_methods_are_not_compared_on_several_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="methods are compared on one label a text: use tohum try"):
        probe_params(INPUTS / "tickets.jsonl", guess(tickets(tmp_path)))


def test_survey_counts_every_label_of_a_record() -> None:
    surveyed = Survey("labelled", labels={"1": '["a", "b"]', "2": '["a"]', "3": "[]", "4": "plain"})
    assert surveyed.label_counts() == {"a": 2, "b": 1, "plain": 1}
