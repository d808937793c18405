"""What tests share: one thread (two pools on two cores make each other tens of times slower), quiet tools."""

import gc
import os
import signal
import sys
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from pipeline.entry import QUIET

os.environ.update(QUIET)
# A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A deadline is a timed assertion: a busy machine would fail it.
settings.register_profile("tohum", deadline=None)
settings.load_profile("tohum")


def pytest_configure() -> None:
    """Caps torch's threads only where torch is loaded anyway."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def loaded_modules_out_of_the_collectors_sight() -> None:
    """Freezes what is loaded: the suite and its libraries are millions of objects, and a collection goes over all.

    A training collects at every validation: seconds each here, a sixth of a second in a process of its own.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Undoes two things that a test may set for its whole process.

    MLflow's set_experiment writes into the environment, where processes that later tests start would find it; params
    with two threads give two to all later tests, whose pools then wait for each other's cores.
    """
    yield
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
