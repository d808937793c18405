"""The stage as DVC runs it: params.yaml in, data/raw out, a sentence and exit code 1 when a source is
wrong."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config import plugins

ROOT = plugins.ROOT.parent
SMS = {
    "name": "files",
    "licence": "own",
    "consent": "own",
    "weight": 1.0,
    "path": "inputs/sms.tsv",
    "sha256": None,
    "kind": "labelled",
    "columns": {"label": "0", "text": "1"},
    "labels": {},
    "language": "auto",
    "split": None,
    "format": {"name": "tsv", "encoding": "utf-8", "header": False, "quoting": "none"},
}


@pytest.fixture
def run(tmp_path):
    """Runs the stage in a folder of its own, with the project's params.yaml and one source of ours."""
    (tmp_path / "inputs").mkdir()

    def running(**fields) -> subprocess.CompletedProcess:
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["download"] = {"forget": None, "sources": {"sms": SMS | fields}}
        params["runtime"]["tracking"]["enabled"] = False
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-m", "stages.download"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            timeout=120,
            check=False,
        )

    return running


def test_a_users_file_becomes_data_raw_with_a_summary(run, tmp_path):
    (tmp_path / "inputs/sms.tsv").write_text(
        'ham\tYarın geliyor musun, "acaba"?\nspam\tWin the prize now\nbroken\n', "utf-8"
    )
    done = run()
    assert done.returncode == 0, done.stderr
    assert "rejected from sms, labelled: 1 short_row" in done.stdout
    rows = pq.read_table(tmp_path / "data/raw/labelled.parquet").to_pylist()
    assert [(r["label"], r["text"]) for r in rows] == [
        ("ham", 'Yarın geliyor musun, "acaba"?'),
        ("spam", "Win the prize now"),
    ]
    assert (tmp_path / "reports/runs/download.json").is_file()


@pytest.mark.parametrize(
    ("data", "fields", "expected"),
    [
        (b"ham\thi\xff\n", {}, "error: inputs/sms.tsv: line 1: byte 6 is 0xff: not UTF-8"),
        (b"", {}, "error: inputs/sms.tsv: the file is empty"),
        (
            b"ham\thi\n",
            {"path": "inputs/gone.tsv"},
            "error: inputs/gone.tsv: no such file; inputs contains ['sms.tsv']",
        ),
        (b"ham\thi\n", {"columns": {"label": "0", "text": "3"}}, "error: inputs/sms.tsv: no column '3' (our text)"),
        (b"ham\thi\n", {"path": "../sms.tsv"}, "outside inputs/, where DVC would not see a change"),
        (b"ham\thi\n", {"weight": 2}, "params.yaml: download.sources.sms.weight"),
        (b"ham\thi\n", {"colums": {}}, "did you mean 'columns'?"),
    ],
)
def test_bad_input_is_a_sentence_an_exit_code_and_nothing_written(run, tmp_path, data, fields, expected):
    (tmp_path / "inputs/sms.tsv").write_bytes(data)
    done = run(**fields)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(Path(tmp_path).glob("data/*"))


def test_the_stage_loads_no_torch_and_no_tracker(tmp_path):
    """Each needless import is seconds in every run of the graph."""
    code = (
        "import sys, stages.download; from pipeline.data.sources import files, hub, url;"
        "print(sorted({'torch', 'mlflow', 'datasets', 'pandas', 'great_expectations'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
