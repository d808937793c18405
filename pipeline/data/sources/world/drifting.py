"""Drift of the embedded world's messages and instructions, by amounts: new words, new people, another share of spam,
and labels that change at unchanged texts.

Each record is drawn as without drift, and a part of it is exchanged with the amount's probability. So a drifted source
and its undrifted twin (the same settings with amounts of zero) differ in the exchanged parts alone.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.data.sources.world.facts import NAMES, World, shuffled
from pipeline.data.sources.world.instructions import instructions
from pipeline.data.sources.world.messages import HAM, SPAM, message

if TYPE_CHECKING:
    from pipeline.data.sources.world import Drift


def drifted_message(world: World, drift: "Drift", index: int, attempt: int) -> dict[str, str]:
    """Message number `index`, as `messages.message` gives it."""
    rng = world.rng("drift", index)
    new_words, new_people, spam, changed = (rng.random() for _ in range(4))
    about = strangers(world) if new_people < drift.people else world
    label = None if drift.spam is None else _redealt(SPAM if index % 2 else HAM, drift.spam, spam)
    record = message(about, index, attempt, label, new_words=new_words < drift.words)
    if changed < drift.labels:
        record["label"] = HAM if record["label"] == SPAM else SPAM
    return record


def _redealt(label: str, share: float, place: float) -> str:
    """The label of a message where a `share` is spam instead of half; `place` is its draw, uniform in [0, 1)."""
    rarer = HAM if share >= 0.5 else SPAM
    if label != rarer or place >= abs(2 * share - 1):
        return label
    return SPAM if rarer == HAM else HAM


def drifted_instructions(world: World, drift: "Drift", count: int) -> Iterator[dict[str, str]]:
    """Instructions of the world, a share of them exchanged for those about new people."""
    about_new = instructions(strangers(world), count)
    for index, (known, new) in enumerate(zip(instructions(world, count), about_new, strict=True)):
        yield new if world.rng("drift", "instruction", index).random() < drift.people else known


def strangers(world: World) -> World:
    """The world with other people, who have the same facts."""
    unused = shuffled([name for name in NAMES if name not in world.names], world.rng("drift", "people"))
    names = tuple((unused * len(world.names))[: len(world.names)])
    return replace(world, names=names, _slots={})
