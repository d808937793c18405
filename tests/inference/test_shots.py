"""Examples in the prompt: of the question's language, the same for all questions, whole or reported as cut."""

from typing import Any

import pytest

from pipeline.data.conversations import Turn
from pipeline.errors import UserError
from pipeline.inference.shots import examples, prompted, request_of
from pipeline.tasks import open_task
from tests.fakes import ByteTokenizer, instruction
from tests.specs import ANSWERS, changed

TOKENIZER: Any = ByteTokenizer()
TRAINING = [instruction(f"soru {i}", f"cevap {i}") for i in range(6)]
TRAINING += [instruction(f"question {i}", f"answer {i}", language="en") for i in range(6)]
ASKED = [instruction("son soru", "x"), instruction("last", "x", language="en")]


def task(limit: int) -> Any:
    return open_task(changed(ANSWERS, template="alpaca", max_tokens=limit + 10, max_prompt_tokens=limit), TOKENIZER)


def test_examples_are_of_the_questions_language_where_there_are_enough() -> None:
    assert {row["language"] for row in examples(TRAINING, "tr", 4)} == {"tr"}
    assert examples(TRAINING, "tr", 4) == examples(TRAINING, "tr", 4)
    assert {row["language"] for row in examples(TRAINING, "de", 8)} == {"tr", "en"}
    with pytest.raises(UserError, match="shots is 8 and there are 3 training records; lower shots"):
        examples(TRAINING[:3], "tr", 8)


def test_request_of_puts_examples_before_the_records_own_conversation() -> None:
    history = (
        '[{"role": "system", "content": "S"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'
    )
    request = request_of(ASKED[0] | {"history": history}, [instruction("one", "1", given="more")])
    assert request.question == "son soru"
    assert request.earlier.system == "S"
    assert request.earlier.turns == (Turn("one\nmore", "1"), Turn("q", "a"))


def test_prompted_gives_the_prompt_the_models_room_and_counts_prompts_that_lose_examples() -> None:
    narrow = task(60)
    wide = prompted(narrow, 1000, ASKED, TRAINING, 4)
    text = TOKENIZER.decode(wide.task.prompt(wide.requests[0]))
    assert (text.count("### Response:"), wide.cut) == (5, 0)
    cut = prompted(narrow, 60, ASKED, TRAINING, 4)
    assert cut.cut == 2
    assert len(cut.task.prompt(cut.requests[0])) <= 60


def test_prompted_without_examples_asks_the_record_alone() -> None:
    made = prompted(task(60), 1000, ASKED, [], 0)
    assert made.task.spec.max_prompt_tokens == 60
    assert [request.earlier.turns for request in made.requests] == [(), ()]
