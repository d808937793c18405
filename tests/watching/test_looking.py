"""Looks: verdicts, episodes that are reported once, alpha spent once, and what stops a look."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.data import journal
from pipeline.errors import UserError
from pipeline.paths import OBSERVATIONS, WATCH
from pipeline.watching import accept, announced, evidence, looking, spending
from pipeline.watching.evidence import Evidence
from pipeline.watching.looking import Look
from pipeline.watching.observations import read
from pipeline.watching.state import State
from tests.watching.synthetic import MODEL, SHA, Server, project


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return project(tmp_path, monkeypatch)


def labels(ids: list[str], wrong: float, server: Server) -> Evidence:
    """Labels of requests, a share of them other than what was answered."""
    answered = {one.request: one.label for one in read(OBSERVATIONS)}
    flip = {"spam": "ham", "ham": "spam"}
    given = {
        request: flip[str(answered[request])] if server.generator.random() < wrong else str(answered[request])
        for request in ids
    }
    return Evidence({}, given, {})


def test_look_is_quiet_when_nothing_drifts(server: Server) -> None:
    known = labels(server.serve(200), 0.05, server)
    found = server.look(known)
    assert (found.verdict, found.evidence, found.new, found.requests) == ("quiet", (), False, 200)
    assert {one.name for one in found.quality} == {"accuracy"}
    assert found.level == spending.level(1)
    assert Look.of_plain(json.loads(json.dumps(found.plain()))) == found


def test_look_only_warns_when_inputs_drift_and_labels_stay_right(server: Server) -> None:
    """Covariate shift without loss: lost otherwise, every new topic would start a retraining."""
    known = labels(server.serve(200, unknown=0.3), 0.05, server)
    found = server.look(known)
    assert (found.verdict, found.evidence, found.new) == ("warning", ("input",), True)


def test_look_alarms_when_labels_change_at_unchanged_inputs(server: Server) -> None:
    """Concept drift, the twin of the case above: nothing but late labels shows it."""
    known = labels(server.serve(200), 0.25, server)
    found = server.look(known)
    assert (found.verdict, found.evidence, found.new) == ("alarm", ("quality",), True)
    assert [one.name for one in found.quality if one.worse] == ["accuracy"]


def test_look_does_not_call_input_drift_an_alarm_when_no_label_came(server: Server) -> None:
    server.serve(200, unknown=0.4, spam=0.8)
    found = server.look()
    assert (found.verdict, found.evidence) == ("warning", ("input",))
    assert [(one.name, one.needed > 0) for one in found.missing] == [
        ("accuracy", True),
        ("thumbs", True),
        ("loss", False),
    ]


def test_look_alarms_when_a_text_model_has_a_higher_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = project(tmp_path, monkeypatch, generate=True)
    server.serve(200, nats=0.3)
    assert server.look().verdict == "quiet"
    server.serve(200, nats=0.36)
    found = server.look()
    assert (found.verdict, [one.name for one in found.quality if one.worse]) == ("alarm", ["loss"])


def test_episode_is_reported_once_and_again_after_recovery(server: Server) -> None:
    seen = []
    for unknown in (0.02, 0.3, 0.3, 0.02, 0.02, 0.02, 0.3):
        server.serve(200, unknown=unknown)
        found = server.look()
        seen.append((found.verdict, found.new))
        announced(MODEL, found.episode)
    assert seen == [
        ("quiet", False),
        ("warning", True),
        ("warning", False),
        ("warning", False),
        ("quiet", False),
        ("quiet", False),
        ("warning", True),
    ]
    assert len({episode.id for episode in State.read(WATCH / MODEL).episodes}) == 2


def test_look_is_reported_again_when_nobody_was_told(server: Server) -> None:
    """A kill between the state and the message loses no alarm."""
    server.serve(200, unknown=0.3)
    first = server.look()
    again = server.look()
    assert (again.fresh, again.new, again.episode) == (False, True, first.episode)
    announced(MODEL, first.episode)
    assert server.look().new is False


def test_look_spends_no_alpha_when_too_little_is_new(server: Server) -> None:
    server.serve(200)
    server.look()
    server.serve(10)
    assert server.look().fresh is False
    assert State.read(WATCH / MODEL).period_looks == 1
    server.serve(30)
    assert server.look().fresh is True


def test_look_spends_nothing_when_it_is_killed_before_its_state_is_written(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve(200, unknown=0.3)
    with monkeypatch.context() as patch:
        patch.setattr(State, "write", lambda _state, _folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            server.look()
    assert State.read(WATCH / MODEL).looks == 0
    found = server.look()
    assert (found.number, found.level, found.new) == (1, spending.level(1), True)


def test_look_tests_again_when_labels_arrive_for_old_requests(server: Server) -> None:
    ids = server.serve(200)
    assert server.look().verdict == "quiet"
    found = server.look(labels(ids, 0.3, server))
    assert (found.fresh, found.verdict) == (True, "alarm")


def test_look_begins_a_new_period_after_a_month(server: Server) -> None:
    levels = []
    for _ in range(2):
        server.serve(200)
        levels.append(server.look().level)
    state = State.read(WATCH / MODEL)
    state.period_looks = spending.LOOKS + 3
    state.write(WATCH / MODEL)
    server.serve(200)
    levels.append(server.look().level)
    server.count += 31 * 24 * 60
    server.serve(200)
    levels.append(server.look().level)
    assert levels == [spending.level(1), spending.level(2), spending.level(34), spending.level(1)]


def test_look_begins_anew_when_another_model_is_served(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve(200, unknown=0.3)
    assert server.look().verdict == "warning"
    from tests.watching import synthetic

    monkeypatch.setattr(synthetic, "SHA", "cd" * 32)
    server.serve(700)
    found = server.look()
    assert (found.model_sha256, found.reference["source"], found.verdict) == ("cd" * 32, "requests", "quiet")
    assert found.requests == 200
    assert [episode.ended is None for episode in State.read(WATCH / MODEL).episodes] == [False]


def test_look_stays_with_its_model_when_another_version_answers_beside_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.watching import synthetic

    server.serve(200, unknown=0.3)
    looks = [server.look()]
    for _ in range(2):
        for _ in range(50):
            server.serve(4, unknown=0.3)
            with monkeypatch.context() as patch:
                patch.setattr(synthetic, "SHA", "cd" * 32)
                server.serve(1)
        looks.append(server.look())
    assert [found.model_sha256 for found in looks] == [SHA] * 3
    assert [found.level for found in looks] == [spending.level(number) for number in (1, 2, 3)]
    assert len({found.episode for found in looks}) == 1


def test_keep_labels_drops_nothing_of_a_journal_larger_than_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    request = {"kind": "request", "model": MODEL, "model_sha256": SHA, "task": "spam", "user": "u-a"}
    kept = journal.Journal(folder, journal.UNBOUNDED, 0)
    for number in range(20):
        kept.append(request | {"id": f"req-{number}", "consent": "store", "text": "x" * 400, "answers": []})
    kept.close()
    monkeypatch.setattr(journal.Journal.__init__, "__defaults__", (folder, 1 << 12, 365))
    assert evidence.keep_labels({"req-0": "ham"}, "file", folder) == 1
    found = evidence.of_journal(folder)
    assert (len(found.texts), found.labels) == (20, {"req-0": "ham"})


def test_accept_makes_new_requests_the_reference_when_drift_is_the_new_state(server: Server) -> None:
    server.serve(200, unknown=0.3)
    assert server.look().verdict == "warning"
    assert accept(MODEL, window=200) == 200
    server.serve(200, unknown=0.3)
    found = server.look()
    assert (found.verdict, found.reference["source"], found.reference["judged"]) == ("quiet", "requests", 400)


def test_look_names_what_is_missing_when_it_cannot_be_made(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"no request to spam-lora of the last 90 days; serve it .tohum serve spam-lora"
    ):
        server.look()
    server.serve(10)
    with pytest.raises(UserError, match="10 requests were observed since it is served; a look needs 30"):
        server.look()
    with pytest.raises(UserError, match="--window is 5; expected at least 30"):
        server.look(window=5)
    with pytest.raises(UserError, match=r"no request to \.\./other of the last 90 days; .* one of: spam-lora"):
        looking.look("../other", now=server.now())
    with pytest.raises(UserError, match=r"no request to \.\./other; serve it"):
        accept("../other")
    assert not (WATCH / "../other").exists()
    (WATCH / MODEL / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state.json: damaged; restore it"):
        server.look()


def test_folder_of_refuses_another_model_when_the_hash_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.watching.champion import folder_of

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="spam-lora: the requests were answered by a model with sha256 abababab"):
        folder_of(MODEL, SHA)


def test_look_forgets_requests_of_long_ago(server: Server) -> None:
    server.serve(40)
    server.count += int(timedelta(days=91).total_seconds() / 60)
    with pytest.raises(UserError, match="no request to spam-lora"):
        server.look()
