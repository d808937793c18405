"""Saved states of a small training, damaged in 300 ways: every run must end with the bits of an unbroken one."""

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.training import state as states
from pipeline.training import state_locks
from tests.training.test_run import Log, trainer

PROMISE = "a damaged, foreign or incomplete training state is skipped with a warning; the run ends with equal bits"
COUNT = 300
STEPS, DIES_AT, EVERY = 12, 11, 3
NAMES = (states.MANIFEST, states.PROGRESS, states.TENSORS)
WRONG = (b"[]", b"{}", b"null", b"3", b'"text"', b"\xff\xfe\x00", b"[" * 100_000, b"", b'{"files": []}', b'{"step": ')
"""Contents that are no manifest and no progress."""


def plan(log: Log, **changes: Any) -> Any:
    """A small training that saves every three updates."""
    made = trainer(log, steps=STEPS, **changes)
    made.runtime = made.runtime.model_copy(update={"checkpoint_every": EVERY})
    return made


def killed(key: str, **changes: Any) -> Path:
    """The state folder of a training that died after three saves, in the working directory."""
    with contextlib.suppress(KeyboardInterrupt), state_locks.locked(key) as state:
        plan(Log(die_at=DIES_AT), **changes).run(state)
    return state_locks.STATE / key


def sealed(folder: Path) -> None:
    """Makes the manifest list the files as they are now: as if they had been saved so."""
    manifest = json.loads((folder / states.MANIFEST).read_text())
    manifest["files"] = {name: states._described(folder / name) for name in (states.PROGRESS, states.TENSORS)}
    (folder / states.MANIFEST).write_text(json.dumps(manifest))


def flipped(folder: Path, other: Path, rng: random.Random) -> None:
    path = folder / rng.choice(NAMES)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(folder: Path, other: Path, rng: random.Random) -> None:
    path = folder / rng.choice(NAMES)
    os.truncate(path, rng.randrange(path.stat().st_size))


def longer(folder: Path, other: Path, rng: random.Random) -> None:
    path = folder / rng.choice(NAMES)
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 50)))


def missing(folder: Path, other: Path, rng: random.Random) -> None:
    (folder / rng.choice(NAMES)).unlink()


def a_folder(folder: Path, other: Path, rng: random.Random) -> None:
    path = folder / rng.choice(NAMES)
    path.unlink()
    path.mkdir()


def a_link(folder: Path, other: Path, rng: random.Random) -> None:
    path = folder / rng.choice(NAMES)
    kept = shutil.copy(path, folder.parent / f"kept-{path.name}") if rng.random() < 0.7 else "nowhere"
    path.unlink()
    path.symlink_to(Path(kept).absolute())


def one_more(folder: Path, other: Path, rng: random.Random) -> None:
    (folder / rng.choice(("extra.json", ".hidden", "tensors.safetensors.1"))).write_bytes(b"{}")


def no_json(folder: Path, other: Path, rng: random.Random) -> None:
    (folder / rng.choice(NAMES[:2])).write_bytes(rng.choice(WRONG))


def no_progress_but_sealed(folder: Path, other: Path, rng: random.Random) -> None:
    path = folder / states.PROGRESS
    progress = json.loads(path.read_text())
    key = rng.choice(sorted(progress["progress"]))
    if rng.random() < 0.3:
        del progress["progress"][key]
    else:
        progress["progress"][key] = rng.choice(["x", {}, [[1]]])
    path.write_text(json.dumps(progress))
    sealed(folder)


def other_tensors_but_sealed(folder: Path, other: Path, rng: random.Random) -> None:
    path = folder / states.TENSORS
    tensors = load_file(path)
    name = rng.choice(sorted(name for name in tensors if not name.startswith("optimizer.")))
    tensor = tensors.pop(name)
    if rng.random() < 0.7:
        tensors[rng.choice((name, name + "x"))] = torch.zeros([*tensor.shape, 1], dtype=tensor.dtype)
    save_file(tensors, path, metadata={"key": folder.parent.name})
    sealed(folder)


def another_runs(folder: Path, other: Path, rng: random.Random) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def another_runs_file(folder: Path, other: Path, rng: random.Random) -> None:
    name = rng.choice(NAMES)
    shutil.copy(other / name, folder / name)
    if name != states.MANIFEST and rng.random() < 0.5:
        sealed(folder)


def another_steps(folder: Path, other: Path, rng: random.Random) -> None:
    oldest = sorted(folder.parent.glob("step-*"))[0]
    name = rng.choice(NAMES)
    if folder == oldest:
        folder.rename(folder.with_name("step-00000004"))
    else:
        shutil.copy(oldest / name, folder / name)


def no_folder(folder: Path, other: Path, rng: random.Random) -> None:
    shutil.rmtree(folder)
    rng.choice((folder.touch, folder.mkdir, lambda: folder.symlink_to("nowhere"), lambda: folder.symlink_to(other)))()


def half_saved(folder: Path, other: Path, rng: random.Random) -> None:
    folder.rename(folder.with_name(f".{folder.name}.new.tmp"))


def no_lock(folder: Path, other: Path, rng: random.Random) -> None:
    lock = folder.parent / "lock"
    lock.unlink()
    rng.choice((lock.mkdir, lambda: lock.symlink_to("nowhere")))()


def no_run(folder: Path, other: Path, rng: random.Random) -> None:
    shutil.rmtree(folder.parent)
    rng.choice((folder.parent.touch, lambda: folder.parent.symlink_to("nowhere")))()


DAMAGES: tuple[Callable[[Path, Path, random.Random], None], ...] = (
    flipped, flipped, cut, cut, longer, missing, a_folder, a_link, one_more, no_json, no_json, no_progress_but_sealed,
    other_tensors_but_sealed, another_runs, another_runs_file, another_steps, no_folder, half_saved, no_lock, no_run,
)  # fmt: skip
SILENT = {half_saved, no_lock, no_run}
"""After these there is nothing to skip."""


def run(count: int, folder: Path) -> dict[str, Any]:
    """Damages one to three of the three states, trains on, and compares weights and progress."""
    torch.use_deterministic_algorithms(True)
    with contextlib.chdir(folder):
        whole = plan(Log())
        expected = whole.run(None).as_json()
        weights = whole.model.state_dict()
        template = killed("run").rename(Path("template"))
        other = killed("other", learning_rate=2e-2).rename(Path("foreign"))
        misses, kinds, fallbacks = [], dict.fromkeys((damage.__name__ for damage in DAMAGES), 0), 0
        for number in range(count):
            rng = random.Random(number)
            shutil.copytree(template, state_locks.STATE / "run", symlinks=True)
            newest = sorted((state_locks.STATE / "run").glob("step-*"), reverse=True)
            damage = DAMAGES[number % len(DAMAGES)]
            kinds[damage.__name__] += 1
            for one in newest[: 1 if damage in SILENT else rng.choice((1, 1, 2, 3))]:
                damage(one, (other / one.name).absolute(), rng)
            again, said = plan(Log()), io.StringIO()
            try:
                with contextlib.redirect_stderr(said), state_locks.locked("run") as state:
                    progress = again.run(state)
                resumed = again.log.record["resumed_at_step"]
                fallbacks += 0 < resumed < int(newest[0].name[-8:])
                if progress.as_json() != expected or any(
                    not torch.equal(tensor, weights[name]) for name, tensor in again.model.state_dict().items()
                ):
                    raise AssertionError("other bits")
                if damage not in SILENT and "warning: " not in said.getvalue():
                    raise AssertionError("nothing was said")
            except Exception as error:
                misses.append(f"{number} {damage.__name__}: {type(error).__name__}: {error}"[:200])
            states.remove(state_locks.STATE / "run")
    held = count - len(misses)
    return {"tried": count, "held": held, "kinds": kinds, "continued_from_older": fallbacks, "misses": misses[:5]}


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
