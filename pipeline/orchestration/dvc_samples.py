"""Versions of data/samples that DVC's stores still hold, and the records in each.

dvc.lock, and the tags of a registered version, name the folder of one record kind by the hash that DVC gives it as a
dependency; the stores hold data/samples as one list of files. Here the hash of each kind's folder is computed from the
lists.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.config.recipe import ALL_KINDS
from pipeline.data.tables import batches
from pipeline.orchestration import dvc_store
from pipeline.orchestration.dvc_store import Store

_SPLITS = ("train", "validation")
"""Splits that a model has learned from: training, and validation by early stopping and thresholds."""


class SampleVersions:
    """The record kinds of all versions of data/samples in the cache and in remotes that are folders."""

    def __init__(self, root: Path) -> None:
        self._stores = dvc_store.stores(root)
        self._tables: dict[str, list[str]] = {}
        self._ids: dict[str, frozenset[str]] = {}
        for store in self._stores:
            for listed in _lists(store):
                for kind in ALL_KINDS:
                    own = {
                        name.removeprefix(f"{kind}/"): md5
                        for name, md5 in listed.items()
                        if name.startswith(f"{kind}/")
                    }
                    if own:
                        self._tables[_md5(own)] = [
                            own[f"{split}.parquet"] for split in _SPLITS if f"{split}.parquet" in own
                        ]

    def ids(self, md5: str) -> frozenset[str] | None:
        """The records that training with this version of one kind's folder has read; None where one of its tables is
        in no store.
        """
        if md5 not in self._ids:
            tables = [self._found(table) for table in self._tables.get(md5, ())]
            paths = [path for path in tables if path is not None]
            if not tables or len(paths) < len(tables):
                return None
            columns = (batch.column("id") for path in paths for batch in batches(path, ["id"]))
            self._ids[md5] = frozenset(identity for column in columns for identity in column.to_pylist())
        return self._ids[md5]

    def _found(self, md5: str) -> Path | None:
        """The object in the first store that holds it."""
        return next((path for store in self._stores if (path := store.place(md5)).is_file()), None)


def _lists(store: Store) -> Iterator[dict[str, str]]:
    """The lists of all folders of a store that look like data/samples."""
    for path in store.files():
        if path.suffix == ".dir":
            listed = dvc_store.listing(path.read_bytes())
            if listed and "removed.parquet" in listed and "documents/train.bin" in listed:
                yield listed


def _md5(inside: dict[str, str]) -> str:
    return hashlib.md5(dvc_store.as_dir(inside), usedforsecurity=False).hexdigest() + ".dir"
