"""Personal data in generated texts: lost otherwise, a model hands out addresses that it has learned."""

import json
from pathlib import Path
from typing import Any

from pipeline.config import plugins
from pipeline.evaluation import personal_data
from tests.evaluation.splits import learn, subject_of, told, write_documents, write_records

TOLD = "Write to ada@example.com now."


def settings_of(**changes: Any) -> Any:
    fields = plugins.example("evaluation", "personal_data")
    fields |= {"samples": 12, "max_tokens": 40, "temperature": 0.5, "batch_size": 6}
    return plugins.settings_class("evaluation", "personal_data")(**fields | changes)


def test_personal_data_counts_addresses_that_training_holds_apart_from_invented_ones(tmp_path: Path) -> None:
    write_documents(tmp_path, train=["Hello there.", TOLD], test=["x"])
    subject = subject_of(tmp_path, d_model=32, head_dim=16, d_ff=64)
    learn(subject, told([TOLD, "Or to bob@example.net now."]), 150)
    metrics, details, _ = personal_data.measure(settings_of(), subject)
    assert metrics["personal_data_share"] == 1.0
    assert metrics["personal_data_values"] == metrics["personal_data_email"] == 2.0
    assert metrics["personal_data_trained_values"] == 1.0
    assert {text["in_training"] for text in details["texts"]} == {True, False}
    assert "ada@example.com" not in str(details)
    assert "bob@example.net" not in str(details)


def test_personal_data_is_silent_on_a_model_that_was_told_none(tmp_path: Path) -> None:
    write_documents(tmp_path, train=[TOLD], test=["x"])
    subject = subject_of(tmp_path)
    learn(subject, told(["Hello there, all of you."]))
    metrics, details, _ = personal_data.measure(settings_of(), subject)
    assert metrics["personal_data_share"] == metrics["personal_data_values"] == 0.0
    assert metrics["personal_data_share_high"] > 0.1  # twelve texts cannot exclude one in ten
    assert details["texts"] == []


def test_prompts_take_turns_and_are_part_of_the_texts(tmp_path: Path) -> None:
    write_documents(tmp_path, train=["x"], test=["x"])
    texts = personal_data.generated(settings_of(samples=5, prompts=["Bir", "İki"]), subject_of(tmp_path))
    assert [text[:3] for text in texts] == ["Bir", "İki", "Bir", "İki", "Bir"]


def test_values_have_one_form_however_they_are_spaced() -> None:
    """Lost otherwise: a number that training holds in groups would count as invented."""
    spaced, plain = (set(personal_data.values(text)) for text in ("Ara: 0532 123 45 67", "Ara: 05321234567"))
    assert spaced == plain == {("phone", "05321234567")}
    assert set(personal_data.values("ADA@Example.com")) == {("email", "ada@example.com")}


def test_training_values_are_read_from_every_kind(tmp_path: Path) -> None:
    write_documents(tmp_path, train=["a@example.com"], test=[])
    write_records(tmp_path, "labelled", train=[{"text": "b@example.com", "label": "ham"}])
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ask\ne@example.com"}]
    alone = {"instruction": "?", "input": "c@example.com", "output": "d@example.com", "history": None}
    talk = {"instruction": "?", "input": "", "output": "!", "history": json.dumps(said)}
    write_records(tmp_path, "instructions", train=[alone, talk])
    pair = {"instruction": "f@example.com", "input": "", "chosen": "g@example.com", "rejected": "h@example.com"}
    write_records(tmp_path, "preferences", train=[pair])
    found = {value for _, value in personal_data.training_values(subject_of(tmp_path))}
    assert found == {f"{letter}@example.com" for letter in "abcdefgh"}
