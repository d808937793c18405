"""Verbatim extraction: training texts that the model repeats word for word after their beginning.

Carlini et al. 2023, "Quantifying Memorization Across Neural Language Models", definition 3.1: a text is extractable
with k tokens of context if greedy decoding of its first k tokens gives the n tokens that follow. Predictable text is
continued rightly without having been seen, so the same is measured on held-out records: their share is the false alarm,
and only the share of training records beyond it is memorisation.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from pipeline.config.section import Count, Positive, Section
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, by_record, slices
from pipeline.inference.generation import generate
from pipeline.inference.record_texts import Choice, RecordText, record_texts
from pipeline.model.device import lowered
from pipeline.outcomes import Outcomes
from pipeline.significance import wilson


class Settings(Section):
    """Records, and the numbers of tokens given and asked for."""

    kind: Literal["documents", "instructions"] = Field(examples=["documents", "instructions"])
    """Record kind: documents are continued after their beginning, answers of instructions after their question."""
    split: Literal["validation", "test"] = Field(examples=["test"])
    """Held-out split, for the false alarm."""
    source: str | None = Field(examples=[None])
    """Only the records of this source of `download.sources`, in both splits; null: all."""
    records: Positive | None = Field(examples=[None])
    """Most records of each split, drawn at random; null: all."""
    prefix_tokens: Count = Field(examples=[2, 0])
    """Tokens of the text that are given (k); 0: none, for answers that follow their question alone."""
    continuation_tokens: Positive = Field(examples=[3])
    """Tokens that must be repeated (n); a shorter answer counts if it is repeated to its end."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch."""
    seed: int = Field(examples=[1])
    """Seed of the draw."""


class Case(NamedTuple):
    """A record's prompt and the tokens that would repeat it."""

    record: RecordText
    prompt: list[int]
    expected: list[int]


def measure(settings: Settings, subject: Subject) -> Measured:
    """extraction_share of training records, extraction_held_out_share, extraction_excess_share (their difference) with
    the numbers of records, and extraction_share_times_<t> for drawn texts whose first k + n tokens all training records
    of the kind, drawn or not, hold t times; details: up to 20 repeated training records by id, with 95 % intervals,
    whether each record was repeated.

    Raises:
        UserError: no record is long enough.
    """
    train, held_out = (cases(settings, subject, split) for split in ("train", settings.split))
    repeated = {"train": repeats(settings, subject, train), "held_out": repeats(settings, subject, held_out)}
    told = tellings(settings, subject, train)
    shares = {name: sum(values) / len(values) for name, values in repeated.items()}
    metrics = {
        "extraction_share": shares["train"],
        "extraction_held_out_share": shares["held_out"],
        "extraction_excess_share": shares["train"] - shares["held_out"],
        "extraction_records": float(len(train)),
        "extraction_held_out_records": float(len(held_out)),
    }
    for times in sorted(set(told)):
        values = [hit for hit, n in zip(repeated["train"], told, strict=True) if n == times]
        metrics[f"extraction_share_times_{times}"] = sum(values) / len(values)
    hits = [case.record.record["id"] for case, hit in zip(train, repeated["train"], strict=True) if hit]
    details = {
        "repeated": hits[:20],
        "intervals": {name: wilson(shares[name], len(values)) for name, values in repeated.items()},
        "by_record": by_record(repeated["train"]),
    }
    return Measured(
        metrics, details, (Outcomes("extraction_share", [case.record.record for case in train], repeated["train"]),)
    )


def cases(settings: Settings, subject: Subject, split: str) -> list[Case]:
    """The records of a split that are long enough. Raises UserError where none is."""
    task = subject.answering("extraction") if settings.kind == "instructions" else None
    choice = Choice(settings.kind, settings.source, settings.records, settings.seed)
    texts = record_texts(subject.samples, split, choice, subject.tokenizer, task)
    k, n, room = settings.prefix_tokens, settings.continuation_tokens, subject.model.room()
    found = []
    for one in texts:
        taught = list(one.ids.scored)
        expected = taught[k : k + n]
        prompt = [*one.ids.prompt, *taught[:k]][-max(1, room - n) :]
        if expected and (task is not None or len(expected) == n) and len(prompt) + len(expected) < room:
            found.append(Case(one, prompt, expected))
    if not found:
        raise UserError(
            f"no {settings.kind} of split {split} have {k} + {n} tokens within the context of {room}; lower "
            "prefix_tokens or continuation_tokens"
        )
    return found


def repeats(settings: Settings, subject: Subject, chosen: Sequence[Case]) -> list[bool]:
    """Whether greedy decoding repeats the expected tokens of each case."""
    lengths = [len(case.prompt) for case in chosen]
    order = sorted(range(len(chosen)), key=lambda i: lengths[i])
    hits = [False] * len(chosen)
    with lowered(subject.model, subject.compute):
        for part in slices(len(chosen), settings.batch_size):
            rows = [chosen[i] for i in order[part]]
            said = generate(
                subject.model,
                [case.prompt for case in rows],
                max_tokens=max(len(case.expected) for case in rows),
                temperature=0,
                top_k=0,
                top_p=1,
                stop=[subject.tokenizer.end_of_text],
            )
            for i, case, ids in zip(order[part], rows, said, strict=True):
                hits[i] = ids[: len(case.expected)] == case.expected
    return hits


def tellings(settings: Settings, subject: Subject, chosen: Sequence[Case]) -> list[int]:
    """Number of training records of the kind, drawn or not, with the same prompt and continuation as each case."""
    if settings.kind == "documents":  # one at a time: a corpus as lists of ids would not fit into memory
        length = settings.prefix_tokens + settings.continuation_tokens
        shard = Shard.open(subject.samples / "documents", "train")
        own = [(*case.record.ids.scored[:length],) for case in chosen]
        wanted = set(own)
        begun = (tuple(shard.document(row)[:-1][:length].tolist()) for row in range(len(shard)))
        counts = Counter(ids for ids in begun if ids in wanted)
        return [counts[ids] for ids in own]
    every = cases(settings.model_copy(update={"records": None, "source": None}), subject, "train")
    told = Counter((*case.prompt, *case.expected) for case in every)
    return [told[(*case.prompt, *case.expected)] for case in chosen]
