"""A company's table through the data stages: its columns arrive in the samples, and the gates judge its splits."""

import csv
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import config
from pipeline.config.params import Download, Params, Tokenize
from pipeline.data.collect import collect
from pipeline.data.records import SPLITS
from pipeline.data.samples import sample
from pipeline.data.sources import _inputs
from pipeline.data.tokens import tokenize
from pipeline.gates import raw, samples
from pipeline.paths import CODE as ROOT
from tests.gates.builders import GATES, failed, text_of, verdict_on

CSV = {"name": "csv", "encoding": "utf-8", "delimiter": ";", "header": True, "quoting": "standard"}
CHARACTERS = Tokenize(method="characters", vocab_size=None, pattern=None, path=None, sha256=None)


def _table(path: Path) -> Path:
    """300 tickets of 60 customers over ten months, every seventh without a title."""
    rng = random.Random(3)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["title", "body", "topic", "customer", "created", "region", "basis"])
        for i in range(300):
            title = "" if i % 7 == 0 else f"Başlık {i}"
            created = f"2024-{i // 30 + 1:02}-{i % 28 + 1:02}"
            row = [title, text_of(rng, "tr", 14), ("kargo", "fatura")[i % 2], f"m{rng.randrange(60)}", created]
            writer.writerow([*row, rng.choice(["ege", "doğu"]), "contract" if i % 3 else ""])
    return path


def _params(path: Path, by: str) -> Params:
    columns: dict[str, Any] = {"text": "{title}\n\n{body}", "group": "customer", "time": "created", "extra": ["region"]}
    shared = {"name": "files", "licence": "own", "weight": 1.0, "path": str(path), "sha256": None, "labels": {},
              "language": "tr", "split": None, "format": CSV, "consent": "consent"}  # fmt: skip
    sources = {
        "tickets": shared | {"kind": "labelled", "columns": columns | {"label": "topic", "consent": "basis"}},
        "texts": shared | {"kind": "documents", "columns": columns},
    }
    loaded = config.load(ROOT / "params.yaml")
    split = loaded.split.model_copy(update={"by": by, "validation": 0.15, "test": 0.15})
    download = Download.model_validate({"forget": None, "sources": sources})
    return loaded.model_copy(update={"download": download, "split": split, "tokenize": CHARACTERS})


@pytest.mark.parametrize(("by", "faults"), [("record", {"split_groups"}), ("group", set()), ("time", {"split_groups"})])
def test_data_stages_keep_a_tables_columns_and_split_by_them(
    by: str, faults: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_inputs, "INPUTS", Path("/"))
    params = _params(_table(tmp_path / "tickets.csv"), by)
    collect(params.download, tmp_path / "raw", progress=False)
    tokenize(params.tokenize, params.split, tmp_path / "raw/documents.parquet", tmp_path / "tokens")
    sample(params, tmp_path / "raw", tmp_path / "tokens", tmp_path / "samples", progress=False)

    rows = {split: pq.read_table(tmp_path / f"samples/labelled/{split}.parquet").to_pylist() for split in SPLITS}
    of_ids = {row["id"]: row for several in rows.values() for row in several}
    assert len(of_ids) == 300
    assert sum(row["consent"] == "contract" for row in of_ids.values()) == 200
    assert {row["consent"] for row in of_ids.values()} == {"contract", "consent"}
    assert sum(row["text"].startswith("Başlık") for row in of_ids.values()) == 257
    assert not any(row["text"].startswith("\n") for row in of_ids.values())
    assert {row["region"] for row in of_ids.values()} == {"ege", "doğu"}

    settings = raw.Settings.model_validate(GATES["raw"] | {"language": {"sample": None, "max_disagreement": 0.0,
                                                                        "min_share": {}}})  # fmt: skip
    assert not failed(verdict_on("raw", raw.profile(settings, tmp_path), raw.expectations(settings)))
    bounds = samples.Settings.model_validate(GATES["samples"])
    verdict = verdict_on("samples", samples.profile(bounds, tmp_path), samples.expectations(bounds))
    assert failed(verdict) == faults
    orders = {(row["kind"], row["split"]): row["out_of_order"] for row in verdict["profile"]["time_order"]}
    assert set(orders.values()) == ({0} if by == "time" else set())
    regions = [row for row in verdict["profile"]["slices"] if row["column"] == "region" and row["kind"] == "labelled"]
    assert sum(row[split] for row in regions for split in SPLITS) == 300
