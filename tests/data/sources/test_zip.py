"""Members of a zip archive are read like files, or the archive is refused in a sentence."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.ledger import RowLog
from pipeline.data.sources import _inputs
from pipeline.data.sources import zip as archives
from pipeline.errors import UserError
from tests.data.reading import CSV, JSONL
from tests.studies.file_writers import zipped

DATA = {
    "b/two.csv": b"text,label\nc d,x\n\ne f,y\nshort\n",
    "a/one.csv": b"text,label\na b,x\n",
    "readme.txt": b"hello",
}


def read(path: Path, members: str, form: dict = CSV, sha256: str | None = None) -> tuple[list[dict], list]:
    settings = archives.Settings.model_validate({
        "path": str(path), "members": members, "sha256": sha256, "kind": "labelled", "columns": {}, "labels": {},
        "language": "en", "split": None, "format": form,
    })  # fmt: skip
    rejected: list = []
    log = RowLog("mine", rejected.extend)
    rows = [row for _, made in archives.read(settings, "mine", log) for row in made.to_pylist()]
    log.flush()
    return rows, rejected


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "a.zip").write_bytes(zipped(DATA))
    return tmp_path / "a.zip"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_zip_reads_members_in_the_order_of_names_with_true_lines(archive: Path) -> None:
    rows, rejected = read(archive, "*.csv", sha256=digest(archive))
    assert [(row["text"], row["origin"]) for row in rows] == [
        ("a b", "a/one.csv:2"), ("c d", "b/two.csv:2"), ("e f", "b/two.csv:4")
    ]  # fmt: skip
    assert [(row.file, row.line, row.reason) for row in rejected] == [("b/two.csv", 5, "short_row")]


def test_zip_reads_formats_that_seek(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a b"], "label": ["x"]}), tmp_path / "a.parquet")
    (tmp_path / "a.zip").write_bytes(zipped({"a.parquet": (tmp_path / "a.parquet").read_bytes()}))
    rows, _ = read(tmp_path / "a.zip", "a.parquet", {"name": "parquet"}, digest(tmp_path / "a.zip"))
    assert [(row["text"], row["origin"]) for row in rows] == [("a b", "a.parquet:1")]


def test_zip_hides_the_files_that_systems_add(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(
        zipped({"__MACOSX/._a.csv": b"\0", ".DS_Store": b"\0", "d/.hidden": b"", "d/a.csv": b"x"})
    )
    assert archives.members(tmp_path / "a.zip") == ["d/a.csv"]


@pytest.mark.parametrize(
    ("members", "form", "words"),
    [
        ("*.json", CSV, r"no member matches '\*\.json'; found: \['a/one\.csv', 'b/two\.csv', 'readme\.txt'\]"),
        ("a/one.csv", JSONL, r"a\.zip!a/one\.csv: every row was rejected, the first at line 1"),
    ],
)
def test_zip_refuses_members_that_are_not_there_or_not_valid(
    archive: Path, members: str, form: dict, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        read(archive, members, form, digest(archive))


def test_zip_refuses_other_bytes_a_missing_and_a_damaged_archive(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"sha256 is {digest(archive)}; expected {'0' * 64}"):
        read(archive, "*.csv", sha256="0" * 64)
    with pytest.raises(UserError, match=r"none\.zip: no such file"):
        read(tmp_path / "none.zip", "*.csv", sha256="0" * 64)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(UserError, match="not a whole zip archive"):
        read(archive, "*.csv", sha256=digest(archive))


def test_zip_outside_inputs_is_refused_unless_pinned(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_inputs, "INPUTS", Path("inputs"))
    with pytest.raises(ValueError, match="outside inputs/, where DVC would not see a change"):
        read(archive, "*.csv")


def test_zip_provenance_names_path_and_hash(archive: Path) -> None:
    settings = archives.Settings.model_validate({
        "path": str(archive), "members": "*", "sha256": digest(archive), "kind": "labelled", "columns": {},
        "labels": {}, "language": "en", "split": None, "format": CSV,
    })  # fmt: skip
    assert archives.provenance(settings) == {"address": str(archive), "sha256": digest(archive), "revision": None}
