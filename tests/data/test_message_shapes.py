"""Conversations in the shapes of other tools become one shape, with every field kept for the check that follows."""

import json
from typing import Any

import pytest

from pipeline.data.message_shapes import is_conversation, joined, messages, running_text, transcript

ASKED, SAID = {"role": "user", "content": "Kim?"}, {"role": "assistant", "content": "Ayşe"}


def test_messages_maps_sharegpt_and_json_text_to_one_shape() -> None:
    shared = [{"from": "human", "value": "Kim?"}, {"from": "gpt", "value": "Ayşe"}]
    assert messages(shared) == messages(json.dumps(shared)) == messages([ASKED, SAID]) == [ASKED, SAID]
    assert messages([{"from": "observation", "value": "x"}]) == [{"role": "observation", "content": "x"}]


def test_messages_keeps_every_other_field_of_a_message() -> None:
    """Lost otherwise: a tool call or a weight would vanish before the check that refuses or honours it."""
    assert messages([{"from": "gpt", "value": "x", "weight": 0, "tool_calls": [1]}]) == [
        {"role": "assistant", "content": "x", "weight": 0, "tool_calls": [1]}
    ]


@pytest.mark.parametrize(
    "value", ["metin", "[{", "[]", [], None, 3, [{"text": "x"}], ["x"], '[{"a": 1}]', {"role": "x"}]
)
def test_is_conversation_is_false_for_anything_else(value: Any) -> None:
    assert not is_conversation(value)
    assert running_text(value) is None


def test_joined_takes_texts_and_lists_on_either_side() -> None:
    assert joined("Kim?", "Ayşe") == joined([ASKED], [SAID]) == joined("Kim?", [SAID]) == joined([ASKED], "Ayşe")
    assert joined("Kim?", "Ayşe") == [ASKED, SAID]
    assert joined(None, [ASKED, SAID]) == [ASKED, SAID]


def test_transcript_reads_the_turns_of_hh_rlhf() -> None:
    text = "\n\nHuman: Kim?\n\nAssistant: Ayşe\n\nHuman: Ne zaman?\n\nAssistant: Dün\n\nakşam"
    assert transcript(text) == [ASKED, SAID, {"role": "user", "content": "Ne zaman?"},
                                {"role": "assistant", "content": "Dün\n\nakşam"}]  # fmt: skip
    assert joined(None, "\n\nHuman: Kim?\n\nAssistant: Ayşe") == [ASKED, SAID]
    assert joined("Kim?", "\n\nHuman: x\n\nAssistant: y")[-1]["content"].startswith(
        "\n\nHuman"
    )  # beside a prompt: text
    assert transcript("Human: Kim?") is None
    assert transcript("She said: Human: x\n\nAssistant: y") is None


def test_running_text_is_all_texts_in_order() -> None:
    assert running_text([ASKED, SAID]) == "Kim?\nAyşe"
    assert running_text([ASKED, {"role": "assistant", "content": None}]) is None
