"""Connections: disconnects, slow readers, queues, time limits, and swaps of a model under load."""

import asyncio
import gc
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.serving.answers import Answers
from pipeline.serving.generation import Generation
from pipeline.serving.inbox import Inbox
from pipeline.serving.models import Loaded
from tests.registries import make_model
from tests.served import Site, SlowEngine, body, received, request, until
from tests.served import site as running


@pytest.fixture
def slow(site: Site) -> Iterator[SlowEngine]:
    """The chat model's engine, slowed down; at the end nothing of it is left in the decoder."""
    loaded = site.server.shelf.slots["chat-full"].loaded
    assert loaded is not None
    engine = loaded.engine
    loaded.engine = slowed = SlowEngine(loaded)  # type: ignore[assignment]
    yield slowed
    slowed.goes_on = True
    until(lambda: not site.server.decoder.answers, "answers are left")
    loaded.engine = engine


@pytest.mark.parametrize("stream", [True, False])
def test_decoder_frees_the_rows_of_a_client_that_disconnects(site: Site, slow: SlowEngine, stream: bool) -> None:
    with site.connect() as connection:
        connection.sendall(request(site, stream=stream, n=3))
        until(lambda: slow.active == 3 and slow.steps > 0, "the answers did not begin")
    until(lambda: not slow.busy, "the rows are still there")
    assert slow.steps == 1
    until(lambda: not site.server.decoder.answers, "the answers are still counted")


def test_server_cuts_a_reader_that_takes_nothing(tmp_path: Path) -> None:
    with running(tmp_path, ("chat-full",), unread_pieces=1) as site:
        with site.connect(SO_RCVBUF=2048) as connection:
            connection.sendall(request(site, stream=True, n=16, temperature=1.5, logprobs=True, top_logprobs=20))
            until(lambda: site.server.metrics.cut.labels("slow reader")._value.get() == 1, "the reader was not cut")
            until(lambda: not site.server.decoder.answers, "its rows are still there")
            assert not received(connection).endswith(b"0\r\n\r\n")  # no regular end
        assert httpx.get(f"{site.address}/health").status_code == 200


def test_server_answers_429_with_retry_after_when_the_queue_is_full(tmp_path: Path) -> None:
    with running(tmp_path, ("chat-full",), rows=2, queue=3, answers=16) as site:
        loaded = site.server.shelf.slots["chat-full"].loaded
        assert loaded is not None
        loaded.engine = slow = SlowEngine(loaded)  # type: ignore[assignment]
        with site.connect() as connection:
            connection.sendall(request(site, n=4))
            until(lambda: slow.steps > 0, "the answers did not begin")
            refused = httpx.post(f"{site.address}/v1/chat/completions", json=body(n=2))
            slow.goes_on = True
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        until(lambda: not site.server.decoder.answers, "answers are left")
        assert httpx.post(f"{site.address}/v1/chat/completions", json=body(n=2)).status_code == 200


def test_server_ends_a_request_with_504_when_its_time_is_over(tmp_path: Path) -> None:
    with running(tmp_path, ("chat-full",), seconds=0.3) as site:
        loaded = site.server.shelf.slots["chat-full"].loaded
        assert loaded is not None
        loaded.engine = slow = SlowEngine(loaded)  # type: ignore[assignment]
        answer = httpx.post(f"{site.address}/v1/chat/completions", json=body(), timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        slow.steps = 0
        assert b"[DONE]" not in site.raw(request(site, stream=True))  # the connection ends, or it is a 504 too
        until(lambda: not slow.busy, "the rows are still there")


def test_swap_drops_no_request_under_load(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers in progress keep the old weights; new ones have the new, with their hash in the list of models."""
    slot = site.server.shelf.slots["chat-full"]
    old = slot.loaded
    assert old is not None
    monkeypatch.chdir(tmp_path)
    new = Loaded.read(make_model("chat-full", seed=2), "2", "champion", "cpu", 32)
    settings = body(temperature=1.0, seed=4, max_tokens=24)

    async def load() -> tuple[list[str], list[str]]:
        async with httpx.AsyncClient(base_url=site.address, timeout=60) as client:

            async def one(stream: bool) -> str:
                if not stream:
                    answer = await client.post("/v1/chat/completions", json=settings)
                    assert answer.status_code == 200
                    return str(answer.json()["choices"][0]["message"]["content"])
                said, ended = "", False
                async with client.stream("POST", "/v1/chat/completions", json=settings | {"stream": True}) as answer:
                    assert answer.status_code == 200
                    async for line in answer.aiter_lines():
                        ended = ended or line == "data: [DONE]"
                        if line.startswith("data: {"):
                            choice = json.loads(line[6:])["choices"][0]
                            said += choice["delta"].get("content", "")
                assert ended
                return said

            alone = [await one(False)]
            slot.loaded = new
            alone.append(await one(False))
            slot.loaded = old
            tasks = []
            for number in range(40):
                tasks.append(asyncio.create_task(one(number % 2 == 0)))
                await asyncio.sleep(0)
                if number == 20:
                    slot.loaded = new
                await asyncio.sleep(0.002)
            return alone, await asyncio.gather(*tasks)

    try:
        alone, answers = asyncio.run(load())
    finally:
        slot.loaded = old
    assert alone[0] != alone[1]
    assert set(answers) == set(alone)


def test_connections_are_kept_for_the_next_request(site: Site) -> None:
    with site.connect() as connection:
        for _ in range(3):
            connection.sendall(request(site, max_tokens=2))
            answer = b""
            while b'"usage"' not in answer or not answer.rstrip().endswith(b"}"):
                answer += connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")


def test_server_keeps_nothing_of_300_requests_that_ended(site: Site, http: httpx.Client) -> None:
    alive = (Answers, Inbox, Generation)
    for number in range(300):
        stream, store = number % 2 == 0, number % 50 == 0
        answer = http.post("/v1/chat/completions", json=body(max_tokens=2, stream=stream, store=store))
        assert answer.status_code == 200
    until(lambda: not site.server.decoder.answers and not site.server.gate.active, "requests are left")

    def left() -> int:
        gc.collect()
        return sum(isinstance(one, alive) for one in gc.get_objects())

    until(lambda: left() <= 1, f"{left()} parts of requests are left")
