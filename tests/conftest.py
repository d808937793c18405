"""What tests share: one thread (two pools on two cores make each other tens of times slower), quiet tools."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

from stages import QUIET

os.environ.update(QUIET)
# A deadline is a timed assertion: a busy machine would fail it.
settings.register_profile("tohum", deadline=None)
settings.load_profile("tohum")


def pytest_configure() -> None:
    """Caps torch's threads only where torch is loaded anyway."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
