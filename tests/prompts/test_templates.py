"""Prompts: a shifted cut or a missing marker asks a model what it was never taught."""

import random
from typing import Any

import pytest

from pipeline.data.conversations import Earlier, Turn
from pipeline.errors import UserError
from pipeline.prompts import templates
from pipeline.prompts.request import Request
from pipeline.tokenizer import train
from tests.fakes import SPECIALS, ByteTokenizer

TOKENIZER = ByteTokenizer()
NAMES = {number: name for name, number in TOKENIZER.special.items()}
SAID = (Turn("Kim geldi?", "Ayşe"), Turn("Ne zaman?", "dün"))


def shown(ids: list[int]) -> str:
    """Text with the names of special tokens."""
    parts = [NAMES[i] if i in NAMES else bytes([i]).decode("latin-1") for i in ids]
    return "".join(parts).encode("latin-1").decode("utf-8", "replace")


def asked(question: str, limit: int = 400, template: str = "chat", **more: Any) -> str:
    return shown(templates.prompt(TOKENIZER, template, Request(question, **more), limit).ids)


def test_chat_marks_every_turn() -> None:
    assert asked("Nereye?", earlier=Earlier("Kısa konuş.", SAID)) == (
        "<|system|>Kısa konuş.<|end|><|user|>Kim geldi?<|end|><|assistant|> Ayşe<|endoftext|>"
        "<|user|>Ne zaman?<|end|><|assistant|> dün<|endoftext|><|user|>Nereye?<|end|><|assistant|>"
    )
    assert asked("Kim?", input="metin") == "<|user|>Kim?\nmetin<|end|><|assistant|>"


def test_alpaca_writes_headings() -> None:
    assert asked("Kim?", template="alpaca", input="metin", earlier=Earlier("Kısa.", ())) == (
        "Kısa.\n\n### Instruction:\nKim?\n\n### Input:\nmetin\n\n### Response:\n"
    )


def test_alpaca_encodes_a_whole_turn_as_one_text() -> None:
    """As other programs encode a rendered prompt; encoded by pieces, blank lines would get other ids."""
    words = train(["### Instruction:\nKim?\n\n### Response:\nAyşe. " * 30], 300, "gpt2")
    for system in ("", "Kısa konuş."):
        request = Request("Kim geldi?", "Ayşe", Earlier(system, ()))
        text = (f"{system}\n\n" if system else "") + (
            "### Instruction:\nKim geldi?\n\n### Input:\nAyşe\n\n### Response:\n"
        )
        assert templates.prompt(words, "alpaca", request, 500).ids == words.encode(text)


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_prompt_encodes_no_special_token_from_user_text(template: str) -> None:
    """A message that spells a marker must not end the turn, an input that looks like messages stays text."""
    spelled = "".join(SPECIALS)
    plain = templates.prompt(TOKENIZER, template, Request("a", "b"), 400).ids
    tricked = Request(f"{spelled}", '[{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]')
    ids = templates.prompt(TOKENIZER, template, tricked, 400).ids
    assert [i for i in ids if i >= 256] == [i for i in plain if i >= 256]
    assert TOKENIZER.decode(ids).count('[{"role"') == 1


def test_prompt_refuses_a_vocabulary_without_the_special_tokens_of_chat() -> None:
    bare = ByteTokenizer(["<|endoftext|>"])
    with pytest.raises(UserError, match="template: alpaca"):
        templates.prompt(bare, "chat", Request("x"), 100)
    assert templates.answer(bare, "alpaca", "x") == [ord("x"), 256]


def test_a_long_prompt_loses_its_oldest_turns_first() -> None:
    whole = len(templates.prompt(TOKENIZER, "chat", Request("Nereye?", earlier=Earlier("S", SAID)), 999).ids)
    assert asked("Nereye?", whole, earlier=Earlier("S", SAID)).count("<|user|>") == 3
    one_less = asked("Nereye?", whole - 1, earlier=Earlier("S", SAID))
    assert one_less == (
        "<|system|>S<|end|><|user|>Ne zaman?<|end|><|assistant|> dün<|endoftext|><|user|>Nereye?<|end|><|assistant|>"
    )


def test_a_long_question_loses_its_middle_before_the_system_message_does() -> None:
    question = "a" * 50 + "b" * 50
    cut = asked(question, 40, earlier=Earlier("s" * 10, SAID))
    assert cut == f"<|system|>{'s' * 10}<|end|><|user|>{'a' * 12}{'b' * 13}<|end|><|assistant|>"
    both = asked(question, 40, earlier=Earlier("s" * 40 + "t" * 40, SAID))
    assert both == f"<|system|>{'s' * 8}{'t' * 9}<|end|><|user|>{'a' * 9}{'b' * 9}<|end|><|assistant|>"
    short = asked("kim?", 40, earlier=Earlier("s" * 40 + "t" * 40, SAID))
    assert short == f"<|system|>{'s' * 15}{'t' * 16}<|end|><|user|>kim?<|end|><|assistant|>"


def test_a_long_input_loses_its_middle_before_a_short_instruction_does() -> None:
    cut = asked("Özetle.", 70, template="alpaca", input="x" * 100 + "y" * 100)
    assert cut.startswith("### Instruction:\nÖzetle.\n\n### Input:\nxx")
    assert cut.endswith("yy\n\n### Response:\n")
    assert len(cut.encode()) == 70


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_a_prompt_keeps_its_markers_and_never_exceeds_its_limit(template: str) -> None:
    """Random requests and limits, down to a single token of text."""
    rng = random.Random(1)
    least = templates.markers(TOKENIZER, template)
    words = ["ışık", "göl", "x" * 30, "", "<|end|>", "\n"]
    for _ in range(200):
        turns = tuple(Turn(rng.choice(words) * rng.randint(1, 4), "cevap") for _ in range(rng.randint(0, 5)))
        system = rng.choice(["", "kısa", "uzun " * 30])
        request = Request(rng.choice(words) * rng.randint(0, 9), rng.choice(words), Earlier(system, turns))
        limit = least + rng.randint(1, 90)
        ids, learned = templates.prompt(TOKENIZER, template, request, limit)
        assert len(ids) == len(learned) <= limit
        if template == "chat":
            marks = [NAMES[i] for i in ids if i >= 256]
            head = ["<|system|>", "<|end|>"] if system else []
            turn = ["<|user|>", "<|end|>", "<|assistant|>"]
            kept = marks[len(head) :]
            assert marks[: len(head)] == head
            assert kept == [*([*turn, "<|endoftext|>"] * (len(kept) // 4)), *turn]
        else:
            assert TOKENIZER.decode(ids).endswith("\n\n### Response:\n")
