"""The stage tokenize, run as dvc runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline import files
from pipeline.data.records import SCHEMAS, record_id
from pipeline.paths import CODE as ROOT


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """`python -m stages.tokenize` in a scratch project."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "stages.tokenize"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_the_stage_writes_tokens_and_says_what_it_made(tmp_path: Path) -> None:
    """The graph would stop at its second stage; and an empty corpus must end in one sentence, not a
    traceback."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["runtime"] |= {"progress": False, "tracking": params["runtime"]["tracking"] | {"enabled": False}}
    params["tokenize"] = {
        "method": "train",
        "vocab_size": 300,
        "pattern": "gpt2",
        "path": None,
        "sha256": None,
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    path = tmp_path / "data/raw/documents.parquet"
    path.parent.mkdir(parents=True)
    texts = [f"ışıklı {i} gün" for i in range(60)]
    common = {"source": "files", "language": "tr", "split": None, "origin": "x", "bits": None}
    rows = [{"id": record_id("documents", text), "text": text, **common} for text in texts]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["documents"]), path)

    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "60 documents" in done.stdout
    assert files.read_json(tmp_path / "data/tokens/meta.json")["n_documents"] == 60
    assert files.read_json(tmp_path / "reports/runs/tokenize.json")["status"] == "FINISHED"

    pq.write_table(SCHEMAS["documents"].empty_table(), path)
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: data/raw/documents.parquet: 0 documents")
    assert "Traceback" not in done.stderr
