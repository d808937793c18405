"""Random damage to the working folder, the cache and a remote of a small DVC project: found by fsck, then mended."""

import random
from pathlib import Path
from typing import Any

from pipeline.orchestration import dvc_mend
from pipeline.orchestration.dvc_scan import Scan
from tests.damage import flip
from tests.stored import project

PROMISE = (
    "fsck finds every flipped bit, truncation, deletion and addition, and mends it from another copy; a remote's "
    "missing or additional files (a push?) and changed files under `dvc add` (an edit?) are named and left as they are"
)
COUNT = 300
KINDS = ("flip", "truncate", "delete", "add")


def run(count: int, folder: Path) -> dict[str, Any]:
    """Tries `count` faults, one at a time; each must be named, and everything be as before once mended."""
    root = project(folder)
    whole = {path: path.read_bytes() for path in Scan.of(root).hashes}
    rng, misses, places = random.Random(20), list[str](), dict[str, int]()
    for number in range(count):
        kind, path = KINDS[number % len(KINDS)], rng.choice(sorted(whole))
        if kind == "add" and not ("words" in path.parts or "md5" in path.parts):
            path = root / "data/words/a.bin"
        hurt = _harm(kind, path, rng)
        found = Scan.of(root).mismatches()
        named = any((root / one.path).resolve() == hurt.resolve() for one in found)
        where = found[0].where.split()[0] if found else "nowhere"
        places[where] = places.get(where, 0) + 1
        dvc_mend.mend(Scan.of(root))
        if path.name == "record.json":  # DVC keeps no copy of it
            path.write_bytes(whole[path])
        parts = hurt.relative_to(folder).parts
        if ("remote" in parts and kind in ("delete", "add")) or ("inputs" in parts and kind != "delete"):
            _undo(kind, hurt, whole)
        now = {one: one.read_bytes() for one in Scan.of(root).hashes}
        if not named or now != whole:
            misses.append(f"{kind} {hurt.relative_to(folder)}: {'not mended' if named else 'not found'}")
            for one in set(now) - set(whole):
                one.unlink()
            for one, content in whole.items():
                one.unlink(missing_ok=True)
                one.write_bytes(content)
    return {"tried": count, "held": count - len(misses), "misses": misses[:5], "places": places}


def _undo(kind: str, hurt: Path, whole: dict[Path, bytes]) -> None:
    """Takes back what fsck must leave; an error where it did not."""
    if kind == "add":
        hurt.unlink()
    else:
        assert not hurt.exists() if kind == "delete" else hurt.read_bytes() != whole[hurt]
        hurt.write_bytes(whole[hurt])


def _harm(kind: str, path: Path, rng: random.Random) -> Path:
    """Does the damage; returns the file that must be named."""
    size = path.stat().st_size
    path.chmod(0o644)
    if kind == "flip":
        flip(path, rng.randrange(size), rng.randrange(8))
    elif kind == "truncate":
        path.write_bytes(path.read_bytes()[: rng.randrange(size)])
    elif kind == "delete":
        path.unlink()
    else:
        path = path.with_name(f"{rng.randrange(10**9):x}")
        path.write_bytes(rng.randbytes(30))
    return path


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
