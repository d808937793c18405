"""Conversations: a mask that slips would teach the model to speak for its user."""

import pytest

from pipeline.data import templates
from pipeline.data.conversations import written
from pipeline.errors import UserError
from pipeline.objectives import IGNORED, Context
from pipeline.objectives.chat import Chat, Settings
from tests.fakes import ByteTokenizer, instruction

TOKENIZER = ByteTokenizer()
SAID = [("Kim geldi?", "Ayşe"), ("Ne zaman?", "dün")]
SYSTEM = '[{"role": "system", "content": "Kısa konuş."}, ' + written(SAID)[1:]


def chat(template: str = "chat", max_tokens: int = 200) -> Chat:
    return Chat(Settings(template=template, max_tokens=max_tokens), Context(TOKENIZER, 256, []))  # type: ignore[arg-type]


def learned(objective: Chat, given: str) -> list[str]:
    """The texts that are learned, in order."""
    _, targets = objective.example(instruction("Nereye?", "İzmir", given=given))
    ids = [TOKENIZER.end_of_text if i == IGNORED else i for i in targets]
    return [text for text in "".join(chr(i) if i < 256 else "\0" for i in ids).split("\0") if text]


@pytest.mark.parametrize("template", ["chat", "alpaca"])
@pytest.mark.parametrize("given", [written(SAID), SYSTEM])
def test_every_answer_is_learned_and_nothing_else(template: str, given: str) -> None:
    opens = templates.TEMPLATES[template].opens
    said = [(opens + text).encode().decode("latin-1") for text in ("Ayşe", "dün", "İzmir")]
    assert learned(chat(template), given) == said


def test_a_plain_input_is_one_turn() -> None:
    """An input that only looks like a conversation is a text as any other."""
    for given in ("", "bir metin", "[1, 2]", '[{"role": "user", "content": "x"}]', '[{"role": "nobody"}'):
        ids, targets = chat().example(instruction("Nereye?", "İzmir", given=given))
        assert learned(chat(), given) == [" İzmir".encode().decode("latin-1")]
        assert ids == templates.prompt_ids(TOKENIZER, "chat", "Nereye?", given) + [i for i in targets if i != IGNORED]


def test_prompts_show_the_model_what_it_was_trained_on() -> None:
    """Scoring and chatting must build the very ids that training saw before the last answer."""
    ids, _ = chat().example(instruction("Nereye?", "İzmir", given=SYSTEM))
    prompt = templates.prompt_ids(TOKENIZER, "chat", "Nereye?", SYSTEM)
    assert ids[: len(prompt)] == prompt
    assert TOKENIZER.decode(prompt) == "Kısa konuş.Kim geldi? AyşeNe zaman? dünNereye?"


def test_a_long_conversation_loses_its_oldest_turns_first() -> None:
    whole, _ = chat().example(instruction("Nereye?", "İzmir", given=written(SAID)))
    shorter, _ = chat(max_tokens=len(whole) - 1).example(instruction("Nereye?", "İzmir", given=written(SAID)))
    assert TOKENIZER.decode(shorter) == "Ne zaman? dünNereye? İzmir"
    last, _ = chat(max_tokens=40).example(instruction("soru " * 40, "İzmir", given=written(SAID)))
    assert len(last) == 40
    assert TOKENIZER.decode(last).endswith(" İzmir")


def test_an_answer_that_cannot_fit_is_named() -> None:
    with pytest.raises(UserError, match=r"test:1: its last answer has 202 tokens, objective.max_tokens is 200"):
        chat().example(instruction("soru", "a" * 200))
