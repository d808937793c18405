"""If these fail, a model is measured on what it has read, or samples are not what they say."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import config
from pipeline.data import conversations
from pipeline.errors import UserError
from pipeline.gates import samples
from pipeline.paths import CODE as ROOT
from tests.gates.builders import GATES, Raw, Samples, Tokens, entry, failed, text_of, verdict_on

SETTINGS = samples.Settings.model_validate(GATES["samples"])
EXPECTATIONS = samples.expectations(SETTINGS)
RECIPES = config.load(ROOT / "params.yaml").finetune


def judged(made: Samples, data: Path, **changed: Any) -> dict[str, Any]:
    settings = samples.Settings.model_validate(GATES["samples"] | changed)
    frames = samples.profile(settings, made.write(data), RECIPES)
    return verdict_on("samples", frames, samples.expectations(settings))


def _leak(kind: Any, change: Callable[[str], str], of: str = "test", to: str = "train") -> Callable[[Samples], None]:
    field = "text" if kind in ("documents", "labelled") else "instruction"

    def spoil(made: Samples) -> None:
        row = next(row for row in made.rows[kind][of] if row["language"] == "en")
        made.rows[kind][to][0] = row | {field: change(row[field]), "id": "copy"}

    return spoil


def _longer_test_text(made: Samples) -> None:
    row = made.rows["labelled"]["test"][0]
    row["text"] = text_of(random.Random(1), row["language"], 90)
    made.rows["labelled"]["train"][0] = row | {"text": row["text"] + " river", "id": "copy"}


def _no_validation(made: Samples) -> None:
    made.rows["instructions"]["train"] += made.rows["instructions"]["validation"]
    made.rows["instructions"]["validation"] = []


def _unseen(made: Samples) -> None:
    for row in made.rows["labelled"]["test"][:2]:
        row["label"] = "scam"


def _rare(made: Samples) -> None:
    for row in made.rows["labelled"]["train"]:
        row["label"] = "ham"
    made.rows["labelled"]["train"][0]["label"] = "spam"


def _long_answer(made: Samples) -> None:
    made.rows["instructions"]["train"][0]["output"] = "uzun cevap " * 60


def _uncounted(made: Samples) -> None:
    made.account = {"labelled": made.ledger()["labelled"] | {"rows_in": 30}}


def _unwritten(made: Samples) -> None:
    made.account = {"labelled": made.ledger()["labelled"]}
    made.rows["labelled"]["train"].pop()


def _forgotten(made: Samples) -> None:
    made.rows["labelled"]["train"].pop()


def _thinned(made: Samples) -> None:
    kept = made.rows["documents"]["train"]
    removed = len(kept) - 10
    made.rows["documents"]["train"] = kept[:10]
    account = made.ledger()["documents"]
    account["removed"]["duplicate"], account["rows_in"] = removed, account["rows_in"] + removed
    made.account = {"documents": account}


CASES: list[tuple[str, Callable[[Samples], Any], dict[str, Any]]] = [
    ("verbatim_overlap", _leak("labelled", str), {}),
    ("verbatim_overlap", _leak("documents", str), {}),
    ("verbatim_overlap", _leak("instructions", str, of="validation"), {}),
    ("verbatim_overlap", _leak("preferences", str, to="validation"), {}),
    ("folded_overlap", _leak("documents", lambda text: text.replace(" ", "  ", 3)), {}),
    ("folded_overlap", _leak("labelled", lambda text: text.swapcase()), {}),
    ("near_overlap", _longer_test_text, {}),
    ("records", _no_validation, {}),
    ("tokens", lambda made: None, {"min_document_tokens": {"train": 10**6, "validation": 1, "test": 1}}),
    ("tokens_in_file", lambda made: setattr(made, "cut_ids", 1), {}),
    ("class_share", _rare, {}),
    ("in_train", _unseen, {}),
    (
        "too_long_share",
        lambda made: None,
        {"max_tokens": {"labelled": 5, "instructions": 200, "preferences": 200}},
    ),
    ("left_out_share", _long_answer, {}),
    ("left_out_share", _unseen, {}),
    ("rows_in", _uncounted, {}),
    ("kept", _unwritten, {}),
    ("rows_admitted", _forgotten, {}),
    ("coverage_share", _thinned, {}),
]


@pytest.mark.parametrize(("column", "spoil", "changed"), CASES, ids=[case[0] for case in CASES])
def test_gate_fails_on_the_broken_column(
    column: str, spoil: Callable[[Samples], Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    made = Samples(Tokens(Raw()))
    spoil(made)
    verdict = judged(made, tmp_path, **changed)
    assert column in failed(verdict)
    assert not verdict["passed"]
    assert entry(verdict, column)["offenders"]
    assert entry(verdict, column)["params_key"]


def test_every_expectation_has_a_failing_input() -> None:
    assert {expectation.column for expectation in EXPECTATIONS} == {case[0] for case in CASES}
    assert len({(expectation.expectation, expectation.column) for expectation in EXPECTATIONS}) == len(EXPECTATIONS)


def test_gate_passes_clean_samples(tmp_path: Path) -> None:
    verdict = judged(Samples(Tokens(Raw())), tmp_path)
    assert verdict["passed"], failed(verdict)


def test_gate_names_every_leaked_record_with_duplicates(tmp_path: Path) -> None:
    made = Samples(Tokens(Raw()))
    test, train = made.rows["labelled"]["test"], made.rows["labelled"]["train"]
    train += [row | {"id": f"copy{i}"} for i, row in enumerate(test)]
    test.append(test[0] | {"id": "again", "origin": "made:again"})
    found = entry(judged(made, tmp_path), "verbatim_overlap")
    assert found["count"] == len(test)
    assert {record["id"] for record in found["records"]} == {row["id"] for row in test}


def test_gate_passes_a_kind_without_records(tmp_path: Path) -> None:
    raw = Raw()
    raw.rows["labelled"], raw.rows["preferences"] = [], []
    verdict = judged(Samples(Tokens(raw)), tmp_path)
    assert verdict["passed"], failed(verdict)


def test_profile_names_a_missing_file(tmp_path: Path) -> None:
    data = Samples(Tokens(Raw())).write(tmp_path)
    (data / "samples" / "labelled" / "test.parquet").unlink()
    with pytest.raises(UserError, match=r"test.parquet.*dvc repro sample"):
        samples.profile(SETTINGS, data)


def test_lengths_count_the_messages_of_a_conversation(tmp_path: Path) -> None:
    made = Samples(Tokens(Raw()))
    for rows in made.rows["instructions"].values():
        for row in rows:
            row["history"] = conversations.of_turns([conversations.Turn("a", "b")] * 30)
    # 250 tokens hold sixty letters in lines and the question, but not the JSON that they stand in; 60 do not
    for limit, fits in ((250, True), (60, False)):
        verdict = judged(
            made, tmp_path / str(limit), max_tokens=GATES["samples"]["max_tokens"] | {"instructions": limit}
        )
        assert ("too_long_share" not in failed(verdict)) is fits


def test_left_out_counts_each_task_once_and_names_reason_and_record(tmp_path: Path) -> None:
    """Training leaves these records out: without a count, half of a data set could be lost unseen."""
    made = Samples(Tokens(Raw()))
    _long_answer(made)
    frame = samples.profile(SETTINGS, made.write(tmp_path), RECIPES)["examples"]
    rows = {(row["kind"], row["split"]): row for row in frame.rows}
    assert len(frame.rows) == len(rows) == 6  # two kinds, three splits
    assert rows["labelled", "train"]["task"] == "classify (max_tokens 96)"
    spoiled = rows["instructions", "train"]
    assert (spoiled["reasons"], spoiled["left_out"]) == ("answer_too_long 1", 1)
    assert rows["instructions", "test"]["left_out"] == 0
    [example] = next(iter(frame.examples.values()))
    assert example.id == made.rows["instructions"]["train"][0]["id"]
    assert "max_tokens is 128" in example.text


def test_gate_lists_labels_unseen_in_train_first_when_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search through all records for each label took hours where every record had a label of its own."""
    monkeypatch.setattr(samples, "MOST_VALUES", 2)
    monkeypatch.setattr(samples, "MOST_EXAMPLES", 1)
    made = Samples(Tokens(Raw()))
    for split, rows in made.rows["labelled"].items():
        for i, row in enumerate(rows):
            row["label"] = f"{split}{i}" if split == "test" and i < 2 else ("ham", "spam", "rare")[min(i, 2)]
    verdict = judged(made, tmp_path)
    found = entry(verdict, "in_train")
    listed = [row["label"] for row in verdict["profile"]["classes"] if row["split"] == "test"]
    assert listed == ["test0", "test1", "3 more labels"]
    assert found["count"] == 2
    assert [record["row"] for record in found["records"]] == ["test test0"], "one example, as MOST_EXAMPLES says"
