"""The time table: read from top to bottom it follows the run."""

import shutil
from pathlib import Path

import pytest

from pipeline import config, files
from pipeline.cli import times
from pipeline.reporting import report
from tests import scratch


def test_times_and_costs_follow_the_order_of_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of a stage that is in the graph no more comes last."""
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(scratch.ROOT / name, tmp_path / name)
    ran = [
        "download",
        "validate@raw",
        "tokenize",
        "validate@tokens",
        "sample",
        "pretrain",
        "finetune@spam-lora",
        "report",
    ]
    figures = {"seconds_total": 2.0, "seconds_work": 1.0, "peak_memory_mib": 9.0, "seconds_cpu": 1.0}
    more = {
        "status": "FINISHED",
        "energy_wh_estimated": 0.1,
        "energy_method": "estimated",
        "device": "cpu",
        "threads": 1,
    }
    for name in [*ran, "a-gone-one"]:
        files.write_json(report.REPORTS / "runs" / f"{name}.json", {"stage": name, **figures, **more})
    assert [record["stage"] for record in report.records()] == [*ran, "a-gone-one"]
    assert list(times.times().columns[0].cells) == [*ran, "a-gone-one", "all"]
    page = report.render_costs(config.load())
    assert [page.index(f">{name}<") for name in ran] == sorted(page.index(f">{name}<") for name in ran)
