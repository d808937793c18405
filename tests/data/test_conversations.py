"""Lists of messages become records and come back whole, or are refused in words."""

import json
from typing import Any

import pytest

from pipeline.data import conversations
from pipeline.data.conversations import Conversation, Turn

MESSAGES = [
    {"role": "system", "content": "Kısa konuş."}, {"role": "user", "content": "Kim?"},
    {"role": "assistant", "content": 'Ayşe "Işık"'}, {"role": "user", "content": "Ne zaman?"},
    {"role": "assistant", "content": "dün\nakşam"},
]  # fmt: skip


def test_earlier_restores_a_written_conversation() -> None:
    conversation = conversations.record(MESSAGES)
    assert isinstance(conversation, Conversation)
    assert (conversation.instruction, conversation.output) == ("Ne zaman?", "dün\nakşam")
    assert "Işık" in conversation.history  # gates read it as text
    assert conversations.earlier(conversation.history) == ("Kısa konuş.", (("Kim?", 'Ayşe "Işık"', True),))
    assert conversations.record(MESSAGES[3:]) == ("Ne zaman?", "", "dün\nakşam")
    assert conversations.earlier(conversations.of_turns([Turn("a", "b")])) == ("", (Turn("a", "b"),))
    assert conversations.of_turns([]) == ""
    assert conversations.of_turns([Turn("Kim?", 'Ayşe "Işık"')], "Kısa konuş.") == conversation.history
    assert conversations.texts(conversation.history) == ["Kısa konuş.", "Kim?", 'Ayşe "Işık"']
    assert conversations.texts(None) == []
    assert conversations.prompt(MESSAGES[:4]) == ("Ne zaman?", conversation.history)


def test_record_keeps_an_answer_of_weight_zero_as_context() -> None:
    unlearned = [message | {"weight": 0} if i == 2 else message for i, message in enumerate(MESSAGES)]
    conversation = conversations.record(unlearned)
    assert isinstance(conversation, Conversation)
    assert conversations.earlier(conversation.history).turns == (Turn("Kim?", 'Ayşe "Işık"', False),)


def test_record_ends_with_the_last_learned_answer() -> None:
    """A final answer of weight 0 must not be learned; without it the conversation ends one turn earlier."""
    assert conversations.record([*MESSAGES[:4], MESSAGES[4] | {"weight": 0}]) == (
        "Kim?", json.dumps(MESSAGES[:1], ensure_ascii=False), 'Ayşe "Işık"',
    )  # fmt: skip
    none = conversations.record([MESSAGES[3], MESSAGES[4] | {"weight": 0}])
    assert none == "every assistant message has weight 0; expected an answer to learn from"


def test_record_reads_text_parts_and_the_developer_role() -> None:
    parts = [{"type": "text", "text": "Kı"}, {"type": "text", "text": "sa konuş."}]
    assert conversations.record([{"role": "developer", "content": parts}, *MESSAGES[1:]]) == conversations.record(
        MESSAGES
    )
    empty = {"tool_calls": [], "name": None, "function_call": None, "weight": 1}
    assert conversations.record([MESSAGES[3], MESSAGES[4] | empty]) == conversations.record(MESSAGES[3:])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "found str; expected a list"),
        ([], "not the assistant's"),
        (MESSAGES[:2], "not the assistant's"),
        ([MESSAGES[2]], "message 1 is the assistant's; expected the user's"),
        ([*MESSAGES[:3], MESSAGES[2]], "message 4 is the assistant's"),
        ([MESSAGES[1], MESSAGES[0], MESSAGES[2]], "message 2 is the system's"),
        ([{"role": "user"}], "expected role and content"),
        ([{"role": "tool", "content": "x"}], "message 1 has role 'tool'"),
        ([{"role": "user", "content": " "}], "expected a known role and text"),
        ([{"role": ["user"], "content": "x"}], "message 1 has role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "expected a known role and text"),
        ([MESSAGES[3], MESSAGES[4] | {"weight": 0.5}], "message 2 has weight 0.5; expected 0 (not learned) or 1"),
        ([MESSAGES[3], MESSAGES[4] | {"tool_calls": [{"id": "1"}]}], "message 2 has tool_calls, which"),
        ([MESSAGES[3], MESSAGES[4] | {"function_call": {"name": "f"}}], "message 2 has function_call, which"),
        ([MESSAGES[3], MESSAGES[4] | {"reasoning_content": "hm"}], "message 2 has reasoning_content, which"),
        ([MESSAGES[3] | {"name": "Ali"}, MESSAGES[4]], "message 1 has name, which"),
    ],
)
def test_record_describes_the_fault_of_an_invalid_list(value: Any, words: str) -> None:
    fault = conversations.record(value)
    assert isinstance(fault, str)
    assert words in fault


@pytest.mark.parametrize("history", ['[{"role"', "metin", '[{"role": "user", "content": "x"}]', "{}"])
def test_earlier_raises_for_anything_that_record_did_not_write(history: str) -> None:
    with pytest.raises(ValueError, match=r"history|JSON|Expecting|Unterminated|delimiter"):
        conversations.earlier(history)


@pytest.mark.parametrize(
    ("value", "words"), [(MESSAGES, "not the user's"), ([], "not the user's"), ("x", "expected a list")]
)
def test_prompt_describes_the_fault_of_a_list_without_a_last_question(value: Any, words: str) -> None:
    fault = conversations.prompt(value)
    assert isinstance(fault, str)
    assert words in fault
