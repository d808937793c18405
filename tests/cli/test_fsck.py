"""Damage that DVC hands on is found, and mended from whichever copy is good; nothing is deleted.

Counts: `python -m tests.torture.fsck`.
"""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.cli.fsck import registry_mismatches
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.orchestration import dvc_lock, dvc_mend
from pipeline.orchestration.dvc_scan import Scan
from tests.commands import tohum
from tests.damage import flip, small_params
from tests.stored import dvc, project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("stored")).parent


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project and its remote, as they were made."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy/project")
    return tmp_path / "copy/project"


def found(root: Path) -> list[tuple[str, str, str]]:
    return [(one.where, one.path, one.state) for one in Scan.of(root).mismatches()]


def lies(root: Path, path: str, where: str = "cache") -> Path:
    """The object of an out or of a file in one."""
    scan = Scan.of(root)
    md5 = next(md5 for md5, name in scan.needed().items() if name == path)
    return next(store for store in scan.stores if store.name.startswith(where)).place(md5)


def test_scan_has_no_mismatch_when_the_project_is_whole(root: Path) -> None:
    assert found(root) == []


def test_mend_restores_a_flipped_bit_in_the_working_folder(root: Path) -> None:
    """DVC's own status and checkout see nothing."""
    path = root / "data/words/çay/ışık.bin"
    before = path.read_bytes()
    assert "up to date" in dvc(root, "status")
    flip(path, 99, 3)
    assert "up to date" in dvc(root, "status")
    dvc(root, "checkout", "--force", "data/words")
    assert path.read_bytes() != before
    (one,) = Scan.of(root).mismatches()
    assert (one.where, one.path, one.state) == ("workspace", "data/words/çay/ışık.bin", "damaged")
    assert one.expected in one.sentence
    assert one.found in one.sentence
    path.unlink()
    dvc(root, "checkout", "data/words/çay/ışık.bin")  # what the sentence says
    assert "run `dvc checkout data/words/çay/ışık.bin`" in one.sentence
    assert path.read_bytes() == before
    flip(path, 99, 3)
    dvc_mend.mend(Scan.of(root))
    assert path.read_bytes() == before
    assert found(root) == []


@pytest.mark.parametrize("where", ["cache", "remote"])
@pytest.mark.parametrize("name", ["data/words", "data/words/c.bin", "metrics.json", "inputs/mine.csv"])
def test_mend_restores_a_flipped_object(name: str, where: str, root: Path) -> None:
    place = lies(root, name, where)
    before = place.read_bytes()
    flip(place, 5, 0)
    assert [(one[0].split()[0], one[2]) for one in found(root)] == [(where, "damaged")]
    dvc_mend.mend(Scan.of(root))
    assert place.read_bytes() == before
    assert found(root) == []
    if where == "cache":
        assert not place.stat().st_mode & 0o222


def test_mend_restores_an_object_from_the_remote_alone(root: Path) -> None:
    """The working folder and the cache hold the same bad bytes, as with linked caches."""
    path, place = root / "data/words/a.bin", lies(root, "data/words/a.bin")
    before = place.read_bytes()
    flip(place, 5, 0)
    path.unlink()
    path.hardlink_to(place)
    assert {one[0] for one in found(root)} == {"cache", "workspace"}
    dvc_mend.mend(Scan.of(root))
    assert (path.read_bytes(), place.read_bytes()) == (before, before)


def test_mend_leaves_damage_in_place_without_a_good_copy(root: Path) -> None:
    path = root / "data/words/a.bin"
    for place in (lies(root, "data/words/a.bin"), lies(root, "data/words/a.bin", "remote")):
        place.unlink()
    flip(path, 5, 0)
    damaged = path.read_bytes()
    dvc_mend.mend(Scan.of(root))
    assert path.read_bytes() == damaged
    sentence = next(one.sentence for one in Scan.of(root).mismatches() if one.where == "workspace")
    assert "no good copy" in sentence
    assert "dvc repro --force --single-item words" in sentence


def test_mend_restores_missing_files_and_moves_superfluous_ones(root: Path) -> None:
    path, extra, cut = root / "data/words/c.bin", root / "data/words/çay/yeni.bin", root / "metrics.json"
    whole = path.read_bytes()
    path.unlink()
    extra.write_bytes(b"mine")
    cut.write_bytes(cut.read_bytes()[:5])
    stray = root / ".dvc/cache/files/md5/zz"
    stray.write_bytes(b"?")
    lies(root, "metrics.json").unlink()
    assert found(root) == [
        ("cache", ".dvc/cache/files/md5/zz", "extra"),
        ("cache", lies(root, "metrics.json").relative_to(root).as_posix(), "missing"),
        ("workspace", "data/words/c.bin", "missing"),
        ("workspace", "data/words/çay/yeni.bin", "extra"),
        ("workspace", "metrics.json", "damaged"),
    ]
    dvc_mend.mend(Scan.of(root))
    assert found(root) == []
    assert path.read_bytes() == whole
    kept = [one.read_bytes() for one in (root / ".tohum/fsck").rglob("*.bin")]
    assert b"mine" in kept


def test_mend_restores_a_whole_folder_that_is_gone(root: Path) -> None:
    before = {path.name: path.read_bytes() for path in (root / "data/words").rglob("*.bin")}
    shutil.rmtree(root / "data/words")
    assert found(root) == [("workspace", "data/words", "missing")]
    dvc_mend.mend(Scan.of(root))
    assert {path.name: path.read_bytes() for path in (root / "data/words").rglob("*.bin")} == before
    assert "up to date" in dvc(root, "status")


def test_mend_restores_two_files_that_changed_places(root: Path) -> None:
    """The only good copy of each is the other's place."""
    for store in ("cache", "remote"):
        for name in ("a.bin", "c.bin"):
            lies(root, f"data/words/{name}", store).unlink()
    first, second = root / "data/words/a.bin", root / "data/words/c.bin"
    before = first.read_bytes(), second.read_bytes()
    first.write_bytes(before[1])
    second.write_bytes(before[0])
    dvc_mend.mend(Scan.of(root))
    assert (first.read_bytes(), second.read_bytes()) == before
    # what a remote lacks may be a push that is still to come
    assert {where for where, *_ in found(root)} == {"remote safe"}


def test_fsck_refuses_to_mend_while_dvc_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: dvc records the old bytes as the result of the stage that it runs."""
    path = root / "data/words/a.bin"
    flip(path, 0, 0)
    damaged = path.read_bytes()
    monkeypatch.setattr(dvc_lock, "running", lambda folder: [123])
    with pytest.raises(UserError, match=r"dvc runs in .* \(process \[123\]\)"):
        tohum("fsck", "--mend")
    assert path.read_bytes() == damaged


def test_mend_keeps_an_edit_of_the_users_own_file(root: Path) -> None:
    """`dvc add` has not seen it yet: to fsck it looks like damage."""
    mine = root / "inputs/mine.csv"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("text\nilk\n", encoding="utf-8")
    dvc(root, "add", "--quiet", "inputs/mine.csv")
    mine.write_text("text\nilk\nson\n", encoding="utf-8")
    dvc_mend.mend(Scan.of(root))
    assert mine.read_text(encoding="utf-8") == "text\nilk\nson\n"
    (one,) = [one for one in Scan.of(root).mismatches() if one.path == "inputs/mine.csv"]
    assert "if you changed it, run `dvc add inputs/mine.csv`" in one.sentence


def test_fsck_raises_user_error_when_the_lock_is_cut_off(root: Path) -> None:
    """Lost otherwise: a folder whose `.dir` is cut off is taken for its list, and replaced by it."""
    lock = root / "dvc.lock"
    whole = lock.read_text(encoding="utf-8")
    for end in (len(whole) // 2, 30):
        lock.write_text(whole[:end], encoding="utf-8")
        with pytest.raises(UserError, match="run `tohum doctor --mend`"):
            tohum("fsck", "--mend")
    lock.write_text(whole[: whole.index(".dir")], encoding="utf-8")  # as good as any lock, to DVC too
    assert tohum("fsck", "--mend") == 1
    assert (root / "data/words").is_dir()


def test_scan_has_no_mismatch_when_nothing_was_pushed(root: Path) -> None:
    shutil.rmtree(root.parent / "remote")
    assert found(root) == []


def test_fsck_exits_with_1_while_mismatches_are_left(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text(json.dumps(small_params()), encoding="utf-8")
    assert tohum("fsck") == 0
    assert "all as recorded" in capsys.readouterr().out
    flip(root / "data/words/a.bin", 0, 0)
    assert tohum("fsck", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in told["findings"]] == ["data/words/a.bin"]
    assert tohum("fsck", "--mend") == 0
    assert "data/words/a.bin (workspace): restored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "text"), [("dvc.lock", "stages: ["), ("dvc.lock", "- a\n"), (".dvc/config", "core\n[")]
)
def test_fsck_raises_user_error_when_records_cannot_be_read(path: str, text: str, root: Path) -> None:
    (root / path).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=path):
        tohum("fsck")


def test_fsck_lists_a_damaged_version_of_the_registry(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind its door: the registry itself says which of its versions are damaged."""
    import pipeline.registry

    class Version:
        name, version, tags = "tohum-base", "3", {"version_sha256": "0" * 64}

    class Damaged:
        def __init__(self, params: Params) -> None:
            pass

        def models(self) -> list[str]:
            return ["tohum-base"]

        def versions(self, model: str) -> list[Version]:
            return [Version()] if model == "tohum-base" else []

        def verify(self, version: Version) -> None:
            raise UserError("stored bytes differ")

    Path("params.yaml").write_text(json.dumps(small_params()), encoding="utf-8")
    assert list(registry_mismatches(root)) == []  # no store, so mlflow is not even loaded
    Path("mlflow.db").touch()
    monkeypatch.setattr(pipeline.registry, "Registry", Damaged)
    (one,) = registry_mismatches(root)
    assert "models:/tohum-base/3 (registry)" in one.sentence
    assert "stored bytes differ" in one.sentence
    assert "expected " + "0" * 12 in one.sentence
