"""Consent, ratings, late labels and erasure over HTTP, and the counts of every request."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.data.journal import Journal, NotKeptError, read, standing
from pipeline.watching.observations import Observation
from pipeline.watching.observations import read as read_observations
from tests.served import Site, until
from tests.served import site as running

TEXT = "İstanbul'da ılık bir gün ☀ Şubat"
Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(http: httpx.Client) -> Ask:
    """A request to the chat model; further fields by name."""

    def post(**more: Any) -> httpx.Response:
        messages = [{"role": "user", "content": TEXT}]
        return http.post(
            "/v1/chat/completions", json={"model": "chat-full", "messages": messages, "max_tokens": 6} | more
        )

    return post


def folder(site: Site) -> Path:
    return site.server.records._folder


def entries(site: Site, kind: str) -> list[dict[str, Any]]:
    return [dict(entry) for entry in read(folder(site)) if entry["kind"] == kind]


def identity(answer: httpx.Response) -> str:
    """The request's id, of a streamed answer from its header."""
    return str(answer.headers["x-request-id"])


@pytest.mark.parametrize("stream", [False, True])
def test_journal_keeps_a_request_with_consent_as_it_was_answered(site: Site, ask: Ask, stream: bool) -> None:
    answer = ask(store=True, user="ada", temperature=1.0, seed=3, n=2, stream=stream)
    (kept,) = [entry for entry in entries(site, "request") if entry["id"] == identity(answer)]
    whole = ask(temperature=1.0, seed=3, n=2).json()
    assert kept["messages"] == [{"role": "user", "content": TEXT}]
    assert [one["text"] for one in kept["answers"]] == [one["message"]["content"] for one in whole["choices"]]
    for one in kept["answers"]:
        assert len(one["ids"]) == len(one["logprobs"]) == 6
        assert all(value <= 0 for value in one["logprobs"])
    assert len(kept["prompt_ids"]) == whole["usage"]["prompt_tokens"]
    assert kept["settings"]["seed"] == 3
    assert kept["consent"] == "store"
    assert kept["user"].startswith("u-")
    assert "ada" not in kept["user"]
    loaded = site.server.shelf.slots["chat-full"].loaded
    assert loaded is not None
    assert (kept["model"], kept["version"], kept["model_sha256"]) == ("chat-full", None, loaded.sha256)


def test_journal_keeps_the_text_of_messages_in_parts(site: Site, ask: Ask) -> None:
    parts = [{"type": "text", "text": "İlk "}, {"type": "text", "text": "son"}]
    answer = ask(store=True, messages=[{"role": "user", "content": parts}])
    (kept,) = [entry for entry in entries(site, "request") if entry["id"] == identity(answer)]
    assert kept["messages"] == [{"role": "user", "content": "İlk son"}]


def test_journal_keeps_nothing_without_consent_and_the_watch_counts_without_text(site: Site, ask: Ask) -> None:
    before = len(entries(site, "request"))
    answer = ask()
    assert len(entries(site, "request")) == before

    def observed() -> list[Observation]:
        return [one for one in read_observations(folder(site) / "observations") if one.request == identity(answer)]

    until(lambda: bool(observed()), "the request was not counted")  # after its answer was sent
    assert [one.answer_tokens for one in observed()] == [6]
    assert observed()[0].characters == len(TEXT)
    for path in (folder(site) / "observations").glob("*"):
        assert "İstanbul" not in path.read_text(encoding="utf-8")


def test_ratings_are_kept_superseded_and_taken_back(site: Site, http: httpx.Client, ask: Ask) -> None:
    request = identity(ask(store=True, n=2, temperature=1.0))
    given = [
        {"form": "thumb", "value": "down"}, {"form": "thumb", "value": "up"}, {"form": "choice", "value": 1},
        {"form": "correction", "value": "İzmir'de"}, {"form": "undo", "value": "choice"},
    ]  # fmt: skip
    for rating in given:
        answer = http.post("/v1/ratings", json={"request": request, **rating})
        assert answer.status_code == 200, answer.text
        assert answer.json()["id"].startswith("rat-")
    rated = [entry for entry in entries(site, "rating") if entry["request"] == request]
    assert len(rated) == len(given)
    assert [(one["form"], one["value"]) for one in standing(rated)] == [("thumb", "up"), ("correction", "İzmir'de")]


@pytest.mark.parametrize(
    ("rating", "status", "names"),
    [
        ({"form": "thumb", "value": "sideways"}, 400, "up or down"),
        ({"form": "choice", "value": 1}, 400, "0 to 0"),
        ({"form": "choice", "value": True}, 400, "number"),
        ({"form": "correction", "value": "  "}, 400, "text"),
        ({"form": "star", "value": 5}, 400, "form"),
        ({"form": "thumb", "value": "up", "request": "req-" + "0" * 32}, 404, "consent"),
    ],
)
def test_ratings_are_refused_with_the_reason(
    http: httpx.Client, ask: Ask, rating: dict[str, Any], status: int, names: str
) -> None:
    answer = http.post("/v1/ratings", json={"request": identity(ask(store=True))} | rating)
    assert answer.status_code == status
    assert names in answer.json()["error"]["message"]


def test_ratings_of_a_request_without_consent_are_refused(http: httpx.Client, ask: Ask) -> None:
    answer = http.post("/v1/ratings", json={"request": identity(ask()), "form": "thumb", "value": "up"})
    assert answer.status_code == 404


def test_classify_keeps_labels_that_late_ones_join_by_id(site: Site, http: httpx.Client) -> None:
    answer = http.post("/v1/classify", json={"model": "spam-full", "input": ["free prize", TEXT], "store": True})
    data = answer.json()["data"]
    assert data[0]["id"] == answer.json()["id"] != data[1]["id"], "a label for the answer would be one for no request"
    assert [row["label"] in ("ham", "spam") for row in data] == [True, True]
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-6 for row in data)
    assert http.post("/v1/labels", json={"request": data[1]["id"], "label": "ham"}).status_code == 200
    kept = {entry["id"]: entry for entry in entries(site, "request")}
    assert [kept[row["id"]]["label"] for row in data] == [row["label"] for row in data]
    assert [kept[row["id"]]["text"] for row in data] == ["free prize", TEXT]
    assert [entry["label"] for entry in entries(site, "label") if entry["request"] == data[1]["id"]] == ["ham"]


def test_forget_takes_out_one_user_and_no_other(site: Site, http: httpx.Client, ask: Ask) -> None:
    gone, kept = identity(ask(store=True, user="silinen")), identity(ask(store=True, user="kalan"))
    assert http.post("/v1/ratings", json={"request": gone, "form": "thumb", "value": "up"}).status_code == 200
    answer = http.post("/v1/forget", json={"user": "silinen"})
    assert answer.json()["erased"] == 2
    left = {entry["id"] for entry in entries(site, "request")}
    assert gone not in left
    assert kept in left
    again = http.post("/v1/ratings", json={"request": gone, "form": "thumb", "value": "up"})
    assert again.status_code == 404


def test_forget_leaves_requests_that_arrive_while_it_reads_the_journal(
    site: Site, http: httpx.Client, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a kept answer could not be rated until the server starts again."""
    from pipeline.serving import records

    meanwhile: list[str] = []

    def reading(*given: Any, **options: Any) -> Any:
        before = list(read(*given, **options))
        meanwhile.append(identity(ask(store=True)))
        return iter(before)

    monkeypatch.setattr(records, "read", reading)
    assert http.post("/v1/forget", json={"user": "kimse"}).json()["erased"] == 0
    answer = http.post("/v1/ratings", json={"request": meanwhile[0], "form": "thumb", "value": "up"})
    assert answer.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_answer_is_an_error_when_it_cannot_be_kept(monkeypatch: pytest.MonkeyPatch, ask: Ask, stream: bool) -> None:
    def full(*_: Any) -> None:
        raise NotKeptError("journal: req was not kept: No space left on device; make room, then send it again")

    monkeypatch.setattr(Journal, "append", full)
    answer = ask(store=True, stream=stream)
    if stream:
        assert "No space left" in answer.text.splitlines()[-2]
        assert "[DONE]" not in answer.text
        assert '"finish_reason":"' not in answer.text
    else:
        assert answer.status_code == 507
        assert answer.json()["error"]["code"] == "not_kept"
    monkeypatch.undo()
    assert ask(store=True, stream=stream).status_code == 200


def test_restarted_server_takes_ratings_of_earlier_requests(tmp_path: Path) -> None:
    body = {"model": "chat-full", "messages": [{"role": "user", "content": "x"}], "store": True, "max_tokens": 2}
    with running(tmp_path, ("chat-full",)) as site:
        request = httpx.post(f"{site.address}/v1/chat/completions", json=body).headers["x-request-id"]
    with running(tmp_path, ("chat-full",)) as site:
        answer = httpx.post(f"{site.address}/v1/ratings", json={"request": request, "form": "thumb", "value": "up"})
        assert answer.status_code == 200
        assert [entry["value"] for entry in entries(site, "rating")] == ["up"]


def test_server_that_keeps_nothing_refuses_consent(tmp_path: Path) -> None:
    with running(tmp_path, ("chat-full",), consent="never") as site:
        body = {"model": "chat-full", "messages": [{"role": "user", "content": "x"}], "store": True}
        answer = httpx.post(f"{site.address}/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "store")
