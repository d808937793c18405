"""data/raw: every row of every source is accounted for, equal inputs give equal bytes, nothing is
half-written."""

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import plugins
from pipeline.config.params import Download
from pipeline.config.recipe import KINDS
from pipeline.data import collect as module
from pipeline.data.collect import collect, describe
from pipeline.data.records import SCHEMAS, record_id, schema
from pipeline.errors import UserError
from pipeline.files import sha256_of

CSV = {"name": "csv", "encoding": "utf-8", "delimiter": ",", "header": True, "quoting": "standard"}


def source(path: Path, **fields) -> dict:
    return {
        "name": "files",
        "licence": "CC0-1.0",
        "consent": "synthetic",
        "weight": 1.0,
        "path": str(path),
        "sha256": None,
        "kind": "labelled",
        "columns": {},
        "labels": {},
        "language": "en",
        "split": None,
        "format": CSV,
    } | fields


def download(**sources: dict) -> Download:
    return Download.model_validate({"forget": None, "sources": sources})


@pytest.fixture
def messages(tmp_path):
    path = tmp_path / "messages.csv"
    path.write_text("text,label\n" + "".join(f"message {k},ham\n" for k in range(1000)) + ",ham\nshort\n")
    return path


def read(out: Path, name: str):
    path = out / name
    return json.loads(path.read_text()) if name.endswith(".json") else pq.read_table(path)


def test_collect_writes_all_files_of_the_next_stages(messages, tmp_path):
    out = tmp_path / "raw"
    collect(download(a=source(messages)), out, progress=False)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [f"{kind}.parquet" for kind in KINDS]
        + ["ledger.json", "manifest.json", "provenance.json", "rejections.parquet", "truth.json"]
    )
    for kind in KINDS:
        assert read(out, f"{kind}.parquet").schema.equals(SCHEMAS[kind])
    rows = read(out, "labelled.parquet").to_pylist()
    assert rows[0] == {
        "id": record_id("labelled", "message 0", "ham"),
        "source": "a",
        "language": "en",
        "split": None,
        "origin": "messages.csv:2",
        "text": "message 0",
        "label": "ham",
    }
    assert read(out, "ledger.json") == {
        "sources": {"a": {"labelled": {"rows_in": 1002, "kept": 1000, "rejected": 2, "sampled_out": 0}}}
    }
    assert read(out, "rejections.parquet").to_pylist() == [
        {
            "source": "a",
            "kind": "labelled",
            "file": "messages.csv",
            "line": 1002,
            "reason": "empty",
            "detail": "text is empty; expected text",
        },
        {
            "source": "a",
            "kind": "labelled",
            "file": "messages.csv",
            "line": 1003,
            "reason": "short_row",
            "detail": "1 fields; expected 2",
        },
    ]
    assert read(out, "truth.json") == {"sources": {"a": {}}}
    assert read(out, "provenance.json") == {
        "sources": {
            "a": {
                "name": "files",
                "licence": "CC0-1.0",
                "consent": "synthetic",
                "address": str(messages),
                "sha256": sha256_of(messages),
                "revision": None,
                "rows": {"labelled": 1000},
                "bytes": sum(len(row["text"]) + len(row["label"]) for row in rows),
            }
        }
    }


def test_collect_merges_sources_in_their_order(messages, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("Bir varmış bir yokmuş.")
    text = {
        "name": "txt",
        "encoding": "utf-8",
        "documents": "file",
        "separator": None,
        "max_characters": None,
    }
    out = tmp_path / "raw"
    summary = collect(
        download(
            z=source(messages),
            b=source(other, kind="documents", format=text, language="tr"),
            a=source(messages, split="test"),
        ),
        out,
        progress=False,
    )
    labelled = read(out, "labelled.parquet")
    assert labelled.column("source").to_pylist() == ["z"] * 1000 + ["a"] * 1000
    assert labelled.column("id").to_pylist()[:1000] == labelled.column("id").to_pylist()[1000:]
    documents = read(out, "documents.parquet").to_pylist()
    assert (documents[0]["text"], documents[0]["bits"]) == ("Bir varmış bir yokmuş.", None)
    assert list(summary) == ["z", "b", "a"]


def test_collect_gives_equal_bytes_twice(messages, tmp_path):
    """Or everything downstream trains again without a reason."""
    sources = download(a=source(messages, weight=0.5), b=source(messages))
    for name in ("one", "two"):
        collect(sources, tmp_path / name, progress=False)
    assert sha256_of(tmp_path / "one") == sha256_of(tmp_path / "two")


def test_collect_subsamples_by_weight_and_a_larger_weight_only_adds(messages, tmp_path):
    kept = {}
    for weight in (0.2, 0.6):
        out = tmp_path / "raw"
        collect(download(a=source(messages, weight=weight)), out, progress=False)
        kept[weight] = set(read(out, "labelled.parquet").column("id").to_pylist())
        n = read(out, "ledger.json")["sources"]["a"]["labelled"]
        assert n["rows_in"] == n["kept"] + n["rejected"] + n["sampled_out"] == 1002
        assert n["kept"] == len(kept[weight])
        assert abs(n["kept"] / 1000 - weight) < 0.06
    assert kept[0.2] < kept[0.6]


@given(entry=st.text(min_size=1), one=st.text())
def test_place_is_from_0_to_below_1(entry, one):
    assert 0 <= module._place(entry, one) < 1


def test_collect_writes_few_row_groups_for_large_tables(messages, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ROWS", 300)
    out = tmp_path / "raw"
    collect(download(a=source(messages), b=source(messages)), out, progress=False)
    groups = pq.ParquetFile(out / "labelled.parquet").metadata
    assert groups.num_rows == 2000
    assert groups.num_row_groups == 8


def test_collect_fails_when_a_source_loses_a_row(tmp_path, monkeypatch):
    """A reader with a hole would shrink the data without a word."""
    table = pa.table(
        {
            "text": ["a"],
            "language": ["en"],
            "split": pa.nulls(1, pa.string()),
            "origin": ["a:1"],
            "bits": pa.nulls(1, pa.float64()),
        }
    )

    def leaky(settings, entry, ledger) -> Iterator:
        ledger.accept("documents", 2)
        yield "documents", table

    monkeypatch.setattr(plugins, "load", lambda folder, name: SimpleNamespace(read=leaky))
    with pytest.raises(AssertionError, match="the reader counts 2 documents"):
        collect(download(a=source(tmp_path / "x")), tmp_path / "raw", progress=False)


def test_row_log_flushes_many_rejected_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "short\n" * 9000 + "ok,ham\n")
    summary = collect(download(a=source(path)), tmp_path / "raw", progress=False)
    assert summary["a"]["reasons"] == {"labelled": {"short_row": 9000}}
    assert read(tmp_path / "raw", "rejections.parquet").column("line").to_pylist() == list(range(2, 9002))


def test_describe_shows_rows_and_reasons(messages, tmp_path):
    said = describe(collect(download(a=source(messages)), tmp_path / "raw", progress=False))
    assert "1,002      1,000         2" in said
    assert "rejected from a, labelled: 1 empty, 1 short_row" in said


def test_collect_refuses_an_empty_list_of_sources(tmp_path):
    with pytest.raises(UserError, match=r"download.sources is empty"):
        collect(download(), tmp_path / "raw", progress=False)


@pytest.mark.parametrize("second", [{"path": "none.csv"}, {"sha256": "0" * 64}])
def test_collect_keeps_the_old_folder_after_an_error(messages, tmp_path, second):
    out = tmp_path / "raw"
    collect(download(a=source(messages)), out, progress=False)
    before = sha256_of(out)
    with pytest.raises(UserError):
        collect(download(a=source(messages, weight=0.5), b=source(messages) | second), out, progress=False)
    assert sha256_of(out) == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["raw"]


def test_collect_keeps_the_old_folder_on_a_full_disk(messages, tmp_path, monkeypatch):
    out = tmp_path / "raw"
    collect(download(a=source(messages)), out, progress=False)
    before = sha256_of(out)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("pyarrow.parquet.ParquetWriter.write_table", "pipeline.data.collect.write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(OSError, match="No space left"):
                collect(download(a=source(messages, weight=0.5)), out, progress=False)
        assert sha256_of(out) == before
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["raw"]


def test_collect_keeps_the_old_folder_on_a_really_full_disk(tmp_path):
    """As above with a real limit on how much a file may hold, set for a process of its own."""
    path, out = tmp_path / "inputs/noise.csv", tmp_path / "raw"
    path.parent.mkdir()
    path.write_text("text,label\n" + "".join(f"{record_id('documents', str(k)) * 8},ham\n" for k in range(5000)))
    out.mkdir()
    (out / "old").write_text("old")
    code = (
        "import json, sys; from pathlib import Path; from pipeline.config.params import Download;"
        "from pipeline.data.collect import collect;"
        "collect(Download.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]), False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps({"forget": None, "sources": {"a": source(path)}}), str(out)],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(plugins.ROOT.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode != 0
    assert "OSError" in done.stderr
    assert "File too large" in done.stderr
    assert (out / "old").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inputs", "raw"]


def test_collect_keeps_added_columns_of_all_sources_and_fills_consent(tmp_path):
    """A column that one source adds is null in the others; consent is always stated."""
    (tmp_path / "a.csv").write_text("text,label,who,basis,region\na,x,m1,contract,ege\nb,x,,,\n")
    (tmp_path / "b.csv").write_text("text,label,product\nc,x,p\n")
    own = {"text": "text", "label": "label", "group": "who", "consent": "basis", "extra": ["region"]}
    out = tmp_path / "raw"
    collect(
        download(
            a=source(tmp_path / "a.csv", columns=own, consent="consent"),
            b=source(tmp_path / "b.csv", columns={"extra": ["product"]}),
            c=source(tmp_path / "b.csv", kind="documents"),
        ),
        out,
        progress=False,
    )
    table = read(out, "labelled.parquet")
    assert table.schema.equals(schema("labelled", ["group", "consent", "region", "product"]))
    assert [[row[name] for name in ("text", "group", "consent", "product", "region")] for row in table.to_pylist()] == [
        ["a", "m1", "contract", None, "ege"],
        ["b", None, "consent", None, None],
        ["c", None, "synthetic", "p", None],
    ]
    assert table["id"].to_pylist()[0] == record_id("labelled", "a", "x")
    assert read(out, "documents.parquet").schema.equals(SCHEMAS["documents"])
    stated = {entry: {key: value for key, value in sources.items() if key in ("columns", "consents", "consent")}
              for entry, sources in read(out, "provenance.json")["sources"].items()}  # fmt: skip
    assert stated == {
        "a": {
            "consent": "consent",
            "consents": {"consent": 1, "contract": 1},
            "columns": {"labelled": ["group", "consent", "region"]},
        },
        "b": {"consent": "synthetic", "columns": {"labelled": ["product"]}},
        "c": {"consent": "synthetic"},
    }


def test_collect_counts_consents_of_the_records_that_a_weight_keeps(tmp_path):
    (tmp_path / "a.csv").write_text("text,label,basis\n" + "".join(f"message {k},x,contract\n" for k in range(500)))
    out = tmp_path / "raw"
    entry = source(tmp_path / "a.csv", columns={"consent": "basis"}, weight=0.5)
    summary = collect(download(a=entry), out, progress=False)
    kept = summary["a"]["rows"]["labelled"]["kept"]
    assert 150 < kept < 350
    assert read(out, "provenance.json")["sources"]["a"]["consents"] == {"contract": kept}
