"""tohum embed: ids stay with their vectors, and files that hold no texts are refused with the row."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import _command
from pipeline.cli._texts import read_texts
from pipeline.errors import UserError
from pipeline.inference.embeddings import Embedder
from tests.inference.test_embeddings import saved, words  # noqa: F401 - a fixture

ROWS = [{"id": "a7", "text": "Ayşe, nerede"}, {"id": "b9", "text": "free prize\nnow"}, {"id": "c1", "text": "ı"}]


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"texts{suffix}"
    match suffix:
        case ".csv":
            lines = ["id,text", *(f'{row["id"]},"{row["text"]}"' for row in ROWS)]
            path.write_text("\n".join(lines), encoding="utf-8-sig")
        case ".jsonl":
            path.write_text("\n\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path)
        case ".txt":
            path.write_text("Ayşe, nerede\n\nfree prize\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_read_texts_gives_texts_with_their_ids(suffix: str, tmp_path: Path) -> None:
    texts, ids = read_texts(write(tmp_path, suffix), "text", "id")
    assert texts == [row["text"] for row in ROWS]
    assert ids == [row["id"] for row in ROWS]
    assert read_texts(write(tmp_path, suffix), "text", "no such")[1] == ["1", "2", "3"]


def test_read_texts_takes_the_lines_of_a_text_file(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, ".txt"), "text", "id") == (["Ayşe, nerede", "free prize"], ["1", "2"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}', "row 2: no column 'text'; found: body; expected a text: name its"),
        ("a.jsonl", b'{"text": 3}', "row 1: 3; expected a text"),
        ("a.jsonl", b'{"text": ', "line 1: not JSON"),
        ("a.jsonl", b"[1]", "line 1: list; expected an object"),
        ("a.txt", b"\n\n", "holds no text"),
        ("a.txt", "ş".encode("cp1254"), "byte 0 is no UTF-8"),
        ("a.doc", b"x", "ends in one of .txt"),
        ("a.parquet", b"x", "not readable as parquet"),
    ],
)  # fmt: skip
def test_read_texts_refuses_files_without_texts(name: str, content: bytes, words: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_texts(tmp_path / name, "text", "id")
    assert words in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_embed_writes_vectors_beside_their_ids(
    suffix: str, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "models/base", words)
    expected = Embedder(tmp_path / "models/base").embed([row["text"] for row in ROWS])
    source, out = write(tmp_path, ".jsonl"), tmp_path / f"vectors{suffix}"
    assert _command.run(["embed", "base", str(source), "--out", str(out)]) == 0
    assert "3 vectors of" in capsys.readouterr().out
    if suffix == ".npy":
        np.testing.assert_allclose(np.load(out), expected, atol=1e-6)
        assert (tmp_path / "vectors.npy.ids.txt").read_text().split() == ["a7", "b9", "c1"]
        return
    table = pq.ParquetFile(out).read().to_pylist()
    assert [(row["id"], row["text"]) for row in table] == [(row["id"], row["text"]) for row in ROWS]
    np.testing.assert_allclose([row["embedding"] for row in table], expected, atol=1e-6)


def test_embed_refuses_another_kind_of_output(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a file that ends in .parquet or .npy"):
        _command.run(["embed", "base", str(write(tmp_path, ".txt")), "--out", str(tmp_path / "x.csv")])
