"""Quality: late labels and ratings joined by request, exact tests with scipy as the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import fisher_exact

from pipeline.errors import UserError
from pipeline.watching import quality
from pipeline.watching.evidence import keep_labels, of_journal, read_labels
from pipeline.watching.quality import Judged, Missing, Quality
from pipeline.watching.reference import Reference
from pipeline.watching.vocabulary import Vocabulary
from tests.watching.synthetic import drawn

REFERENCE = Reference("ab", "records", (), Vocabulary(()), 95, 100)


def judged(right: int, count: int, rater: str = "") -> list[Judged]:
    return [Judged(f"{i:05d}", i < right, rater) for i in range(count)]


def test_fewer_right_is_fishers_exact_test() -> None:
    for right, count, reference in ((40, 50, (95, 100)), (0, 20, (3, 30)), (50, 50, (95, 100))):
        table = [[right, count - right], [reference[0], reference[1] - reference[0]]]
        expected = fisher_exact(table, alternative="less").pvalue
        assert quality.fewer_right(right, count, reference) == pytest.approx(expected, rel=1e-9)


def test_decided_corrects_for_several_measures_as_holm_does() -> None:
    def measure(p_value: float) -> Quality:
        return Quality("accuracy", 50, 0.8, 0.7, 0.9, 0.9, 0.8, 0.95, 100, p_value)

    assert [one.worse for one in quality.decided([measure(0.03), measure(0.02), measure(0.2)], 0.06)] == [
        True,
        True,
        False,
    ]
    assert [one.worse for one in quality.decided([measure(0.03), measure(0.025)], 0.04)] == [False, False]


def test_of_labels_needs_enough_of_them_and_a_reviewed_accuracy() -> None:
    assert quality.of_labels(judged(10, 19), REFERENCE, 500) == Missing("accuracy", 19, 20)
    without = Reference("ab", "requests", (), Vocabulary(()))
    assert quality.of_labels(judged(10, 30), without, 500) == Missing("accuracy", 30, 0)
    found = quality.of_labels(judged(0, 100) + judged(50, 50), REFERENCE, 50)
    assert isinstance(found, Quality)
    assert (found.value, found.count) == (1.0, 50)


def test_labelled_joins_labels_by_request_when_they_come_late_or_name_others() -> None:
    seen = drawn(np.random.default_rng(1), 3)
    labels = {seen[0].request: str(seen[0].label), seen[2].request: "neither", "req-elsewhere": "spam"}
    assert [one.right for one in quality.labelled(seen, labels, {})] == [True, False]


def test_rated_counts_an_answer_as_accepted_when_nobody_corrected_it() -> None:
    seen = drawn(np.random.default_rng(1), 4)

    def rating(request: int, form: str, value: Any, rater: str = "a") -> dict[str, Any]:
        return {"request": f"req-{request}", "form": form, "value": value, "rater": rater, "time": str(request)}

    ratings = [
        rating(0, "thumb", "up"), rating(0, "correction", "better"), rating(1, "thumb", "up"),
        rating(1, "thumb", "down", "b"), rating(2, "choice", 1), rating(9, "thumb", "down"),
    ]  # fmt: skip
    assert sorted((one.rater, one.right) for one in quality.rated(seen, ratings)) == [
        ("a", False),
        ("a", True),
        ("b", False),
    ]


def test_of_ratings_is_worse_for_many_people_but_not_for_one_angry_person() -> None:
    start = [Judged(f"a{i:04d}", i % 10 > 0, f"rater-{i % 40}") for i in range(200)]
    many = [Judged(f"b{i:04d}", i % 10 > 4, f"rater-{i % 40}") for i in range(100)]
    one = [
        Judged(f"b{i:04d}", i % 10 > 0 and i % 3 > 0, "angry" if i % 3 == 0 else f"rater-{i % 40}") for i in range(100)
    ]
    by_many, by_one = quality.of_ratings(start + many, 100), quality.of_ratings(start + one, 100)
    assert isinstance(by_many, Quality)
    assert isinstance(by_one, Quality)
    assert by_many.p_value < 1e-6
    assert by_one.p_value > 0.001
    assert quality.of_ratings(start[:30], 100) == Missing("thumbs", 30, 40)


def test_keep_labels_appends_each_label_once_and_a_changed_one_again(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    assert keep_labels({"req-1": "spam", "req-2": "ham"}, "file", folder) == 2
    assert keep_labels({"req-1": "spam", "req-2": "spam"}, "file", folder) == 1
    assert of_journal(folder).labels == {"req-1": "spam", "req-2": "spam"}


def test_read_labels_reads_csv_and_jsonl_alike(tmp_path: Path) -> None:
    rows = {"req-1": "spam", "req-2": "ölçü, ağırlık", "req-3": '["a", "b"]'}
    (tmp_path / "a.csv").write_text('\ufeffrequest,label\nreq-1,spam\nreq-2,"ölçü, ağırlık"\nreq-3,"[""b"",""a""]"\n')
    (tmp_path / "a.jsonl").write_text(
        '{"request": "req-1", "label": "spam"}\n\n{"request": "req-2", "label": "ölçü, ağırlık"}\n'
        '{"request": "req-3", "label": ["b", "a"]}\n'
    )
    assert read_labels(tmp_path / "a.csv") == rows
    assert read_labels(tmp_path / "a.jsonl") == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,label\n1,spam\n", r"line 1: no column request, found id, label"),
        ("a.csv", b"request,label\nreq-1,\n", r"line 2: label is ''; expected the id of a request"),
        ("a.csv", b"request,label\nreq-1,\xff\n", r"expected CSV in UTF-8"),
        ("a.csv", b"", r"no column request, found no header"),
        ("a.jsonl", b"[1]\n", r"line 1: found b'\[1\]'; expected one object a line"),
        ("a.jsonl", b'{"request": 1, "label": "a"}\n', r"line 1: request is 1"),
        ("a.jsonl", b'{"request": "a"}\n', r"line 1: label is None"),
        ("b.csv", None, r"no such file"),
    ],
)
def test_read_labels_names_the_line_when_it_is_unfit(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / name)


def test_of_journal_has_texts_of_consented_requests_alone(tmp_path: Path) -> None:
    from pipeline.data.journal import Journal

    kept = Journal(tmp_path)
    request = {
        "kind": "request",
        "model": "m",
        "model_sha256": "ab",
        "task": "chat",
        "user": "u",
        "answers": [{"text": "evet"}],
    }
    kept.append(request | {"id": "a", "consent": "store", "messages": [{"role": "user", "content": "Bu doğru mu?"}]})
    kept.append(request | {"id": "b", "consent": None, "messages": []})
    kept.append(
        {"kind": "rating", "id": "r", "request": "a", "rater": "x", "form": "thumb", "value": "up", "consent": "store"}
    )
    found = of_journal(tmp_path)
    assert found.texts == {"a": "Bu doğru mu?"}
    assert found.answers["a"][0] == "evet"
    assert [one["value"] for one in found.ratings] == ["up"]
