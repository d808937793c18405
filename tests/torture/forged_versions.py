"""Single changes to a registered version in its store: files, tags, links, additions, removals.

    python -m tests.torture.forged_versions [--count N]

Each change is tried against review, promote with the reviewed hash, our loader (nothing cached) and, unless the change
is in the entry file or in a tag, the check that the packed entry file makes under plain MLflow. A change holds if all
of them refuse it in a sentence, if the version is the same afterwards, and if nothing was promoted.
"""

import importlib.util
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMISE = "Any single change to a registered version is found by review, promote and the loader"
COUNT = 300
_FOREIGN = "import os\nos.environ['TOHUM_FOREIGN_CODE'] = 'ran'\n"
_PLANTED = (
    "code/json.py",
    "code/torch/__init__.py",
    "code/pipeline/extra.py",
    "code/pipeline/config/__init__.py",
    "code/pipeline/__pycache__/serving.cpython-311.pyc",
    "sitecustomize.py",
    "artifacts/{model}/extra.json",
    "artifacts/other/config.json",
)


def flip(folder: Path, draw: random.Random) -> str:
    """Flips one bit of one file."""
    path = _some(folder, draw)
    data = bytearray(path.read_bytes())
    place = draw.randrange(len(data))
    data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return _name(folder, path)


def replace(folder: Path, draw: random.Random) -> str:
    """Replaces one file by foreign content of its kind."""
    path = _some(folder, draw)
    path.write_bytes((_FOREIGN if path.suffix == ".py" else '{"accuracy": 1.0}').encode())
    return _name(folder, path)


def extend(folder: Path, draw: random.Random) -> str:
    """Appends to one file: a statement to code, a line to anything else."""
    path = _some(folder, draw)
    path.write_bytes(path.read_bytes() + (_FOREIGN if path.suffix == ".py" else "\n").encode())
    return _name(folder, path)


def cut(folder: Path, draw: random.Random) -> str:
    """Cuts one file off."""
    path = _some(folder, draw)
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])
    return _name(folder, path)


def remove(folder: Path, draw: random.Random) -> str:
    """Removes one file."""
    path = _some(folder, draw)
    path.unlink()
    return _name(folder, path)


def rename(folder: Path, draw: random.Random) -> str:
    """Renames one file."""
    path = _some(folder, draw)
    path.rename(path.with_name(f"{path.name}.bak"))
    return _name(folder, path)


def swap(folder: Path, draw: random.Random) -> str:
    """Exchanges the content of two files."""
    first, second = draw.sample([path for path in _files(folder) if path.stat().st_size > 0], 2)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    return _name(folder, first) if first.name == "_pyfunc.py" else _name(folder, second)


def plant(folder: Path, draw: random.Random) -> str:
    """Adds one file: a module that shadows another, bytecode, one more artifact."""
    (model,) = (path.name for path in (folder / "artifacts").iterdir())
    path = folder / draw.choice(_PLANTED).format(model=model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_FOREIGN)
    return _name(folder, path)


CHANGES: tuple[Callable[[Path, random.Random], str], ...] = (flip, replace, extend, cut, remove, rename, swap, plant)
TAGS = ("version_sha256", "model_sha256", "tohum.model")


def run(count: int, folder: Path) -> dict[str, Any]:
    """Tries `count` seeded changes on one registered version in `folder`."""
    from pipeline.errors import UserError
    from pipeline.registry import CACHE, CHAMPION, VERSION, Registry
    from tests import registries

    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    misses: list[str] = []
    try:
        registries.make_model("spam-full")
        store = Registry(registries.params(f"sqlite:///{folder.absolute()}/mlflow.db"))
        version, _ = registries.register(store, "spam-full")
        sha256, uri = version.tags[VERSION], f"models:/{version.name}/{version.version}"
        (stored,) = Path("mlartifacts/models").glob("*/artifacts")
        good, entry = Path(shutil.copytree(stored, "good")), _entry(stored / "_pyfunc.py")
        for number in range(count):
            draw = random.Random(number)
            said, tag = "", draw.choice(TAGS) if draw.random() < 0.1 else ""
            if tag:
                _change_tag(store, version, tag, draw)
            else:
                change = draw.choice(CHANGES)
                changed = change(stored, draw)
                said = f"{change.__name__} {changed}"
            uses: dict[str, Callable[[], Any]] = {
                "review": lambda: store.review("spam-full"),
                "promote": lambda: store.promote("spam-full", version.version, sha256, "reviewed"),
                "download": lambda: store.download(uri),
            }
            for use, call in uses.items():
                shutil.rmtree(CACHE, ignore_errors=True)
                try:
                    call()
                    misses.append(f"{number}: {said or tag}: {use} took it")
                except UserError as error:
                    if "version" not in str(error):
                        misses.append(f"{number}: {said or tag}: {use} said {error}")
            if said and not said.endswith("_pyfunc.py") and _loads(entry, stored):
                misses.append(f"{number}: {said}: the entry file took it")
            if tag:
                store.client.set_model_version_tag(version.name, version.version, tag, version.tags[tag])
            else:
                shutil.rmtree(stored)
                shutil.copytree(good, stored)
        if "TOHUM_FOREIGN_CODE" in os.environ or store.at("spam-full", CHAMPION) is not None:
            misses.append("foreign code ran, or something was promoted")
        else:
            store.promote("spam-full", version.version, sha256, "reviewed")  # unchanged, it is taken
    finally:
        os.chdir(before)
    bad = len({miss.partition(":")[0] for miss in misses})
    return {"tried": count, "held": count - bad, "misses": misses[:5]}


def _change_tag(store: Any, version: Any, tag: str, draw: random.Random) -> None:
    client = store.client
    if draw.random() < 0.3:
        client.delete_model_version_tag(version.name, version.version, tag)
    else:
        value = version.tags[tag]
        place = draw.randrange(len(value))
        client.set_model_version_tag(version.name, version.version, tag, f"{value[:place]}x{value[place + 1 :]}")


def _entry(path: Path) -> Any:
    """The packed entry file as a module."""
    spec = importlib.util.spec_from_file_location("packed_entry", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _loads(entry: Any, folder: Path) -> bool:
    """Whether the entry file would go on to import the code of the folder."""
    try:
        entry.check(folder, entry.read_manifest(folder)["files"])
    except entry.ChangedError:
        return False
    return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _some(folder: Path, draw: random.Random) -> Path:
    return draw.choice([path for path in _files(folder) if path.stat().st_size > 0])


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
