"""Prompts to rate answers to: of the training and validation splits, or of the user; never of the test split."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.params import Split
from pipeline.config.recipe import Kind
from pipeline.data import conversations, judgements, language
from pipeline.data.conversations import Message
from pipeline.data.records import SPLITS
from pipeline.data.split import split_of
from pipeline.errors import UserError
from pipeline.prompts.request import Request
from pipeline.seeds import seed_for

_EVERY = 8
_KINDS: tuple[Kind, ...] = ("preferences", "instructions")


@dataclass(frozen=True)
class Asked:
    """A prompt: a question after the earlier messages of its conversation."""

    messages: tuple[Message, ...]
    """Ends with the user's."""

    @property
    def text(self) -> str:
        """The question; of a conversation all messages, each with its role."""
        if len(self.messages) == 1:
            return self.messages[0].text
        return "\n\n".join(f"{message.role}: {message.text}" for message in self.messages)

    @property
    def request(self) -> Request:
        """The prompt as a task takes it, and as a server would have it."""
        return Request.of_messages(self.as_json())

    @property
    def history(self) -> str:
        """JSON of the earlier messages, as records have it; empty for none."""
        return conversations.dumped(self.messages[:-1])

    def as_json(self) -> list[dict[str, str]]:
        """The messages of a journal's request."""
        return [{"role": message.role, "content": message.text} for message in self.messages]


class Chosen(NamedTuple):
    """Prompts in the order in which they are asked."""

    prompts: tuple[Asked, ...]
    left_out: int
    """Number of the user's prompts that test records have too."""


def of_records(samples: Path, split: Split, seed: int, *purpose: str) -> Chosen:
    """The different prompts of instructions and preferences, shuffled; none of the test split.

    They are the training split's, and of the validation split those whose ratings are held out too: a rating is in the
    split of its prompt's hash. Every eighth prompt is held out as long as there are such, so that a round can be told
    from chance (measure rated_pairs).

    Args:
        samples: the folder data/samples.
        split: shares and seed of the splits.
        seed: of the order.
        purpose: further parts of the seed, such as the round's name.

    Raises:
        UserError: there are none.
    """
    held_out = {_key(asked) for asked in _read(samples, "test")}
    trained = {_key(asked): asked for asked in _read(samples, "train")}
    validated = {_key(asked): asked for asked in _read(samples, "validation")}
    learned: list[Asked] = []
    checked: list[Asked] = []
    for key, asked in (validated | trained).items():
        is_learned = split_of(_prompt_id(asked), split) == "train"
        if key not in held_out and (key in trained or not is_learned):
            (learned if is_learned else checked).append(asked)
    if not learned and not checked:
        raise UserError(
            f"{samples}: has no instructions or preferences in its training split; run `dvc repro sample`, or give "
            "prompts of your own: --prompts FILE"
        )
    draw = random.Random(seed_for(seed, "rated prompts", *purpose))
    draw.shuffle(learned)
    draw.shuffle(checked)
    return Chosen(tuple(_interleaved(learned, checked)), 0)


def _interleaved(learned: list[Asked], checked: list[Asked]) -> Iterator[Asked]:
    """Both lists in their order, every eighth prompt of the second as long as there are any."""
    first, second = iter(learned), iter(checked)
    for place in range(len(learned) + len(checked)):
        turns = (second, first) if place % _EVERY == _EVERY - 1 else (first, second)
        asked = next(turns[0], None) or next(turns[1], None)
        assert asked is not None
        yield asked


def _prompt_id(asked: Asked) -> str:
    """The hash by which a journal's records of this prompt are split."""
    question = asked.messages[-1].text
    return judgements.prompt_id(question, language.guess(question), asked.history)


def of_texts(texts: Iterable[str], samples: Path) -> Chosen:
    """The user's prompts in their order, each once, without those of test records."""
    held_out = {_key(asked) for asked in _read(samples, "test")}
    given = {_key(asked): asked for asked in (Asked((Message("user", text),)) for text in texts if text.strip())}
    kept = [asked for key, asked in given.items() if key not in held_out]
    if not kept:
        raise UserError("--prompts: every prompt is empty or that of a test record; give others")
    return Chosen(tuple(kept), len(given) - len(kept))


def judged_pairs(samples: Path) -> Iterator[tuple[Asked, tuple[str, str]]]:
    """Prompt and both answers of every preference in data/samples."""
    import pyarrow.parquet as pq

    for split in SPLITS:
        path = samples / "preferences" / f"{split}.parquet"
        if path.is_file():
            columns = ["instruction", "input", "history", "chosen", "rejected"]
            for batch in pq.ParquetFile(path).iter_batches(columns=columns):
                yield from ((_of_record(row), (row["chosen"], row["rejected"])) for row in batch.to_pylist())


def _read(samples: Path, split: str) -> Iterator[Asked]:
    """The prompts of a split's records; none where a kind is not there."""
    import pyarrow.parquet as pq

    for kind in _KINDS:
        path = samples / kind / f"{split}.parquet"
        if not path.is_file():
            continue
        for batch in pq.ParquetFile(path).iter_batches(columns=["instruction", "input", "history"]):
            yield from map(_of_record, batch.to_pylist())


def _of_record(record: dict[str, Any]) -> Asked:
    """The prompt of a record; its input follows the instruction, as a person would write both in one message."""
    earlier = conversations.earlier(record["history"])
    said = [Message("system", earlier.system)] if earlier.system else []
    for turn in earlier.turns:
        said += [Message("user", turn.question), Message("assistant", turn.answer)]
    text = "\n".join(part for part in (record["instruction"], record["input"]) if part)
    return Asked((*said, Message("user", text)))


def _key(asked: Asked) -> tuple[str, str]:
    """Equal for prompts that differ in letter case or spaces only."""
    question = asked.messages[-1].text
    return language.normal(question, language.guess(question)), asked.history
