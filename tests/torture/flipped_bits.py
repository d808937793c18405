"""One random bit of a random file of a finished project turned over, then each stage that reads the file is run."""

import os
import random
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from tests import damage

PROMISE = "a flipped bit in any file that a stage wrote stops each stage that reads it, in one sentence"
COUNT = 300


def run(count: int, folder: Path) -> dict[str, Any]:
    """Tries `count` flips, one at a time. Pages and run records, which no stage reads, are not drawn."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        damage.finish(folder)
        read = [path for path in damage.outs(folder) if damage.readers(path)]
        rng, misses, refusals = random.Random(20), list[str](), 0
        for _ in range(count):
            path, bit = rng.choice(read), rng.randrange(8)
            byte = rng.randrange(path.stat().st_size)
            stages = damage.readers(path)
            with damage.flipped(path, byte, bit):
                said = [(stage, _refusal(stage, path)) for stage in stages]
            refusals += len(said)
            misses += [f"{path} byte {byte} bit {bit}: {stage} {why}" for stage, why in said if why][:1]
        unread = sorted({path.parts[1] for path in damage.outs(folder) if not damage.readers(path)})
    finally:
        os.chdir(before)
    return {
        "tried": count, "held": count - len(misses), "misses": misses[:5], "refusals": refusals, "files": len(read),
        "unread": unread,
    }  # fmt: skip


def _refusal(stage: str, path: Path) -> str:
    """Empty if the stage refused the file in one sentence; else what happened."""
    try:
        damage.run(stage)
    except UserError as error:
        named = path.as_posix() in str(error) or path.parent.as_posix() in str(error)
        return "" if named and "\n" not in str(error) else f"said {error}"
    except (Exception, SystemExit) as error:
        return f"ended with {type(error).__name__}: {error}"
    return "noticed nothing"


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
