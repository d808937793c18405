"""Files are whole or not there: without it a full disk or a kill leaves a broken file under a good name."""

from pathlib import Path

import pytest

from pipeline import files


def _half(path: Path) -> None:
    path.write_text("half")
    raise OSError("disk full")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": "ışık"})
    assert path.read_bytes() == '{\n "a": "ışık",\n "b": 1\n}\n'.encode()
    with pytest.raises(OSError, match="full"), files.replacing(path) as temporary:
        _half(temporary)
    assert files.read_json(path) == {"a": "ışık", "b": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    with files.replace_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(OSError, match="full"), files.replace_folder(tmp_path / "out") as folder:
        _half(folder / "x")
    assert (tmp_path / "out/x").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_nan_never_reaches_a_metrics_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "m.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_folder_hash_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = files.sha256_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert files.sha256_of(tmp_path) != first
