"""cpu/memory.py: freed memory is kept for the next update."""

import ctypes
import subprocess
import sys

import pytest


# Only glibc has the setting.
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_keep_freed_memory_reuses_pages_from_update_to_update() -> None:
    """Lost otherwise: every update would pay for fresh pages, 4,096 of 4 KiB for each of these tensors."""
    code = """
import resource, torch
from pipeline.model.cpu.memory import keep_freed_memory
keep_freed_memory()
faults = []
for _ in range(10):
    kept = [torch.ones(2**22) for _ in range(6)]
    del kept
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[4])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000
