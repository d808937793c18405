"""The survey of a user's file: without it a try would fail in its tenth stage, or on no record of a class."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.studies.survey import Survey, choose_split, survey
from pipeline.studies.workspace import sources
from tests.own_files import guessed, labelled, write_csv


def surveyed_csv(folder: Path, rows: Sequence[Sequence[str]], kind: Kind = "labelled") -> Survey:
    """The survey of a CSV with these rows, the header first."""
    data = write_csv(folder / "inputs/own.csv", rows)
    return survey(sources(data.relative_to(folder), guessed(kind, rows[0]), "none"), kind)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inputs").mkdir()
    monkeypatch.chdir(tmp_path)


def test_survey_counts_equal_records_once(tmp_path: Path) -> None:
    rows = labelled(40)
    surveyed = surveyed_csv(tmp_path, [*rows, *rows[1:]])
    assert len(surveyed.sizes["labelled"]) == len(surveyed.sizes["documents"]) == 40
    assert surveyed.rows == {"labelled": 80, "documents": 80}
    assert surveyed.repeated() == 0.5
    assert Counter(surveyed.labels.values()) == {"iyi": 20, "kötü": 20}
    identity = next(iter(surveyed.sizes["labelled"]))
    assert surveyed.sizes["labelled"][identity] == len("".join(rows[1]).encode())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("text", "label"), *[(f"metin {i}", "iyi") for i in range(40)]], "every record has the label 'iyi'"),
        ([("text", "label"), *[(f"metin {i}", f"no {i}") for i in range(40)]], "40 different values in 40 records"),
        ([("text", "label"), *[("aynı metin", "iyi"), ("öbür metin", "kötü")] * 30], "2 different labelled .60 rows"),
        ([("text", "label"), ("tek", "iyi")], "1 different labelled; expected at least 12"),
    ],
)
def test_survey_refuses_records_that_nothing_can_be_learned_from(
    tmp_path: Path, rows: list[tuple[str, str]], words: str
) -> None:
    with pytest.raises(UserError, match=rf"^own\.csv: .*{words}"):
        surveyed_csv(tmp_path, rows)


@pytest.mark.parametrize(("n", "share"), [(30, 0.2), (150, 0.2), (400, 0.12), (3000, 0.05)])
def test_choose_split_gives_each_split_records_of_every_label(tmp_path: Path, n: int, share: float) -> None:
    """At 150 rows 5 % would leave seven records to test on."""
    surveyed = surveyed_csv(tmp_path, labelled(n))
    split = choose_split(surveyed)
    assert split.validation == split.test == share
    for kind in surveyed.sizes:
        assert min(map(len, surveyed.splits(kind, split).values())) >= share * n / 2
    for identities in surveyed.splits("labelled", split).values():
        assert {surveyed.labels[identity] for identity in identities} == {"iyi", "kötü"}


def test_choose_split_holds_out_more_where_more_is_wanted(tmp_path: Path) -> None:
    """A comparison of methods needs more test records than a try, to tell their scores apart."""
    split = choose_split(surveyed_csv(tmp_path, labelled(1000)), 200)
    assert (split.validation, split.test) == (0.05, 0.2)


def test_choose_split_leaves_a_rare_label_to_training(tmp_path: Path) -> None:
    """Lost otherwise: a record of validation has a label that the classifier does not know, and training stops."""
    rows = [*labelled(60), ("biricik metin", "ender"), ("ikinci biricik", "nadir")]
    surveyed = surveyed_csv(tmp_path, rows)
    split = choose_split(surveyed)
    trained = {surveyed.labels[identity] for identity in surveyed.splits("labelled", split)["train"]}
    assert trained == {"iyi", "kötü", "ender", "nadir"}


def test_choose_split_names_the_label_that_no_split_can_serve() -> None:
    surveyed = Survey("labelled")
    for i in range(400):
        surveyed.sizes.setdefault("labelled", {})[f"id{i}"] = 10
        surveyed.labels[f"id{i}"] = f"tek {i}" if i < 100 else "çok"
    with pytest.raises(UserError, match=r"rarest label 'tek 0' has 1 records"):
        choose_split(surveyed)


def test_survey_counts_answers_of_instructions(tmp_path: Path) -> None:
    rows: list[Any] = [("instruction", "output"), *[(f"Soru {i}?", f"Cevap {i}") for i in range(40)]]
    surveyed = surveyed_csv(tmp_path, rows, "instructions")
    assert set(surveyed.answers.values()) == {len("Cevap 1"), len("Cevap 10")}
    assert set(surveyed.sizes) == {"instructions", "documents"}
