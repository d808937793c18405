"""Objective chat: a shifted loss mask would train the model to write the user's turns."""

import pytest

from pipeline.data import templates
from pipeline.data.conversations import written
from pipeline.errors import UserError
from pipeline.objectives import IGNORED, ObjectiveContext
from pipeline.objectives.chat import Chat, Settings
from tests.fakes import ByteTokenizer, instruction

TOKENIZER = ByteTokenizer()
SAID = [("Kim geldi?", "Ayşe"), ("Ne zaman?", "dün")]
SYSTEM = '[{"role": "system", "content": "Kısa konuş."}, ' + written(SAID)[1:]


def chat(template: str = "chat", max_tokens: int = 200) -> Chat:
    return Chat(Settings(template=template, max_tokens=max_tokens), ObjectiveContext(TOKENIZER, 256, []))  # type: ignore[arg-type]


def learned(objective: Chat, given: str) -> list[str]:
    """The texts with targets, in order."""
    _, targets = objective.example(instruction("Nereye?", "İzmir", given=given))
    ids = [TOKENIZER.end_of_text if i == IGNORED else i for i in targets]
    return [text for text in "".join(chr(i) if i < 256 else "\0" for i in ids).split("\0") if text]


@pytest.mark.parametrize("template", ["chat", "alpaca"])
@pytest.mark.parametrize("given", [written(SAID), SYSTEM])
def test_chat_has_targets_in_every_answer_and_nowhere_else(template: str, given: str) -> None:
    opens = templates.TEMPLATES[template].opens
    said = [(opens + text).encode().decode("latin-1") for text in ("Ayşe", "dün", "İzmir")]
    assert learned(chat(template), given) == said


def test_chat_reads_an_input_that_is_no_conversation_as_text() -> None:
    """Also one that resembles a conversation."""
    for given in ("", "bir metin", "[1, 2]", '[{"role": "user", "content": "x"}]', '[{"role": "nobody"}'):
        ids, targets = chat().example(instruction("Nereye?", "İzmir", given=given))
        assert learned(chat(), given) == [" İzmir".encode().decode("latin-1")]
        assert ids == templates.prompt_ids(TOKENIZER, "chat", "Nereye?", given) + [i for i in targets if i != IGNORED]


def test_chat_trains_on_the_ids_of_the_prompt_that_evaluation_builds() -> None:
    """Otherwise evaluation and chat would use other prompts than training."""
    ids, _ = chat().example(instruction("Nereye?", "İzmir", given=SYSTEM))
    prompt = templates.prompt_ids(TOKENIZER, "chat", "Nereye?", SYSTEM)
    assert ids[: len(prompt)] == prompt
    assert TOKENIZER.decode(prompt) == "Kısa konuş.Kim geldi? AyşeNe zaman? dünNereye?"


def test_chat_drops_the_oldest_turns_of_a_long_conversation() -> None:
    whole, _ = chat().example(instruction("Nereye?", "İzmir", given=written(SAID)))
    shorter, _ = chat(max_tokens=len(whole) - 1).example(instruction("Nereye?", "İzmir", given=written(SAID)))
    assert TOKENIZER.decode(shorter) == "Ne zaman? dünNereye? İzmir"
    last, _ = chat(max_tokens=40).example(instruction("soru " * 40, "İzmir", given=written(SAID)))
    assert len(last) == 40
    assert TOKENIZER.decode(last).endswith(" İzmir")


def test_chat_names_an_answer_that_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"test:1: its last answer has 202 tokens, objective.max_tokens is 200"):
        chat().example(instruction("soru", "a" * 200))
