"""tohum.json: a model whose record is misread is asked in another way than it was taught."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.errors import UserError
from pipeline.prompts.spec import TEXT, TaskSpec, parsed, read, written

CHAT = TaskSpec(name="chat", template="chat", max_tokens=64, max_prompt_tokens=48)
CHAT_1 = CHAT.model_copy(update={"max_prompt_tokens": None})
SPAM = TaskSpec(name="classify", labels=("ham", "ışık"), max_tokens=32, max_prompt_tokens=32)
WORDS: dict[str, Any] = {"pattern": "{text}{label}", "verbalizers": {"a": "x"}}
PATH = Path("models/m/tohum.json")


def test_read_gives_the_written_tasks_in_their_order(tmp_path: Path) -> None:
    files.write_json(tmp_path / "tohum.json", written([CHAT, SPAM]))
    assert read(tmp_path) == (CHAT, SPAM)
    assert read(tmp_path / "elsewhere") == (TEXT,)
    assert "null" not in (tmp_path / "tohum.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "tasks"),
    [
        ({"objective": "next_token"}, (TEXT,)),
        ({}, (TEXT,)),
        ({"objective": "classify", "labels": ["ham", "ışık"], "max_tokens": 32}, (SPAM,)),
        ({"objective": "chat", "template": "chat", "max_tokens": 64}, (CHAT_1,)),
        (
            {"objective": "cloze", "labels": ["a"], "max_tokens": 9} | WORDS,
            (
                TaskSpec(name="cloze", labels=("a",), **WORDS, max_tokens=9),
            ),
        ),
        (
            {"objective": "instruct", "template": "chat", "labels": ["ham", "ışık"], "max_tokens": 32},
            (TaskSpec(name="instruct", template="chat"), SPAM),
        ),
        (
            {"objective": "classify", "template": "chat", "labels": ["ham", "ışık"], "max_tokens": 32},
            (SPAM, TaskSpec(name="instruct", template="chat")),
        ),
    ],
)  # fmt: skip
def test_parsed_reads_the_records_of_version_1(old: dict[str, Any], tasks: tuple[TaskSpec, ...]) -> None:
    """Folders of models that were trained and registered before version 2."""
    assert parsed(old, PATH) == tasks


def test_within_fills_in_the_limits_of_a_context() -> None:
    assert TEXT.within(40) == TaskSpec(name="next_token", max_tokens=40, max_prompt_tokens=30)
    assert CHAT.within(40).max_prompt_tokens == 39  # virtual tokens took the rest
    assert CHAT.within(100) == CHAT
    assert SPAM.within(32) == SPAM  # a label needs no room after the prompt


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "tohum.json: found list; expected an object"),
        ({"version": 3, "tasks": []}, "version 3; this checkout reads versions 1 and 2"),
        ({"version": 2, "tasks": []}, "names no task"),
        ({"version": 2, "tasks": 5}, "tasks is 5; expected a list"),
        ({"version": 2, "tasks": [{"name": "cloze"}]}, "task cloze needs labels, max_tokens, pattern, verbalizers"),
        ({"version": 2, "tasks": [{"name": "instruct"}]}, "task instruct needs template"),
        ({"version": 2, "tasks": [{"name": "chat", "template": "vicuna"}]}, "template is 'vicuna'; one of: chat"),
        (
            {"version": 2, "tasks": [{"name": "chat", "template": "chat", "max_tokens": 9, "max_prompt_tokens": 10}]},
            "max_prompt_tokens 10 is above max_tokens 9",
        ),
        ({"objective": "classify", "labels": "spam", "max_tokens": 9}, "tohum.json: labels: "),
        ({"objective": "classify", "labels": ["a"], "max_tokens": "many"}, "tohum.json: max_tokens: "),
        ({"labels": ["a"], "pattern": "x", "verbalizers": {"a": "b"}, "max_tokens": 9}, "do not fit the labels"),
        ({"version": 2, "tasks": [{"name": "chat", "max_tokens": 0}]}, "greater than 0"),
        ({"version": 2, "tasks": [{"name": "chat", "colour": 1}]}, "not permitted"),
    ],
)
def test_parsed_refuses_damaged_records_and_newer_ones(content: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parsed(content, PATH)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "multi_label", "max_tokens": 8}, "task multi_label needs labels"),
        ({"name": "regress", "mean": 0.0, "max_tokens": 8}, "task regress needs deviation"),
        ({"name": "regress", "mean": 0.0, "deviation": 0.0, "max_tokens": 8}, "greater than 0"),
        (
            {"name": "classify", "labels": ["a", "b"], "thresholds": {"a": 0.5}, "max_tokens": 8},
            "do not name exactly the labels",
        ),
    ],
)
def test_parsed_refuses_heads_without_what_they_need(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parsed({"version": 2, "tasks": [fields]}, Path("tohum.json"))


def test_a_regression_has_one_output_and_generates_no_text() -> None:
    (spec,) = parsed(
        {"version": 2, "tasks": [{"name": "regress", "mean": 0.0, "deviation": 2.0, "max_tokens": 90}]},
        Path("tohum.json"),
    )
    assert (spec.outputs, spec.generates, spec.within(40).max_tokens) == (("value",), False, 40)
