"""If these fail, a model is measured on what it has read, or samples are not what they say."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import config
from pipeline.config.recipe import Part
from pipeline.data import conversations
from pipeline.errors import UserError
from pipeline.gates import samples
from pipeline.gates.profiles import added
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


def _rated_test_prompt(made: Samples) -> None:
    asked = next(row for row in made.rows["instructions"]["test"] if row["language"] == "en")
    sent = {"instruction": asked["instruction"].upper(), "language": "en", "prompt_id": "0" * 16}
    made.rows["preferences"]["train"][2].update(sent)


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


def _group_in_two_splits(kind: Any) -> Callable[[Samples], None]:
    """Every record is of a group of its own, but one customer's are in training and test."""

    def spoil(made: Samples) -> None:
        for split, rows in made.rows[kind].items():
            for i, row in enumerate(rows):
                row["group"] = "customer" if i == 0 and split != "validation" else f"{split}{i}" if i % 2 else None

    return spoil


def _by_time(made: Samples, **first: str) -> None:
    """Splits of January, February and March; `first`: time of a split's first record, as a source may pin it."""
    for month, (split, rows) in enumerate(made.rows["labelled"].items(), 1):
        for day, row in enumerate(rows, 1):
            row["time"] = f"2024-{month:02}-{day:02}T00:00:00Z"
        rows[0]["time"] = first.get(split, rows[0]["time"])
    account = made.ledger()["labelled"]
    made.account = {"labelled": account | {"split": {"by": "time", "without_time": 0}}}


def _pinned_in_the_past(made: Samples) -> None:
    _by_time(made, test="2024-01-02T00:00:00Z")


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
    ("split_groups", _group_in_two_splits("documents"), {}),
    ("split_groups", _group_in_two_splits("labelled"), {}),
    ("out_of_order", _pinned_in_the_past, {}),
    ("test_prompts", _rated_test_prompt, {}),
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


def test_gate_names_a_group_in_two_splits_with_the_record_in_the_other(tmp_path: Path) -> None:
    made = Samples(Tokens(Raw()))
    _group_in_two_splits("labelled")(made)
    found = entry(judged(made, tmp_path), "split_groups")
    assert found["count"] == 1
    [record] = found["records"]
    assert record["id"] == made.rows["labelled"]["test"][0]["id"]
    assert "(same group: train:1, " in record["text"]


def test_gate_passes_groups_in_two_splits_up_to_the_bound(tmp_path: Path) -> None:
    made = Samples(Tokens(Raw()))
    _group_in_two_splits("labelled")(made)
    assert "split_groups" not in failed(judged(made, tmp_path, max_split_groups=1))


def test_gate_passes_splits_in_the_order_of_time(tmp_path: Path) -> None:
    made = Samples(Tokens(Raw()))
    _by_time(made)
    verdict = judged(made, tmp_path)
    assert verdict["passed"], failed(verdict)


@pytest.mark.parametrize(
    ("first", "pairs"),
    [
        ({"test": "2024-01-02T00:00:00Z"}, {("test", "train"): 1, ("test", "validation"): 1}),
        ({"validation": "2024-03-01T00:00:00Z"}, {("test", "validation"): 1}),
        ({"train": "2024-02-02T00:00:00Z"}, {("validation", "train"): 2}),
    ],
)
def test_time_order_counts_held_out_records_that_are_not_later(
    first: dict[str, str], pairs: dict[tuple[str, str], int], tmp_path: Path
) -> None:
    """Equal times count too: records of one day may be about one event."""
    made = Samples(Tokens(Raw()))
    _by_time(made, **first)
    frame = samples.profile(SETTINGS, made.write(tmp_path))["time_order"]
    assert {(row["split"], row["against"]): row["out_of_order"] for row in frame.rows if row["out_of_order"]} == pairs


def test_gate_asks_for_no_order_of_times_where_the_split_is_by_record(tmp_path: Path) -> None:
    made = Samples(Tokens(Raw()))
    _pinned_in_the_past(made)
    made.account = {}
    assert "out_of_order" not in failed(judged(made, tmp_path))


def test_slices_count_each_value_of_an_added_column_by_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Samples(Tokens(Raw()))
    for rows in made.rows["labelled"].values():
        for i, row in enumerate(rows):
            row |= {"region": ("east", "west", None)[i % 3], "group": row["id"], "time": "2024-01-01T00:00:00Z"}
            row["twin_of"] = row["id"]
    data = made.write(tmp_path)
    sizes = {split: len(rows) for split, rows in made.rows["labelled"].items()}
    frame = samples.profile(SETTINGS, data)["slices"]
    assert {row["column"] for row in frame.rows} == {"region"}
    assert [row["value"] for row in frame.rows] == ["east", "no value", "west"]
    for split, size in sizes.items():
        assert sum(row[split] for row in frame.rows) == size
        assert frame.rows[0][split] == -(-size // 3)
    monkeypatch.setattr(added, "MOST_VALUES", 1)
    frame = samples.profile(SETTINGS, data)["slices"]
    assert [row["value"] for row in frame.rows] == ["east", "2 more values"]
    monkeypatch.setattr(added, "_MOST_COUNTED", 1)
    [others, _] = samples.profile(SETTINGS, data)["slices"].rows
    assert (others["value"], others["train"]) == ("others", sizes["train"] - sizes["train"] // 3)


def test_slices_mask_personal_data(tmp_path: Path) -> None:
    """The page of a gate is shown to people who may not see the records."""
    made = Samples(Tokens(Raw()))
    for rows in made.rows["labelled"].values():
        for row in rows:
            row["agent"] = "ayse.yilmaz@example.com"
    [row] = samples.profile(SETTINGS, made.write(tmp_path))["slices"].rows
    assert "ayse.yilmaz" not in row["value"]


@pytest.mark.parametrize(
    ("task", "cells", "expected"),
    [
        ("multi_label", ['["ham"]', '["ham", "spam"]'], {"ham", "spam"}),
        ("regress", ["1", "2.5"], set()),
        ("classify", ['["ham"]', '["ham", "spam"]'], {'["ham"]', '["ham", "spam"]'}),
    ],
)
def test_classes_count_labels_as_the_recipes_tasks_read_them(
    task: str, cells: list[str], expected: set[str], tmp_path: Path
) -> None:
    """Lost otherwise: each set of labels, or each number, would be a class, and rare ones would stop the data."""
    made = Samples(Tokens(Raw()))
    for rows in made.rows["labelled"].values():
        for i, row in enumerate(rows):
            row["label"] = cells[i % 2]
    recipe = RECIPES["spam-full"].model_copy(update={"task": Part.model_validate({"name": task, "max_tokens": 96})})
    frames = samples.profile(SETTINGS, made.write(tmp_path), {"spam-full": recipe})
    assert {row["label"] for row in frames["classes"].rows} == expected
    if task == "multi_label":
        train = next(row for row in frames["classes"].rows if (row["split"], row["label"]) == ("train", "ham"))
        assert train["class_share"] == 1.0
    assert all(row["left_out"] == 0 for row in frames["examples"].rows)


def test_left_out_counts_records_whose_label_is_no_list_or_no_number(tmp_path: Path) -> None:
    made = Samples(Tokens(Raw()))
    recipes = {
        name: RECIPES["spam-full"].model_copy(update={"task": Part.model_validate({"name": name, "max_tokens": 96})})
        for name in ("multi_label", "regress")
    }
    frame = samples.profile(SETTINGS, made.write(tmp_path), recipes)["examples"]
    reasons = {row["task"].split()[0]: row["reasons"] for row in frame.rows if row["split"] == "train"}
    size = len(made.rows["labelled"]["train"])
    assert reasons == {"multi_label": f"not_a_list {size}", "regress": f"not_a_number {size}"}
