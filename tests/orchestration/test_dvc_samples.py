"""Records of older data: lost otherwise, a version is cleared of a record because half of its data was not read."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.orchestration import dvc_store
from pipeline.orchestration.dvc_samples import SampleVersions
from pipeline.orchestration.dvc_store import Store


def put(store: Store, content: bytes, ending: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + ending
    store.place(md5).parent.mkdir(parents=True, exist_ok=True)
    store.place(md5).write_bytes(content)
    return md5


def table(record: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [record]}), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Path, str, dict[str, Path]]:
    """A cache and a remote that both hold one version of data/samples: project, hash of its documents, objects of the
    cache by name.
    """
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("['remote \"far\"']\n    url = ../far\n", encoding="utf-8")
    for store in dvc_store.stores(tmp_path):
        own = {"train.bin": put(store, b"0"), "train.parquet": put(store, table("a"))}
        own["validation.parquet"] = put(store, table("b"))
        whole = {f"documents/{name}": md5 for name, md5 in own.items()} | {"removed.parquet": own["train.bin"]}
        put(store, dvc_store.as_dir(whole), ".dir")
    documents = hashlib.md5(dvc_store.as_dir(own), usedforsecurity=False).hexdigest() + ".dir"
    cache, _ = dvc_store.stores(tmp_path)
    return tmp_path, documents, {name: cache.place(md5) for name, md5 in own.items()}


def test_sample_versions_read_a_table_from_the_remote_when_the_cache_lacks_it(
    versions: tuple[Path, str, dict[str, Path]],
) -> None:
    root, documents, cached = versions
    assert SampleVersions(root).ids(documents) == {"a", "b"}
    cached["train.parquet"].unlink()
    assert SampleVersions(root).ids(documents) == {"a", "b"}


def test_sample_versions_are_not_known_when_one_table_is_in_no_store(
    versions: tuple[Path, str, dict[str, Path]],
) -> None:
    root, documents, cached = versions
    cached["train.parquet"].unlink()
    for path in (root / "far").rglob(cached["train.parquet"].name):
        path.unlink()
    assert SampleVersions(root).ids(documents) is None
    assert SampleVersions(root).ids("0" * 32 + ".dir") is None
