"""The time table: read from top to bottom it follows the run."""

from pathlib import Path

import pytest
import yaml

from pipeline import files
from pipeline.cli import times
from pipeline.paths import DVC_LOCK, RUNS
from pipeline.reporting import report

RAN = ["download", "tokenize", "sample", "pretrain", "finetune@spam-lora", "evaluate@spam-lora", "report"]
RECORD = {
    "seconds_total": 2.0, "seconds_work": 1.0, "peak_memory_mib": 9.0, "seconds_cpu": 1.0, "status": "FINISHED",
    "energy_wh_estimated": 0.1, "energy_method": "estimated", "device": "cpu", "threads": 1,
}  # fmt: skip


def test_times_and_costs_follow_the_order_of_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of a stage that is no longer in the graph comes last."""
    monkeypatch.chdir(tmp_path)
    paths = [f"data/{name}" for name in RAN]
    entries = [
        {"cmd": "x", "deps": [{"path": dep, "md5": "0" * 32}], "outs": [{"path": out, "md5": "1" * 32}]}
        for dep, out in zip(["inputs", *paths], paths, strict=False)
    ]
    lock = {"schema": "2.0", "stages": dict(reversed(list(zip(RAN, entries, strict=True))))}
    DVC_LOCK.write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
    for name in [*RAN, "a-removed-one"]:
        files.write_json(RUNS / f"{name}.json", {"stage": name, **RECORD})
    assert [record["stage"] for record in report.records()] == [*RAN, "a-removed-one"]
    assert list(times.times().columns[0].cells) == [*RAN, "a-removed-one", "all"]
    page = report.render_costs()
    assert [page.index(f">{name}<") for name in RAN] == sorted(page.index(f">{name}<") for name in RAN)
