"""Cost of a stage: seconds, peak memory, energy.

Energy is always estimated from CPU seconds, and also measured where the machine allows it: by RAPL counters (the
packages of the whole machine) and, on a CUDA device, by the power that nvidia-smi reports, integrated over the stage.
The record names the method of each number.
"""

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# One hardware thread at full load: the mean over AWS servers in the Cloud Carbon Footprint methodology
# (0.74 W idle, 3.5 W at 100 %). A server's share, without memory, disks and cooling.
WATTS_PER_THREAD = 3.5
_RAPL = Path("/sys/class/powercap")
_IMPORTED = time.time()


class Meter:
    """Reads energy counters at the start, and again when `read` is called."""

    def __init__(self, device: str = "cpu") -> None:
        self._opened = time.time()
        self._rapl = _rapl_microjoules()
        self._gpu = _GpuPower() if device == "cuda" else None

    def read(self) -> dict[str, Any]:
        """Seconds since this process started, peak memory in MiB, energy in watt hours and its method."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = usage.ru_utime + usage.ru_stime + children.ru_utime + children.ru_stime
        measured, methods = self._measured()
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
        return {
            "seconds_total": round(time.time() - process_started(), 3),
            "seconds_cpu": round(cpu_seconds, 3),
            "peak_memory_mib": round(usage.ru_maxrss * unit / 2**20, 1),
            "energy_wh_estimated": round(cpu_seconds * WATTS_PER_THREAD / 3600, 6),
            "energy_wh_measured": measured,
            "energy_method": "; ".join([f"estimated: CPU seconds x {WATTS_PER_THREAD} W a thread", *methods]),
        }

    def _measured(self) -> tuple[float | None, list[str]]:
        joules, methods = 0.0, []
        if self._rapl:
            joules += _rapl_used(self._rapl, _rapl_microjoules()) / 1e6
            methods.append("measured: RAPL, packages of the whole machine")
        if self._gpu is not None and (watts := self._gpu.stop()) is not None:
            joules += watts * (time.time() - self._opened)
            methods.append("measured: nvidia-smi mean power, whole device")
        return (round(joules / 3600, 6), methods) if methods else (None, [])


def process_started() -> float:
    """Unix time at which this process was started, before the interpreter and its imports."""
    try:
        import psutil
    except ImportError:  # a bare training box
        return _IMPORTED
    return float(psutil.Process().create_time())


def _rapl_microjoules() -> dict[str, int]:
    """Package -> counter; empty where there are none or only root may read them."""
    counters = {}
    for zone in sorted(_RAPL.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") == 1:  # sub-zones (cores, memory) are inside their package
            with contextlib.suppress(OSError, ValueError):
                counters[zone.name] = int((zone / "energy_uj").read_text())
    return counters


def _rapl_used(before: dict[str, int], after: dict[str, int]) -> int:
    used = 0
    for zone, value in after.items():
        step = value - before.get(zone, value)
        if step < 0:  # the counter wrapped
            with contextlib.suppress(OSError, ValueError):
                step += int((_RAPL / zone / "max_energy_range_uj").read_text())
        used += max(step, 0)
    return used


class _GpuPower:
    """Power draw by nvidia-smi, once a second, written by its process into a temporary file."""

    _QUERY = ("--query-gpu=power.draw", "--format=csv,noheader,nounits", "-lms", "1000")

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the meter runs
        self._child: subprocess.Popen[bytes] | None = None
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        chosen = ["-i", devices] if devices else []
        with contextlib.suppress(OSError):
            self._child = subprocess.Popen(
                ["nvidia-smi", *chosen, *self._QUERY],
                stdin=subprocess.DEVNULL,
                stdout=self._file,
                stderr=subprocess.DEVNULL,
            )

    def stop(self) -> float | None:
        """Mean watts, summed over the visible devices; None if nothing was reported."""
        if self._child is None:
            return None
        self._child.terminate()
        self._child.wait()
        self._file.seek(0)
        watts = []
        for line in self._file.read().decode("ascii", "replace").splitlines():
            with contextlib.suppress(ValueError):
                watts.append(float(line))
        devices = max(1, len([d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]))
        return sum(watts) / len(watts) * devices if watts else None
