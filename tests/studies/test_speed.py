"""The duration that a try states before it begins."""

from pathlib import Path

import pytest

from pipeline.orchestration.process import Processes, StageError
from pipeline.studies.speed import expected_seconds, words
from pipeline.studies.workspace import params
from tests.own_files import guessed

RAW = params(Path("inputs/own.csv"), guessed("labelled", ("text", "label")))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2, "about 10 s"), (44, "about 40 s"), (56, "about 1 min"), (170, "about 3 min"), (7300, "about 122 min")],
)
def test_words_round_a_duration(seconds: float, said: str) -> None:
    assert words(seconds) == said


def test_expected_seconds_adds_starts_and_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """17 stages of 2 s each; updates of 0.01 s, and of the two recipes of 0.02 s, counted twice."""
    asked: list[str] = []

    def run(_: Processes, command: list[str], **__: object) -> list[str]:
        asked.extend(command)
        return ["a warning", "measured: [2.0, 0.01, 0.02]"]

    monkeypatch.setattr(Processes, "run", run)
    steps = RAW["pretrain"]["schedule"]["steps"]
    assert expected_seconds(RAW, 30) == (17 * 2.0 + steps * 0.01 + 2 * 2 * 150 * 0.02, 17)
    assert asked[0] == "pipeline.studies.speed"
    beside = expected_seconds(RAW, 30, beside=2)
    assert beside is not None
    assert beside[0] == 14 * 2.0 + steps * 0.01 + 2 * 150 * 0.02


def test_expected_seconds_is_none_where_nothing_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a try would end with the error of its estimate."""

    def run(*_: object, **__: object) -> list[str]:
        raise StageError("no memory")

    monkeypatch.setattr(Processes, "run", run)
    assert expected_seconds(RAW, 30) is None


def test_expected_seconds_are_measured_in_a_process_of_its_own() -> None:
    expected = expected_seconds(RAW, 30)
    assert expected is not None
    assert expected[0] > 0
