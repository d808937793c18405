"""Minimal pairs, multiple choice, TruthfulQA, closed-book questions and loss by position, on chosen likelihoods."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import files
from pipeline.data.benchmarks import Item
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import closed_book, multiple_choice, pairs, positions, truthfulqa
from pipeline.inference.likelihood import Scored
from pipeline.prompts.spec import TEXT, TaskSpec
from tests.evaluation.test_measures import TOKENIZER, subject, write_documents
from tests.specs import ANSWERS, changed

Nats = Callable[[str, str], float]
ANY: Any = SimpleNamespace(name="m", model=None, tokenizer=None, tasks=(), compute=None)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def given(monkeypatch: pytest.MonkeyPatch, module: Any, nats: Nats) -> None:
    """The measure reads these likelihoods; a token is a word."""

    def scored(_subject: Any, asked: Sequence[tuple[str, str]], _size: int, _names: Sequence[str]) -> list[Scored]:
        return [Scored(nats(*pair), len(pair[1].split()), len(pair[1].encode()), False) for pair in asked]

    monkeypatch.setattr(module, "subject_nats", scored)


def pinned(name: str, rows: list[dict[str, Any]] | str) -> dict[str, Any]:
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path = Path("inputs") / name
    files.write_text(path, text)
    return {"path": path.as_posix(), "sha256": files.sha256_of(path)}


# -- minimal pairs


def pair(good: str, bad: str, uid: str, term: str) -> dict[str, str]:
    return {"sentence_good": good, "sentence_bad": bad, "UID": uid, "linguistics_term": term}


def test_pairs_averages_paradigms_within_a_phenomenon_and_counts_ties_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """BLiMP's method: whole sentences, accuracy by paradigm, phenomena as means of paradigms."""
    costs = {"a": 1.0, "b": 2.0, "c": 2.0}
    given(monkeypatch, pairs, lambda _, text: costs[text])
    rows = [
        pair("a", "b", "one", "x"), pair("b", "a", "one", "x"),
        pair("a", "b", "two", "x"), pair("b", "c", "three", "y"),
    ]  # fmt: skip
    settings = pairs.Settings(sets={"s": pinned("p.jsonl", rows) | {"language": "en"}}, batch_size=2, max_pairs=None)
    metrics, details, (outcomes,) = pairs.measure(settings, ANY)
    assert metrics == {"pairs_accuracy_s": 2.5 / 4, "pairs_accuracy_by_token_s": 2.5 / 4, "pairs_s": 4.0}
    assert details["s"]["by_paradigm"] == {"one": 0.5, "two": 1.0, "three": 0.5}
    assert details["s"]["by_phenomenon"] == {"x": 0.75, "y": 0.5}
    assert [row["good"] for row in details["s"]["most_wrong"]] == ["b"]
    assert outcomes.values == [1.0, 0.0, 1.0, 0.5]
    assert [row["phenomenon"] for row in outcomes.records] == ["x", "x", "x", "y"]
    first = pairs.measure(settings.model_copy(update={"max_pairs": 1}), ANY)[0]
    assert first == {"pairs_accuracy_s": 2.5 / 3, "pairs_accuracy_by_token_s": 2.5 / 3, "pairs_s": 3.0}


@pytest.mark.parametrize("delimiter", [";", ","])
def test_pairs_reads_turblimps_files_and_compares_by_token_too(delimiter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, pairs, lambda _, text: {"kendim yazdım": 4.0, "kendi": 3.0}[text])
    header, row = (
        ("good_sentence", "bad_sentence", "good_cue", "phenomenon"),
        ("kendim yazdım", "kendi", "x", "anaphor"),
    )
    text = "".join(delimiter.join(line) + "\n" for line in (header, row))
    settings = pairs.Settings(sets={"t": pinned("t.csv", text) | {"language": "tr"}}, batch_size=2, max_pairs=None)
    metrics, details, _ = pairs.measure(settings, ANY)
    assert metrics == {"pairs_accuracy_t": 0.0, "pairs_accuracy_by_token_t": 1.0, "pairs_t": 1.0}
    assert details["t"]["by_phenomenon"] == {"anaphor": 0.0}


def test_pairs_names_a_row_without_sentences() -> None:
    chosen = pinned("p.jsonl", [pair("a", "b", "one", "x"), {"sentence_good": "a"}]) | {"language": "en"}
    settings = pairs.Settings(sets={"s": chosen}, batch_size=2, max_pairs=None)
    with pytest.raises(UserError, match=r"inputs/p.jsonl: line 2: no field sentence_bad or bad_sentence"):
        pairs.measure(settings, ANY)


# -- multiple choice


def test_multiple_choice_compares_plain_by_byte_and_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short wrong answer is likelier; per byte and per token the right one is. Ties count 1/k."""
    costs = {" ice": 3.0, " a very cold thing": 4.0, " x": 1.0, " y": 1.0}
    given(monkeypatch, multiple_choice, lambda context, text: costs[text] + 0 * len(context))
    rows = [
        {"question": "q", "choices": {"text": ["ice", "a very cold thing"], "label": ["A", "B"]}, "answerKey": "B"},
        {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"},
    ]
    chosen = pinned("a.jsonl", rows) | {"format": "arc", "language": "en"}
    settings = multiple_choice.Settings(sets={"a": chosen}, batch_size=2, max_questions=None)
    metrics, details, outcomes = multiple_choice.measure(settings, ANY)
    assert metrics == {
        "choice_accuracy_a": 0.25, "choice_accuracy_by_byte_a": 0.75, "choice_accuracy_by_token_a": 0.75,
        "choice_chance_a": 0.5, "questions_a": 2.0,
    }  # fmt: skip
    assert details["a"]["wrong"][0] == {
        "context": "Question: q\nAnswer:", "right": "a very cold thing", "answer": "ice",
    }  # fmt: skip
    assert [one.values for one in outcomes] == [[0.0, 0.5], [1.0, 0.5], [1.0, 0.5]]


FORMATS: list[tuple[str, dict[str, Any], multiple_choice.Question]] = [
    (
        "arc",  # AI2's own file
        {"question": {"stem": "Q", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]},
         "answerKey": "B"},
        multiple_choice.Question("Question: Q\nAnswer:", ["a", "b"], 1, "f"),
    ),
    (
        "hellaswag",
        {"activity_label": "Roof", "ctx_a": "A man [title] sits.", "ctx_b": "he", "label": "0",
         "endings": [" is [step] using  wrap.", "runs"]},
        multiple_choice.Question("Roof: A man. sits. He", ["is using wrap.", "runs"], 0, "Roof"),
    ),
    (
        "mmlu",
        {"question": " Q ", "choices": ["w", "x", "y", "z"], "answer": 3, "subject": "high_school"},
        multiple_choice.Question(
            "The following are multiple choice questions (with answers) about high school.\n\n"
            "Q\nA. w\nB. x\nC. y\nD. z\nAnswer:", ["A", "B", "C", "D"], 3, "high_school",
        ),
    ),
    (
        "turkishmmlu",
        {"question": "S", "choices": ["v", "w", "x", "y", "z"], "answer": "E "},
        multiple_choice.Question("Soru: S\nA. v\nB. w\nC. x\nD. y\nE. z\nCevap:", ["A", "B", "C", "D", "E"], 4, "f"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("form", "row", "expected"), FORMATS, ids=[form for form, _, _ in FORMATS])
def test_question_of_reads_published_formats(
    form: str, row: dict[str, Any], expected: multiple_choice.Question
) -> None:
    assert multiple_choice.question_of(Item("f: line 1", "f", row), form) == expected


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("arc", {"question": "Q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"}, "two or more texts"),
        (
            "arc",
            {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"},
            "answerKey is",
        ),
        ("arc", {"question": "Q", "choices": ["a", "b"], "answerKey": "A"}, "no question with choices"),
        (
            "hellaswag",
            {"activity_label": "R", "ctx_a": "", "ctx_b": "", "label": "2", "endings": ["a", "b"]},
            "label is",
        ),
        ("mmlu", {"question": "Q", "choices": ["a", "b"], "answer": "C"}, "answer is 'C'; expected one of A, B"),
        ("mmlu", {"question": "Q", "choices": ["a", "b"], "answer": ""}, "answer is ''"),
        ("turkishmmlu", {"question": "Q", "choices": list("abcdef"), "answer": "A"}, "6 choices; expected at most 5"),
    ],
)
def test_question_of_names_a_row_of_another_format(form: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"f: line 1: .*{message}"):
        multiple_choice.question_of(Item("f: line 1", "f", row), form)


# -- TruthfulQA


def test_truthfulqa_scores_the_best_answer_the_share_of_true_ones_and_the_two_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "Category,Question,Best Answer,Best Incorrect Answer,Correct Answers,Incorrect Answers\n"
    text += "Law,Q?,t1,f2.,t1; t2.,f1; f2\n"
    costs = {" t1.": 801.0, " t2.": 800.0, " f1.": 800.5, " f2.": 802.0}
    given(monkeypatch, truthfulqa, lambda context, answer: costs[answer] if "Q?" in context else -costs[answer])
    settings = truthfulqa.Settings(**pinned("t.csv", text), batch_size=2, max_questions=None)
    metrics, details, _ = truthfulqa.measure(settings, ANY)
    true, false = math.exp(-1) + 1, math.exp(-0.5) + math.exp(-2)
    assert metrics == pytest.approx({
        "truthfulqa_mc1": 0.0,  # f1 is likelier than the best answer
        "truthfulqa_mc1_chance": 1 / 3,
        "truthfulqa_mc2": true / (true + false),  # exp(-800) is 0 in float64
        "truthfulqa_binary": 1.0,
        "truthfulqa_binary_unasked": 0.0,
        "truthfulqa_questions": 1.0,
    })  # fmt: skip
    assert details["wrong"] == [{"question": "Q?", "best": "t1.", "likelier": "f1."}]


def test_truthfulqa_takes_the_first_false_answer_where_the_file_names_no_best_one() -> None:
    row = {"Category": "c", "Question": "q", "Best Answer": "a", "Correct Answers": "a", "Incorrect Answers": "x; y"}
    assert truthfulqa.question_of(Item("f: line 2", "f", row)).best_false == "x."
    with pytest.raises(UserError, match="f: line 2: no best, true or false answer"):
        truthfulqa.question_of(Item("f: line 2", "f", row | {"Incorrect Answers": " ; "}))


# -- closed-book questions

FACTS = [
    {"instruction": "Where does Ali live?", "output": "Bursa", "language": "en", "kind": "city"},
    {"instruction": "What does Ali eat?", "output": "honey", "language": "en", "kind": "food"},
    {"instruction": "Where does Eda live?", "output": "İzmir", "language": "en", "kind": "city"},
    {"instruction": "Ali nerede?", "output": "Bursa'da", "language": "tr", "kind": "city"},
    {"instruction": "Eda nerede?", "output": "İzmir'de", "language": "tr", "kind": "city"},
]


def write_facts(folder: Path) -> None:
    rows = [row | {"id": str(i), "input": "", "source": "own", "history": None} for i, row in enumerate(FACTS)]
    rows.append(rows[0] | {"id": "open", "input": "Ali lives in Bursa.", "output": "open book"})
    (folder / "instructions").mkdir()
    for split in ("train", "validation", "test"):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"instructions/{split}.parquet")


def book(**changes: Any) -> closed_book.Settings:
    fields: dict[str, Any] = {
        "split": "test", "source": None, "candidates": 4, "alike": None, "shots": 0, "batch_size": 4, "max_tokens": 6,
        "max_records": None, "seed": 1,
    }  # fmt: skip
    return closed_book.Settings(**fields | changes)


@pytest.mark.parametrize("shots", [0, 1])
@pytest.mark.parametrize(
    "spec", [TEXT.within(256), changed(ANSWERS, template="alpaca", max_tokens=256, max_prompt_tokens=200)]
)
def test_closed_book_asks_only_records_without_an_input_and_picks_among_answers_of_their_language(
    spec: TaskSpec, shots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_facts(tmp_path)
    one = subject(tmp_path, spec)
    monkeypatch.setattr(type(one.model), "room", lambda _: 256)
    asked: list[tuple[str, str]] = []

    def scored(_model: Any, rows: Sequence[Any], *_: Any, **_more: Any) -> list[Scored]:
        asked.extend((TOKENIZER.decode(row.context), TOKENIZER.decode(row.continuation)) for row in rows)
        return [Scored(float("Bursa" not in answer), 1, 0, False) for _, answer in asked]

    monkeypatch.setattr(closed_book, "ids_nats", scored)
    monkeypatch.setattr(closed_book, "greedy_answers", lambda _one, _task, rows, *_: ["bursa"] * len(rows))
    monkeypatch.setattr(closed_book, "_greedy", lambda _one, prompts, _settings: ["bursa"] * len(prompts))
    metrics, _, outcomes = closed_book.measure(book(shots=shots), one)
    # candidates: 3 English ones, 2 Turkish ones; the right one is the only one with Bursa in two of five questions
    assert metrics["closed_book_questions"] == 5
    assert metrics["closed_book_chance"] == pytest.approx((3 / 3 + 2 / 2) / 5)
    assert metrics["closed_book_accuracy"] == pytest.approx(2 / 5)
    assert metrics["closed_book_exact"] == pytest.approx(1 / 5)
    assert outcomes[0].values == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert all("open book" not in text for pair_ in asked for text in pair_)
    marker = "### Response:\n" if spec.template else ("Answer:", "Cevap:")
    assert all(context.endswith(marker) for context, _ in asked)
    count = asked[0][0].count("### Response:" if spec.template else "Answer:")
    assert count == 1 + shots


def test_closed_book_draws_wrong_answers_like_the_right_one() -> None:
    rows = [row | {"id": str(i)} for i, row in enumerate(FACTS)]
    assert closed_book.candidates(rows[0], rows, book(alike="kind")) == ["Bursa", "İzmir"]
    assert set(closed_book.candidates(rows[0], rows, book())) == {"Bursa", "honey", "İzmir"}
    assert len(closed_book.candidates(rows[0], rows, book(candidates=2))) == 2
    with pytest.raises(UserError, match="record 1: no other en record without an input has an answer unlike 'honey'"):
        closed_book.candidates(rows[1], rows, book(alike="kind"))


# -- loss by position


def test_positions_averages_the_tokens_of_each_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_documents(tmp_path / "documents", ["x" * 40, "y" * 10], [None, None], ["a", "b"])
    one = subject(tmp_path)
    monkeypatch.setattr(type(one.model), "room", lambda _: 20)
    monkeypatch.setattr(
        positions, "token_nats",
        lambda _model, texts, *_, **__: [(np.arange(len(t.continuation)) * 1.0, None) for t in texts],
    )  # fmt: skip
    fields = {"split": "test", "batch_size": 2, "max_documents": None}
    metrics, details, *_ = positions.measure(positions.Settings(**fields, source=None), one)
    lengths = [20, len(Shard.open(tmp_path / "documents", "test").document(1))]
    first = [*range(16), *range(lengths[1])]
    assert metrics == {"loss_at_1_to_16_nats": pytest.approx(np.mean(first)), "loss_at_17_to_20_nats": 17.5}
    assert details["tokens"] == {"loss_at_1_to_16_nats": len(first), "loss_at_17_to_20_nats": 4}
    alone, *_ = positions.measure(positions.Settings(**fields, source="b"), one)
    assert alone == {"loss_at_1_to_16_nats": pytest.approx(np.mean(range(lengths[1])))}
    with pytest.raises(UserError, match="source is 'c'; the test documents are of: a, b"):
        positions.measure(positions.Settings(**fields, source="c"), one)
