"""If these fail, `dvc repro sample` leaves half a folder, or a traceback instead of a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.config.check import PARAMS
from pipeline.files import read_json, sha256_of
from pipeline.paths import CODE as ROOT
from tests.folders import write_raw, write_tokens


@pytest.fixture
def project(tmp_path: Path) -> Path:
    params = yaml.safe_load((ROOT / PARAMS).read_text(encoding="utf-8"))
    params["runtime"]["tracking"]["enabled"] = False
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    rows = [{"text": f"Belge {number}"} for number in range(200)]
    labelled = [{"text": f"Mesaj {number % 30}", "label": "ham"} for number in range(40)]
    raw = write_raw(tmp_path / "data" / "raw", documents=rows, labelled=labelled)
    write_tokens(raw, tmp_path / "data" / "tokens")
    return tmp_path


def run(project: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.sample"]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_it_writes_samples_twice_the_same_and_prints_the_ledger(project: Path) -> None:
    done = run(project)
    assert done.returncode == 0, done.stderr
    assert "near_duplicate" in done.stdout
    first = sha256_of(project / "data" / "samples")
    assert read_json(project / "data" / "samples" / "ledger.json")["labelled"]["removed"]["duplicate"] == 10
    assert run(project).returncode == 0
    assert sha256_of(project / "data" / "samples") == first


def test_a_missing_input_is_one_sentence_and_no_folder(project: Path) -> None:
    (project / "data" / "tokens" / "index.parquet").unlink()
    done = run(project)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: data/tokens/index.parquet: no such file")
    assert "Traceback" not in done.stderr
    assert not (project / "data" / "samples").exists()
