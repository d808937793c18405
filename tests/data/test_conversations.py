"""Lists of messages become records and come back whole, or are refused in words."""

from typing import Any

import pytest

from pipeline.data import conversations

MESSAGES = [
    {"role": "system", "content": "Kısa konuş."}, {"role": "user", "content": "Kim?"},
    {"role": "assistant", "content": 'Ayşe "Işık"'}, {"role": "user", "content": "Ne zaman?"},
    {"role": "assistant", "content": "dün\nakşam"},
]  # fmt: skip


def test_earlier_restores_a_written_conversation() -> None:
    instruction, given, output = conversations.record(MESSAGES)
    assert (instruction, output) == ("Ne zaman?", "dün\nakşam")
    assert "Işık" in given  # gates read it as text
    assert conversations.earlier(given) == ("Kısa konuş.", (("Kim?", 'Ayşe "Işık"'),))
    assert conversations.record(MESSAGES[3:]) == ("Ne zaman?", "", "dün\nakşam")
    assert conversations.earlier(conversations.written([("a", "b")])) == ("", (("a", "b"),))
    assert conversations.written([]) == ""
    assert conversations.said(given) == 'Kısa konuş.\nKim?\nAyşe "Işık"'
    assert conversations.said('[{"role": no list') == '[{"role": no list'


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
    ],
)
def test_record_describes_the_fault_of_an_invalid_list(value: Any, words: str) -> None:
    found = conversations.record(value)
    assert isinstance(found, str)
    assert words in found


@pytest.mark.parametrize("given", ["", "metin", "[]", '[{"role"', '[{"role": "user", "content": "x"}]'])
def test_earlier_is_none_for_plain_text(given: str) -> None:
    assert conversations.earlier(given) is None
