"""Measure overlap: a dropped letter or an ignored word order would rank the wrong translation first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.evaluation import answers_to_show, overlap

ROWS = [
    ("Metni özetle.", "Iğdır'da oturan şoför", "tr", "summaries"),
    ("Translate into English.", "Nora lives in Bursa", "en", "translations"),
]


def measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str], source: str | None
) -> dict[str, float]:
    columns = ("instruction", "output", "language", "source")
    table = {name: [row[place] for row in ROWS] for place, name in enumerate(columns)} | {"input": ["", ""]}
    (tmp_path / "instructions").mkdir(exist_ok=True)
    pq.write_table(pa.table(table), tmp_path / "instructions/test.parquet")
    monkeypatch.setattr(overlap, "greedy_answers", lambda *_: answers)
    settings = overlap.Settings(split="test", source=source, batch_size=2, max_tokens=8, max_records=None)
    subject: Any = SimpleNamespace(name="m", samples=tmp_path, answering=lambda _: None)
    metrics, details, _ = overlap.measure(settings, subject)
    assert [item["right"] for item in details["answers"]] == sorted(item["right"] for item in details["answers"])
    by_record = [float(score) for score in details["by_record"].split()]
    assert len(by_record) == metrics["instructions"]
    assert all(0 <= score <= 1 for score in by_record)
    return metrics


def test_overlap_scores_right_answers_fully_and_empty_ones_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = measured(tmp_path, monkeypatch, ["IĞDIR'da oturan şoför.", ""], None)
    assert metrics["rouge_l_tr"] == metrics["exact_match_tr"] == 1.0
    assert metrics["rouge_l_en"] == metrics["exact_match_en"] == metrics["chrf_en"] == 0.0
    assert metrics["rouge_l"] == metrics["exact_match"] == 0.5
    assert 60 < metrics["chrf_tr"] < 100  # characters count with their case


def test_answers_to_show_are_the_worst_and_some_of_the_best() -> None:
    rows = [{"instruction": "q", "input": "", "output": str(place)} for place in range(60)]
    shown = answers_to_show(rows, ["a"] * 60, [False] * 60, [place * 7 % 60 for place in range(60)])
    found = [int(item["expected"]) * 7 % 60 for item in shown]
    assert found == [*range(40), *range(50, 60)]


def test_overlap_measures_one_source_alone_and_names_an_unknown_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = measured(tmp_path, monkeypatch, ["Nora lives in Bursa"], "translations")
    assert metrics["chrf"] == pytest.approx(100)
    assert "rouge_l_tr" not in metrics
    with pytest.raises(UserError, match=r"source is 'speech'; the test instructions are of: summaries, transl"):
        measured(tmp_path, monkeypatch, [], "speech")


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        # Lin 2004, section 3.1: police killed the gunman, against its two answers: three and two words in order
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        # too short an answer is as wrong as too long a one: F of 1 and 1/2
        ("police killed", "police killed the gunman", 2 / 3),
        ("police killed the gunman", "police killed", 2 / 3),
        ("ağ", "ag", 0.0),  # the usual package reads both as nothing but g
        ("", "police", 0.0),
    ],
)
def test_rouge_l_is_the_f_score_of_the_longest_common_subsequence(answer: str, expected: str, score: float) -> None:
    assert overlap.rouge_l(answer, expected, "en") == score
