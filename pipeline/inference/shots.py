"""Few-shot prompting (Brown et al. 2020): training records before a question, as earlier turns of the conversation."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.data import conversations
from pipeline.data.conversations import Earlier, Turn
from pipeline.errors import UserError
from pipeline.prompts import templates
from pipeline.prompts.request import Request
from pipeline.seeds import seed_for
from pipeline.tasks import Answering

Record = Mapping[str, Any]
"""A record of instructions."""
_UNCUT = 1 << 20  # limit of a prompt in tokens with which no turn is dropped


def examples(training: Sequence[Record], language: str, shots: int) -> list[Record]:
    """Training records to show before a question, of its language where there are enough: the same for all questions.

    Raises:
        UserError: fewer training records than examples.
    """
    alike = [row for row in training if row["language"] == language]
    pool = alike if len(alike) >= shots else list(training)
    if len(pool) < shots:
        raise UserError(f"shots is {shots} and there are {len(pool)} training records; lower shots")
    return random.Random(seed_for(1, "shots", language)).sample(pool, shots)


def request_of(record: Record, shown: Sequence[Record]) -> Request:
    """The question of a record after examples, which come before the earlier turns of its own conversation."""
    before = tuple(Turn(Request(row["instruction"], row["input"]).text, row["output"]) for row in shown)
    system, turns = conversations.earlier(record.get("history"))
    return Request(record["instruction"], record["input"], Earlier(system, (*before, *turns)))


class Prompted(NamedTuple):
    """Questions with their examples."""

    task: Answering
    """The task, with the model's whole room for the prompt where there are examples."""
    requests: list[Request]
    cut: int
    """Prompts that are too long all the same: they lose their first examples."""


def prompted(task: Answering, room: int, rows: Sequence[Record], training: Sequence[Record], shots: int) -> Prompted:
    """The requests of records, each after `shots` examples of the training records.

    Args:
        task: of the model.
        room: positions of the model that an answer leaves for the prompt.
        rows: records of instructions to ask.
        training: records that examples are drawn from.
        shots: examples in a prompt.

    Raises:
        UserError: fewer training records than examples.
    """
    if not shots:
        return Prompted(task, [Request.of_record(row) for row in rows], 0)
    limit = max(task.spec.max_prompt_tokens or 0, room)
    wide = type(task)(task.spec.model_copy(update={"max_prompt_tokens": limit}), task.tokenizer)
    shown = {code: examples(training, code, shots) for code in {row["language"] for row in rows}}
    requests = [request_of(row, shown[row["language"]]) for row in rows]
    return Prompted(wide, requests, sum(_is_cut(wide, request) for request in requests))


def _is_cut(task: Answering, request: Request) -> bool:
    template = task.spec.template
    assert template is not None
    whole = templates.prompt(task.tokenizer, template, request, _UNCUT, learns_earlier=False).ids
    return whole != task.prompt(request)
