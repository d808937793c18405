"""The journal at MLflow: every consented request is a trace, every rating that stands an assessment, each once.

If these fail, people's judgement is lost or counted twice on its way, or stays there after it was taken back.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.journal import Journal
from pipeline.paths import CODE, QUEUE
from pipeline.tracking import sender
from pipeline.tracking.delivery_errors import AwayError
from pipeline.tracking.journal_box import JournalBox, announce
from pipeline.tracking.mlflow_traces import Traces
from pipeline.tracking.start_sender import deliver_journal
from tests.commands import tohum
from tests.data.test_journal import rating, request
from tests.tracking.test_sender import free_port, kill, serve

ANSWERS = [{"text": "Işık var.", "ids": [1], "logprobs": [-0.5]}, {"text": "Yok."}]
SAID = [
    request("req-1", answers=ANSWERS),
    request("req-2", "u-b", answers=ANSWERS[:1]),
    rating("rat-1", value="up"),
    rating("rat-2", rater="u-b", form="choice", value=1),
    rating("rat-3", form="correction", value="İpek gibi."),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for the module: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('traces')}/mlflow.db"


@pytest.fixture
def journal(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """A journal that goes to an experiment of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    announce(store, tmp_path.name)
    return Journal()


def say(journal: Journal, *entries: dict[str, Any]) -> None:
    for entry in entries:
        journal.append(entry)


def found(store: str) -> dict[str, Any]:
    """Request -> its trace, in the experiment of the working folder; fails where a request has two."""
    from mlflow import MlflowClient
    from mlflow.tracing.client import TracingClient

    experiment = MlflowClient(store).get_experiment_by_name(f"{Path.cwd().name}-use")
    assert experiment is not None
    traces = list(TracingClient(tracking_uri=store).search_traces(locations=[experiment.experiment_id]))
    by_request = {trace.info.client_request_id: trace for trace in traces}
    assert len(by_request) == len(traces)
    return by_request


def assessments(store: str, request: str = "req-1") -> list[tuple[Any, ...]]:
    """(name, value, rater) of each assessment of a request's trace."""
    return sorted(
        (one.name, (one.feedback or one.expectation).value, one.source.source_id)
        for one in found(store)[request].info.assessments
    )


FIRST = [("choice", 1, "u-b"), ("correction", "İpek gibi.", "u-a"), ("thumb", True, "u-a")]


def test_sender_delivers_requests_as_traces_and_ratings_as_assessments(journal: Journal, store: str) -> None:
    say(journal, *SAID, request("req-3", consent=None), rating("rat-9", "req-3"))
    assert sender.drain(timeout_s=60) == 0
    assert set(found(store)) == {"req-1", "req-2"}
    assert assessments(store) == FIRST
    assert assessments(store, "req-2") == []
    trace = found(store)["req-1"]
    assert trace.data.spans[0].inputs["input"] == SAID[0]["text"]
    assert trace.data.spans[0].outputs == ["Işık var.", "Yok."]
    assert trace.info.tags["tohum.model_sha256"] == "0" * 64


def test_sender_follows_rerating_undo_and_late_labels(journal: Journal, store: str) -> None:
    say(journal, *SAID)
    assert sender.drain(timeout_s=60) == 0
    for number in range(20):
        say(journal, rating(f"rat-again-{number}", value=("up", "down")[number % 2]))
        if number % 7 == 0:
            assert sender.drain(timeout_s=60) == 0
    say(
        journal, rating("rat-u", form="undo", value="correction"), rating("rat-v", rater="u-b", form="undo", value=None)
    )
    say(journal, *({"kind": "label", "request": "req-1", "label": label, "by": "file"} for label in ("ham", "spam")))
    assert sender.drain(timeout_s=60) == 0
    assert assessments(store) == [("label", "spam", "label"), ("thumb", False, "u-a")]


@pytest.mark.parametrize("moment", ["before the first trace", "after the assessments", "before the cursor"])
def test_sender_repeats_and_loses_nothing_when_killed(
    journal: Journal, store: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(journal, *SAID)

    class Killed(BaseException):
        """A kill, which runs no handler of errors."""

    assess = Traces._assess

    def dies(self: Any, *rest: Any) -> Any:
        if moment == "after the assessments":
            assess(self, *rest)
        raise Killed

    with monkeypatch.context() as patched:
        if moment == "before the cursor":
            patched.setattr(JournalBox, "save", dies)
        else:
            patched.setattr(Traces, "_trace" if moment == "before the first trace" else "_assess", dies)
        with pytest.raises(Killed):
            sender.drain(timeout_s=60)
    assert sender.drain(timeout_s=60) == 0
    assert set(found(store)) == {"req-1", "req-2"}
    assert assessments(store) == FIRST


@pytest.mark.parametrize("cursor", ["", "[]", '{"number": -1}', '{"number": 0, "store": "another"}'])
def test_sender_delivers_all_once_when_the_cursor_is_damaged(journal: Journal, store: str, cursor: str) -> None:
    say(journal, *SAID)
    assert sender.drain(timeout_s=60) == 0
    (QUEUE / "journal.cursor.json").write_text(cursor)
    say(journal, rating("rat-4", value="down"))
    assert sender.drain(timeout_s=60) == 0
    assert assessments(store) == [*FIRST[:2], ("thumb", False, "u-a")]


def test_sender_erases_a_person_but_not_what_came_later(journal: Journal, store: str) -> None:
    say(journal, *SAID, rating("rat-4", "req-2"))
    assert sender.drain(timeout_s=60) == 0
    journal.erase("u-b")
    say(journal, request("req-5", "u-b"))
    assert sender.drain(timeout_s=60) == 0
    assert set(found(store)) == {"req-1", "req-5"}
    assert assessments(store) == FIRST[1:]


@pytest.mark.slow
def test_sender_waits_for_a_server_that_is_away(journal: Journal, store: str, tmp_path: Path) -> None:
    port = free_port()
    announce(f"http://127.0.0.1:{port}", tmp_path.name)
    say(journal, *SAID)
    with pytest.raises(AwayError):
        sender.Sender().round()
    assert sender.drain(timeout_s=1) == 1
    server = serve(store, port, tmp_path)
    try:
        assert sender.drain(timeout_s=60) == 0
        say(journal, rating("rat-4", value="down"))
        assert sender.drain(timeout_s=60) == 0
    finally:
        kill(server)
    assert assessments(store) == [*FIRST[:2], ("thumb", False, "u-a")]
    assert found(store)["req-1"].data.spans[0].outputs == ["Işık var.", "Yok."]


def test_deliver_journal_starts_a_sender_only_where_entries_wait(
    journal: Journal, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    monkeypatch.setattr("pipeline.tracking.start_sender.start_sender", lambda: started.append(True))
    deliver_journal(store, tmp_path.name)
    assert started == []
    say(journal, SAID[0])
    deliver_journal(store, tmp_path.name)
    assert started == [True]


def test_box_begins_anew_when_the_journal_was_removed(journal: Journal, tmp_path: Path) -> None:
    say(journal, *SAID)
    box = JournalBox()
    box.cursor.number = 5
    box.save()
    assert not JournalBox().is_waiting()
    shutil.rmtree(tmp_path / "journal")
    say(Journal(), SAID[0])
    again = JournalBox()
    assert again.is_waiting()
    assert [entry["id"] for entry in again.entries()] == ["req-1"]


def test_deliver_verb_says_where_the_journal_goes_before_a_server_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a journal that the command calls delivered, because it knows of none."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        Path(name).write_bytes((CODE / name).read_bytes())
    monkeypatch.setattr(sender, "drain", lambda **_: int(JournalBox().address() is None))
    assert tohum("journal", "deliver") == 0
    assert JournalBox().address() == ("sqlite:///mlflow.db", "tohum-use")
