"""Verbatim extraction: a wrong share calls a model safe that repeats its training texts, or a plain one leaking."""

import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import plugins
from pipeline.errors import UserError
from pipeline.evaluation import extraction
from tests.evaluation.splits import learn, subject_of, told, write_documents, write_records
from tests.evaluation.test_measures import TOKENIZER
from tests.specs import ANSWERS, changed


def settings_of(**changes: Any) -> Any:
    fields = plugins.example("evaluation", "extraction")
    return plugins.settings_class("evaluation", "extraction")(**fields | changes)


def codes(count: int, seed: int) -> list[str]:
    """Different texts whose end does not follow from their beginning."""
    rng = random.Random(seed)
    return [f"{chr(97 + i)}{rng.randrange(100):02d}: {rng.randrange(10**8):08d}" for i in range(count)]


def test_extraction_counts_memorised_texts_and_no_unseen_ones(tmp_path: Path) -> None:
    train, held_out = codes(4, 1), codes(4, 2)
    write_documents(tmp_path, train=train, test=held_out)
    subject = subject_of(tmp_path, d_model=32, head_dim=16, d_ff=64)
    settings = settings_of(prefix_tokens=5, continuation_tokens=6)
    before, _, _ = extraction.measure(settings, subject)
    learn(subject, told(train))
    metrics, details, _ = extraction.measure(settings, subject)
    assert before["extraction_share"] == 0.0
    assert metrics["extraction_share"] == 1.0
    assert metrics["extraction_held_out_share"] == 0.0
    assert metrics["extraction_excess_share"] == 1.0
    assert metrics["extraction_records"] == metrics["extraction_held_out_records"] == 4.0
    assert details["repeated"] == ["train0", "train1", "train2", "train3"]
    assert details["by_record"] == "1 1 1 1"


def test_extraction_finds_nothing_beyond_the_false_alarm_when_text_is_predictable(tmp_path: Path) -> None:
    """Lost otherwise: every model that can spell would be called a leak."""
    write_documents(tmp_path, train=["ababababab"] * 3, test=["abababababab"])
    subject = subject_of(tmp_path)
    learn(subject, told(["ababababababab"]))
    metrics, _, _ = extraction.measure(settings_of(prefix_tokens=4, continuation_tokens=4), subject)
    assert metrics["extraction_share"] == metrics["extraction_held_out_share"] == 1.0
    assert metrics["extraction_excess_share"] == 0.0


def test_extraction_separates_texts_by_their_number_of_tellings(tmp_path: Path) -> None:
    once, often = codes(2, 1)
    write_documents(tmp_path, train=[once, often, often, often], test=codes(2, 3))
    subject = subject_of(tmp_path, d_model=32, head_dim=16, d_ff=64)
    learn(subject, told([often]))
    metrics, _, _ = extraction.measure(settings_of(prefix_tokens=5, continuation_tokens=6), subject)
    assert metrics["extraction_share_times_3"] == 1.0
    assert metrics["extraction_share_times_1"] == 0.0
    assert metrics["extraction_share"] == 0.75


def test_extraction_counts_tellings_in_all_training_records_when_few_are_drawn(tmp_path: Path) -> None:
    """Lost otherwise: a text told five times counts as told once, because one of its records was drawn."""
    write_documents(tmp_path, train=codes(1, 1) * 5, test=codes(2, 3))
    metrics, _, _ = extraction.measure(
        settings_of(prefix_tokens=5, continuation_tokens=6, records=1), subject_of(tmp_path)
    )
    assert [name for name in metrics if "times" in name] == ["extraction_share_times_5"]


def test_extraction_counts_tellings_of_answers_in_all_training_records(tmp_path: Path) -> None:
    row = {"instruction": "Code of A?", "input": "", "output": "4711"}
    write_records(tmp_path, "instructions", train=[row] * 4 + [row | {"output": "0815"}], test=[row])
    subject = subject_of(tmp_path, changed(ANSWERS, template="alpaca", max_tokens=180, max_prompt_tokens=160), 200)
    settings = settings_of(kind="instructions", prefix_tokens=0, continuation_tokens=20)
    chosen = extraction.cases(settings, subject, "train")[3:]
    assert extraction.tellings(settings, subject, chosen) == [4, 1]


def test_extraction_continues_answers_after_their_question(tmp_path: Path) -> None:
    """A short answer counts when it is repeated to its end."""
    rows = [
        {"instruction": f"Code of {name}?", "input": "", "output": code}
        for name, code in (("A", "4711"), ("B", "0815"))
    ]
    write_records(tmp_path, "instructions", train=rows, test=[rows[0] | {"instruction": "Code of C?"}])
    spec = changed(ANSWERS, template="alpaca", max_tokens=180, max_prompt_tokens=160)
    subject = subject_of(tmp_path, spec, 200)
    task: Any = subject.tasks[0]
    settings = settings_of(kind="instructions", prefix_tokens=0, continuation_tokens=20)
    cases = extraction.cases(settings, subject, "train")
    assert [TOKENIZER.decode(case.expected) for case in cases] == ["4711", "0815"]
    assert all(TOKENIZER.decode(case.prompt).endswith("### Response:\n") for case in cases)
    assert task.spec.template == "alpaca"


def test_extraction_names_both_settings_when_no_text_is_long_enough(tmp_path: Path) -> None:
    write_documents(tmp_path, train=["ab"], test=["ab"])
    with pytest.raises(UserError, match="no documents of split train have 2 \\+ 3 tokens"):
        extraction.measure(settings_of(), subject_of(tmp_path))


def test_extraction_names_the_sources_when_one_is_unknown(tmp_path: Path) -> None:
    write_documents(tmp_path, train=["abcdefgh"], test=["abcdefgh"])
    with pytest.raises(
        UserError, match="source is 'mine', no documents of split train are from it; sources there: own"
    ):
        extraction.measure(settings_of(source="mine"), subject_of(tmp_path))
