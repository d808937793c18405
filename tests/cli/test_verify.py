"""`tohum verify`: lost otherwise, a script takes a version that differs, or whose replay differs, for a good one."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli import verify
from pipeline.studies import verification
from pipeline.training import replay


@pytest.mark.parametrize(
    ("check", "beginning", "stretch", "expected"),
    [
        ("", "", "", 0),
        ("other", "", "", 1),
        ("", "the state is another", "", 1),
        ("", "", "a tensor differs", 1),
        ("", "", None, 0),
        ("", "the state is another", None, 1),
    ],
)
def test_verify_exits_with_1_when_a_comparison_or_a_replayed_stretch_differs(
    check: str,
    beginning: str,
    stretch: str | None,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = None if stretch is None else SimpleNamespace(sentence=stretch, first=2, last=4, tensors=3)
    monkeypatch.setattr(verification, "verify", lambda *_: [verification.Check("commit", check)])
    monkeypatch.setattr(replay, "replay", lambda *_: SimpleNamespace(sentence=beginning, step=1))
    monkeypatch.setattr(replay, "replay_stretch", lambda *_: found)
    version = SimpleNamespace(name="tohum-base", version="3", tags={"tohum.model": "base"})
    registry: Any = SimpleNamespace(
        find=lambda _: version, verify=lambda _: SimpleNamespace(version_sha256="a1"), params=None
    )
    assert verify._one(registry, "tohum-base/3", replay=True) == expected
    printed = capsys.readouterr().out
    for sentence in (check, beginning, stretch):
        assert not sentence or f"differs: {sentence}" in printed or f": {sentence}" in printed
    assert ("not replayed in the middle" in printed) == (stretch is None)
