"""A dvc.lock cut off at 300 places, as a kill of dvc while it writes the file in place leaves it."""

import os
import random
from pathlib import Path
from typing import Any

from pipeline.orchestration import dvc_lock
from tests import scratch

PROMISE = "dvc.lock cut off anywhere: after the repair DVC reads it and runs the stages that are not in it"
COUNT = 300
_REPRODUCED = 5
"""Of the cuts, how many are followed by a whole `dvc repro`, which takes seconds."""


def made(folder: Path) -> Path:
    """A small DVC project that has run: several stages, two of them from a `foreach`, params, a path in Turkish."""
    project = scratch.template(folder)
    stages = (project / "dvc.yaml").read_text(encoding="utf-8")
    (project / "dvc.yaml").write_text(stages.replace("source.txt", "kaynak ışık.txt"), encoding="utf-8")
    (project / "source.txt").rename(project / "kaynak ışık.txt")
    assert scratch.dvc(project, "repro").returncode == 0
    return project


def refused(project: Path) -> str | None:
    """What DVC says against the project's lock file; None if it takes it."""
    from dvc.repo import Repo

    try:
        with Repo(str(project)) as repo:
            repo.status()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def run(count: int, folder: Path) -> dict[str, Any]:
    """Cuts, repairs, and asks DVC; the first few are run to the end and must give the lock file of before."""
    os.environ |= {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
    project = made(folder / "project")
    lock = project / "dvc.lock"
    whole = lock.read_bytes()
    places = random.Random(20).sample(range(len(whole)), min(count, len(whole)))
    misses, repaired, kept = [], 0, 0
    for number, place in enumerate(places):
        lock.write_bytes(whole[:place])
        try:
            done = dvc_lock.repair(project)
        except Exception as error:
            misses.append(f"cut at {place}: {type(error).__name__}: {error}")
            continue
        repaired += bool(done)
        kept += bool(done) and lock.exists()
        found = refused(project)
        if not found and number < _REPRODUCED:
            ran = scratch.dvc(project, "repro")
            equal = lock.exists() and lock.read_bytes() == whole
            found = None if equal else f"another lock file after dvc repro: {ran.stderr[-200:]}"
        if found:
            misses.append(f"cut at {place}: {found}"[:200])
    lock.write_bytes(whole)
    tried = len(places)
    held = tried - len(misses)
    return {"tried": tried, "held": held, "repaired": repaired, "kept_whole_stages": kept, "misses": misses[:5]}


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
