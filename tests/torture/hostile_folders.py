"""Hostile and damaged model folders, in seeded variants of every kind of the catalogue in tests/hostile.py.

Each is brought to the doors that a user meets (pin, fetch without and with a pin, load, adopting the tokenizer), in
this process: a crash, a traceback, code that ran, memory that grew or a folder that was taken is a miss.
"""

import resource
import shutil
from pathlib import Path
from typing import Any

from tests import hostile

PROMISE = "A hostile or damaged model folder is refused in one sentence, before memory is taken or code is run."
COUNT = 300
GROWTH_MB = 200
"""Most that the peak of memory may grow by while a folder is refused."""


def run(count: int, folder: Path) -> dict[str, Any]:
    """Tries `count` variants, the catalogue round by round."""
    names = list(hostile.CATALOGUE)
    for seed in range(8):  # what a good folder costs is no growth
        place = folder / f"good-{seed}"
        found = hostile.refusal(hostile.good(place / "model", seed))
        if found is not None:
            raise AssertionError(f"a good folder was refused: {found}")
        shutil.rmtree(place)
    misses = []
    for number in range(count):
        name, seed = names[number % len(names)], number // len(names)
        if miss := attempt(name, seed, folder / f"{name}-{seed}"):
            misses.append(f"{name} {seed}: {miss}")
    return {"tried": count, "held": count - len(misses), "kinds": len(names), "misses": misses[:5]}


def attempt(name: str, seed: int, place: Path) -> str | None:
    """Why one variant was not refused as promised; None if it was."""
    made = hostile.variant(name, place / "model", seed)
    before = _peak_mb()
    try:
        said = hostile.refusal(made)
    except BaseException as error:  # whatever it is, a panic of a library too
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"[:200]
    grown = _peak_mb() - before
    canary = (place / hostile.CANARY).exists()
    shutil.rmtree(place)
    if said is None:
        return "was taken"
    if not said.isprintable() or len(said) > 900 or str(place) not in said:
        return f"no sentence that names the file: {said[:200]!r}"
    if canary:
        return "ran code"
    return f"took {grown} MB" if grown > GROWTH_MB else None


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
