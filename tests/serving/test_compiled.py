"""compiled.py: the server decodes by compiled code only where that gives the answers of torch."""

import logging
import shutil
from typing import Any

import pytest

from pipeline.inference.engine import RowSettings
from pipeline.model import native
from pipeline.serving import compiled
from tests.served import Site

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@needs_compiler
@pytest.mark.parametrize(("factor", "is_compiled"), [(1.0, True), (1.05, False), (-1.0, False)])
def test_engine_of_takes_compiled_code_only_where_it_answers_as_torch_does(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, factor: float, is_compiled: bool
) -> None:
    """Lost otherwise: other answers than the evaluated ones are served, without a word."""
    loaded, exact = site.server.shelf.slots["chat-full"].loaded, native.of
    assert loaded is not None

    def changed(*given: Any) -> Any:
        step = exact(*given)
        assert step is not None
        return lambda x_BD, rope, rows: factor * step(x_BD, rope, rows)

    monkeypatch.setattr(native, "of", changed)
    monkeypatch.setattr(logging.getLogger("tohum.serving"), "propagate", True)
    engine = compiled.engine_of(loaded.model, loaded.task, 4, "chat-full")
    assert engine.is_compiled == is_compiled
    assert ("chat-full: decoded with torch, because" in caplog.text) == (not is_compiled)


def test_engine_of_decodes_with_torch_without_a_compiler(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    loaded = site.server.shelf.slots["chat-full"].loaded
    assert loaded is not None
    engine = compiled.engine_of(loaded.model, loaded.task, 4, "chat-full")
    assert not engine.is_compiled
    engine.add([5, 9], RowSettings(2))
    assert len(engine.step()) == 1
