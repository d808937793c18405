"""Comparisons of a version with a project: lost otherwise, a version without a proof counts as equal."""

from pathlib import Path

import pytest

from pipeline.studies import verification
from pipeline.tracking import lineage


@pytest.mark.parametrize(
    ("tags", "here", "expected"),
    [
        ({"git.commit": "a1"}, {"git.commit": "a1"}, ""),
        ({}, {"git.commit": "a1"}, "the version records none"),
        ({"git.commit": "a1"}, {"git.commit": "b2"}, "this is b2, the version's is a1"),
        ({"git.commit": "a1"}, {}, "this is no git repository"),
        ({"git.commit": "a1", "git.dirty": "true"}, {"git.commit": "a1"}, "changes where the version was made"),
        ({"git.commit": "a1"}, {"git.commit": "a1", "git.dirty": "true"}, "changes here"),
    ],
)
def test_commit_differs_when_it_is_another_unknown_or_changed(
    tags: dict[str, str], here: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "git_state", lambda _: here)
    differs = verification._commit(tags, Path()).differs
    assert expected in differs
    assert bool(differs) == bool(expected)


def test_inputs_differ_when_a_stage_read_other_bytes_than_its_upstream_stage_made() -> None:
    """Lost otherwise: data that was made anew stands beside a model that was trained on the data before."""
    stages = {"pretrain": {"deps": [{"path": "data/samples", "md5": "old"}, {"path": "inputs/a.csv", "md5": "x"}]}}
    [check] = verification._inputs(["pretrain"], stages, {"data/samples": "new"})
    assert (check.what, check.differs) == (
        "pretrain: input data/samples", "it was old when pretrain ran, dvc.lock now has new",
    )  # fmt: skip
    [same] = verification._inputs(["pretrain"], stages, {"data/samples": "old"})
    assert not same.differs


def test_tags_differ_when_a_version_records_no_hash_of_dvc() -> None:
    [check] = verification._tags({"tohum.model": "base"}, "pretrain", {"pretrain": {}}, "base")
    assert "registered without dvc.lock" in check.differs


def test_model_differs_when_its_folder_is_missing(tmp_path: Path) -> None:
    assert "missing: `dvc pull`" in verification._model({"model_sha256": "a1"}, tmp_path / "base").differs
