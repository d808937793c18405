"""The whole disk plays the part of inputs/, so that a test's files may lie anywhere without a sha256."""

from pathlib import Path

import pytest

from pipeline.data.sources import _inputs


@pytest.fixture(autouse=True)
def inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_inputs, "INPUTS", Path("/"))
