"""Energy: a figure on a model card is either measured, and says by what, or says that it is an estimate."""

import stat
import time
from pathlib import Path

import pytest

from pipeline.tracking import cost


def test_meter_labels_energy_an_estimate_without_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_RAPL", tmp_path)
    found = cost.Meter().read()
    assert found["energy_wh_measured"] is None
    assert found["energy_method"].startswith("estimated")
    assert "measured" not in found["energy_method"]


def test_meter_reads_rapl_counters_that_wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_RAPL", tmp_path)
    for zone, before in {"intel-rapl:0": 9_000_000_000, "intel-rapl:1": 100, "intel-rapl:0:0": 5}.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(str(before))
        (tmp_path / zone / "max_energy_range_uj").write_text("10000000000")
    meter = cost.Meter()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1000000000")  # wrapped: 2,000 J
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1600000100")  # 1,600 J
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("999999999")  # inside package 0
    found = meter.read()
    assert found["energy_wh_measured"] == 1.0
    assert "RAPL" in found["energy_method"]


def test_meter_multiplies_mean_gpu_power_by_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 300.0\necho '[N/A]'\necho 500.0\nexec sleep 60\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(cost, "_RAPL", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    began, meter = time.time(), cost.Meter("cuda")
    time.sleep(0.5)
    found = meter.read()
    assert found["energy_wh_measured"] == pytest.approx(400 * (time.time() - began) / 3600, rel=0.3)
    assert "nvidia-smi" in found["energy_method"]


def test_meter_measures_no_gpu_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_RAPL", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cost.Meter("cuda").read()["energy_wh_measured"] is None
