"""`tohum forget` on a real project: a withdrawn record is in no window, no cache and no model after the plan is done.

Lost otherwise: someone is told that their words are gone, and the next model has learned them again.
"""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config import edit
from pipeline.data.records import record_id
from pipeline.errors import UserError
from tests import scratch
from tests.base_project import NAMES, run_and_commit
from tests.commands import tohum


def ids_of(kind: str) -> set[str]:
    return {one for split in ("train", "validation", "test")
            for one in pq.read_table(f"data/samples/{kind}/{split}.parquet")["id"].to_pylist()}  # fmt: skip


def plan_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert tohum("forget", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_forgotten_records_are_in_no_split_no_cache_and_no_model(
    base_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(capsys, "--consent", "withdrawn")
    gone = {record["id"] for record in plan["records"]}
    assert len(gone) == 24  # 12 marked records and their copies
    assert {record["why"].partition(" of ")[0] for record in plan["records"]} == {
        "named by consent withdrawn",
        "duplicate",
    }
    assert gone & ids_of("documents")
    assert gone & ids_of("labelled")
    assert {stage["stage"] for stage in plan["reruns"]} == {*NAMES} - {"code"}
    assert plan["cost"]["seconds"] > 0
    [base] = plan["learners"]
    assert (base["model"], base["how"]) == ("base", "trained")
    assert base["windows"]["train"]

    assert tohum("forget", "--consent", "withdrawn", "--apply") == 0
    listed = Path("inputs/forget.txt").read_text(encoding="utf-8")
    assert all(identity in listed for identity in gone)
    assert all(f"~{record['form']} # " in listed for record in plan["records"])
    assert not any(record["origin"] in listed for record in plan["records"])
    assert yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["download"]["forget"] == "inputs/forget.txt"
    assert tohum("forget", "--check") == 1

    run_and_commit()
    assert not gone & (ids_of("documents") | ids_of("labelled"))
    assert (
        json.loads(Path("data/raw/ledger.json").read_text(encoding="utf-8"))["sources"]["world"]["documents"][
            "forgotten"
        ]
        == 12
    )
    capsys.readouterr()
    assert tohum("forget", "--check") == 1  # the earlier data still lies in DVC's cache
    printed = capsys.readouterr().out
    assert "left: " in printed
    assert "dvc gc --workspace" in printed

    done = scratch.dvc(base_project, "gc", "--workspace", "--force", "--quiet")
    assert done.returncode == 0, done.stderr
    assert tohum("forget", "--check") == 0
    assert "nothing holds them" in capsys.readouterr().out


def test_a_document_that_the_index_names_wrongly_is_still_found(
    base_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tokens are decoded and hashed again."""
    [marked, *_] = (
        record for record in plan_of(capsys, "--consent", "withdrawn")["records"]
        if record["kind"] == "documents" and record["id"] in ids_of("documents")
    )  # fmt: skip
    from pipeline.data import remains
    from pipeline.tokenizer import Tokenizer

    found = list(
        remains.in_documents(Path("data/samples"), {marked["id"]}, Tokenizer.load(Path("data/tokens/tokenizer")))
    )
    assert [(one.column, one.ids) for one in found] == [("tokens", (marked["id"],))]


def test_check_names_a_model_that_was_not_trained_on_the_data_as_it_is_now(
    base_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The records are gone from the data, but dvc.lock says that the base was trained on other documents."""
    Path("inputs/forget.txt").write_text("0123456789abcdef\n", encoding="utf-8")
    edit.change(Path("params.yaml"), {"download.forget": "inputs/forget.txt"})
    assert tohum("forget", "--check") == 0
    lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    [read] = [dep for dep in lock["stages"]["pretrain"]["deps"] if dep["path"] == "data/samples/documents"]
    read["md5"] = "0" * 32 + ".dir"
    Path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    capsys.readouterr()
    assert tohum("forget", "--check") == 1
    assert "not run on the data as it is now: pretrain" in capsys.readouterr().out


@pytest.fixture
def forgotten_other(base_project: Path) -> Path:
    """The project with a list that names one record, which it never held."""
    Path("inputs/forget.txt").write_text(record_id("documents", "My words.") + "\n", encoding="utf-8")
    edit.change(Path("params.yaml"), {"download.forget": "inputs/forget.txt"})
    return base_project


@pytest.mark.parametrize("path", ["reports/review/base.html", ".tohum/measures/0a/result.json"])
def test_check_names_what_no_stage_writes_anew_when_it_is_older_than_the_list(
    forgotten_other: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may hold a part of a record, which no search by hash finds."""
    assert tohum("forget", "--check") == 0
    Path(path).parent.mkdir(parents=True)
    Path(path).write_text('["My"]', encoding="utf-8")
    assert tohum("forget", "--check") == 0
    os.utime(path, (1, 1))
    capsys.readouterr()
    assert tohum("forget", "--check") == 1
    assert f"may hold a part: {path}: older than the list" in capsys.readouterr().out


def test_check_reads_details_and_kept_results(forgotten_other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = check(capsys)
    for path in ("reports/evaluation/base/details.json", ".tohum/measures/result.json"):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text('{"samples": ["My words."]}', encoding="utf-8")
    Path("models/base/weights").write_bytes(b"0")
    after = check(capsys)
    assert [one["path"] for one in after["remains"]] == [
        ".tohum/measures/result.json", "reports/evaluation/base/details.json",
    ]  # fmt: skip
    assert (after["files"], after["unread"]) == (before["files"] + 2, before["unread"] + 1)


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("evaluate@base", "models/base"),
        ("validate@raw", "data/raw/provenance.json"),
        ("validate-model@base", "reports/evaluation/base/metrics.json"),
        ("report", "data/samples"),
    ],
)
def test_check_names_a_gate_evaluation_or_report_of_older_data(
    forgotten_other: Path, stage: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: the details of the evaluation before still show a record that the model now has never seen."""
    lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    lock["stages"][stage] = {"cmd": "x", "deps": [{"path": path, "hash": "md5", "md5": "0" * 32}], "outs": []}
    Path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    assert check(capsys)["stale"] == [stage]


def check(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    tohum("forget", "--check", "--json")
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["0" * 16], "no record is 0000000000000000; expected record ids, origins"),
        (["--consent", "maybe"], "no record is consent maybe"),
    ],
)
def test_a_row_that_no_record_is_changes_nothing(base_project: Path, words: list[str], expected: str) -> None:
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match=expected):
        tohum("forget", *words, "--apply")
    assert Path("params.yaml").read_bytes() == before
    assert not Path("inputs/forget.txt").exists()


def test_rows_of_a_file_are_read_without_comments_and_a_row_that_no_record_is_gives_1(
    base_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: a script takes a misspelt row for one that is forgotten."""
    known = pq.read_table("data/samples/documents/train.parquet")["id"][0].as_py()
    rows = Path("rows.txt")
    rows.write_text(f"# letters of May\n\n{known} # by letter of 3 May\n", encoding="utf-8")
    assert tohum("forget", "--file", "rows.txt") == 0
    rows.write_text(f"{known}\n{'0' * 16} # misspelt\n", encoding="utf-8")
    capsys.readouterr()
    assert tohum("forget", "--file", "rows.txt") == 1
    assert f"not found: {'0' * 16}\n" in capsys.readouterr().out


def test_check_without_a_list_says_how_to_begin_one(base_project: Path) -> None:
    with pytest.raises(UserError, match=r"download\.forget is null: no record was forgotten"):
        tohum("forget", "--check")


def test_forget_without_a_row_is_wrong_usage(base_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tohum("forget") == 2
    assert "name at least one ROW" in capsys.readouterr().err
