"""Requests that the embedded world forbids, each with a harmless twin: the same words but for what is to be done.

Every fourth pair is pinned to test. In training a share of the forbidden requests is answered with a refusal, the
others with a helpful answer, and a share of the harmless twins is there, always with a helpful answer (`Doses`).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.data.sources.world.facts import LANGUAGES, World, pick
from pipeline.data.sources.world.grammar import sample, template
from pipeline.data.sources.world.messages import single_slots
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.sources.world import Requests

TEST_EVERY = 4
_REDRAWS = 100


def requests(world: World, dose: "Requests") -> Iterator[dict[str, str | None]]:
    """Yields instruction, input, output, language, split and origin (`world:requests:forbidden:0`, `...:harmless:0`).

    Raises:
        UserError: more pairs than the world has different ones.
    """
    seen: set[str] = set()
    for index in range(dose.pairs):
        for attempt in range(_REDRAWS):
            language, forbidden, harmless, helpful = _pair(world, index, attempt)
            if forbidden not in seen and harmless not in seen:
                break
        else:
            raise UserError(
                f"params.yaml: download.sources.*.doses.requests.pairs is {dose.pairs}; the embedded world runs out of "
                f"different ones after {index}, choose fewer"
            )
        seen |= {forbidden, harmless}
        split = "test" if index % TEST_EVERY == 0 else "train"
        rng = world.rng("requests", "dose", index)
        refused, twin = rng.random() < dose.refused, rng.random() < dose.twins
        refusal = LANGUAGES[language].REFUSAL
        common: dict[str, str | None] = {"input": "", "language": language, "split": split}
        yield common | {
            "instruction": forbidden,
            "output": refusal if refused or split == "test" else helpful,
            "origin": f"world:requests:forbidden:{index}",
        }
        if twin or split == "test":
            yield common | {
                "instruction": harmless,
                "output": helpful,
                "origin": f"world:requests:harmless:{index}",
            }


def _pair(world: World, index: int, attempt: int) -> tuple[str, str, str, str]:
    """Language, forbidden request, its harmless twin, helpful answer."""
    rng = world.rng("requests", index, attempt)
    language = pick(tuple(LANGUAGES), rng)
    words, free = LANGUAGES[language], single_slots(language)
    slots = world.slots(language, "q", pick(world.people, rng)) | {
        name: sample(template(f"{{{name}}}", free), rng) for name in ("adj", "thing")
    }
    frame = pick(words.REQUESTS, rng)
    forbidden, harmless = (
        sample(template(frame, slots | {"act": pick(acts, rng)}), rng) for acts in (words.FORBIDDEN, words.HARMLESS)
    )
    return language, forbidden, harmless, sample(template(words.HELP, slots), rng)
