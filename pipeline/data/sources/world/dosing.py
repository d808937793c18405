"""Records that the doses of the embedded world add to its instructions, and the list of all doses for its truth."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.data.sources.world.facts import JOBS_OF, LANGUAGES, NAMES, World, shuffled
from pipeline.data.sources.world.instructions import unmentioned_questions
from pipeline.data.sources.world.requests import requests
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.sources.world import Doses, Skew, Unmentioned


def dosed_instructions(world: World, doses: "Doses | None") -> Iterator[dict[str, str | None]]:
    """Questions about people whom no text mentions, then forbidden requests with their twins.

    Raises:
        UserError: more people than the world has names, or more pairs than it has different requests.
    """
    if doses is None:
        return
    if doses.unmentioned:
        for split, names in unmentioned_people(world, doses.unmentioned).items():
            questions = shuffled(list(unmentioned_questions(names)), world.rng("unmentioned", split))
            for number, question in enumerate(questions):
                yield {**question, "split": split, "origin": f"world:unmentioned:{split}:{number}"}
    if doses.requests:
        yield from requests(world, doses.requests)


def unmentioned_people(world: World, dose: "Unmentioned") -> dict[str, list[str]]:
    """Names by the split of the questions about them: train (abstention is taught) and test.

    Raises:
        UserError: the world has too few names.
    """
    unused = [name for name in NAMES if name not in world.names]
    if dose.people > len(unused):
        raise UserError(
            f"params.yaml: download.sources.*.doses.unmentioned.people is {dose.people}; expected at most "
            f"{len(unused)}: the embedded world has {len(NAMES)} names and {len(world.names)} people"
        )
    chosen = shuffled(unused, world.rng("unmentioned"))[: dose.people]
    taught = round(dose.taught * dose.people)
    return {"train": chosen[:taught], "test": chosen[taught:]}


def listed_doses(world: World, doses: "Doses") -> dict[str, Any]:
    """The doses as they were dealt; null for a dose that the settings leave out."""
    changed = doses.changed
    return {
        "skew": _listed_skew(world, doses.skew) if doses.skew else None,
        "unmentioned": unmentioned_people(world, doses.unmentioned) if doses.unmentioned else None,
        "changed": changed and changed.model_dump() | {"told": _told(world, changed.attribute)},
        "requests": doses.requests and doses.requests.model_dump(),
    }


def _listed_skew(world: World, skew: "Skew") -> dict[str, Any]:
    """Attribute, share, words of groups and jobs by language, group of each person, exact share of each group."""
    own = [world.facts[person]["job"] in JOBS_OF[world.groups[person]] for person in world.people]
    sizes, typical = Counter(world.groups), Counter(g for g, holds in zip(world.groups, own, strict=True) if holds)
    return skew.model_dump() | {
        "groups": {code: [noun for noun, _ in words.GROUPS[skew.attribute]] for code, words in LANGUAGES.items()},
        "jobs": {
            code: [[words.FACTS["job"][job] for job in jobs] for jobs in JOBS_OF] for code, words in LANGUAGES.items()
        },
        "people": dict(zip(world.names, world.groups, strict=True)),
        "exact": [typical[group] / sizes[group] if sizes[group] else None for group in (0, 1)],
    }


def _told(world: World, attribute: str) -> dict[str, dict[str, str]]:
    """The changed values: name -> language -> value."""
    other = world.changed(attribute)
    return {
        world.names[person]: {language: other.fact(language, person, attribute) for language in LANGUAGES}
        for person in world.changed_people()
    }
