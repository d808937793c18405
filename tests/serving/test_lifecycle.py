"""Beginning and end of the server: the command, its refusals, the drain."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.paths import QUEUE
from pipeline.serving.models import Loaded, Shelf
from pipeline.serving.server import listen, serve
from tests.commands import tohum
from tests.registries import make_model, params
from tests.served import SlowEngine, received, request, settings, until
from tests.served import site as running


def test_drain_finishes_answers_and_refuses_new_requests_with_503(tmp_path: Path) -> None:
    with running(tmp_path, ("chat-full",)) as site:
        loaded = site.server.shelf.slots["chat-full"].loaded
        assert loaded is not None
        loaded.engine = slow = SlowEngine(loaded)  # type: ignore[assignment]
        with site.connect() as connection:
            connection.sendall(request(site, stream=True))
            until(lambda: slow.steps > 0, "the answer did not begin")
            site.server.handle_exit(signal.SIGTERM, None)
            refused = httpx.post(f"{site.address}/v1/chat/completions", json={})
            assert refused.status_code == 503
            assert "retry-after" in refused.headers
            assert httpx.get(f"{site.address}/health").json() == {"status": "draining"}
            slow.goes_on = True
            assert b"data: [DONE]" in received(connection)
        site.thread.join(timeout=30)
        assert not site.thread.is_alive()


def test_health_is_503_when_the_decoding_thread_has_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lost otherwise: a server that answers nothing any more is never started again."""

    def fails(_: object) -> None:
        raise ValueError("gizli")

    with running(tmp_path, ("chat-full",)) as site:
        site.server.decoder._handle = fails  # type: ignore[method-assign]
        with site.connect() as connection:
            connection.sendall(request(site))
            until(lambda: site.server.decoder.failed, "the thread goes on")
            health = httpx.get(f"{site.address}/health")
            assert (health.status_code, health.json()) == (503, {"status": "failed"})
            body = {"model": "chat-full", "messages": [{"role": "user", "content": "x"}]}
            assert httpx.post(f"{site.address}/v1/chat/completions", json=body).status_code == 503
    assert "ValueError at test_lifecycle.py" in caplog.text
    assert "gizli" not in caplog.text


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    with running(tmp_path, ("chat-full",)) as site:
        loaded = site.server.shelf.slots["chat-full"].loaded
        assert loaded is not None
        loaded.engine = slow = SlowEngine(loaded)  # type: ignore[assignment]
        with site.connect() as connection:
            connection.sendall(request(site, stream=True))
            until(lambda: slow.steps > 0, "the answer did not begin")
            site.server.handle_exit(signal.SIGTERM, None)
            site.server.handle_exit(signal.SIGTERM, None)
            site.thread.join(timeout=30)
            assert not site.thread.is_alive()
            assert b"[DONE]" not in received(connection)


def test_command_serves_until_sigterm_and_exits_with_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_model("chat-full")
    fields = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    fields["serving"]["poll_seconds"] = 0.1
    Path("params.yaml").write_text(yaml.safe_dump(fields, allow_unicode=True), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "serve", "chat-full", "--port", "0"], cwd=tmp_path, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CXX": "none"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+)/v1, without keys\n +chat-full: .*not reviewed", said)
        assert found, said
        body = {"model": "chat-full", "messages": [{"role": "user", "content": "Merhaba"}], "max_tokens": 2}
        assert httpx.post(f"{found[1]}/v1/chat/completions", json=body, timeout=60).status_code == 200
        until((tmp_path / QUEUE / "journal.json").exists, "the sender was not told where the journal goes")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "chat-full: decoded with torch (no C++ compiler" in errors
    assert "POST /v1/chat/completions 200" in errors
    assert "Traceback" not in errors


def test_serve_refuses_another_host_without_a_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_model("base")
    chosen = params().model_copy(update={"serving": settings(tmp_path, host="0.0.0.0")})
    with pytest.raises(UserError, match=r"serving.host is 0.0.0.0, and .*keys.json holds no key.*--new-key NAME"):
        serve(["base"], chosen)


def test_serve_refuses_a_port_that_is_taken(tmp_path: Path) -> None:
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(UserError, match=f"port {port} of 127.0.0.1: .*serving.port"):
        listen("127.0.0.1", port)
    taken.close()


def test_shelf_refuses_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_model("base")
    for name in ("nothing", "../models/base", "."):
        with pytest.raises(UserError, match="no such model; one of: base"):
            Shelf([name], params(), "cpu")
    with pytest.raises(UserError, match="both served as 'base'"):
        Shelf(["base", "base"], params(), "cpu")
    weights = Path("models/base/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"model\.safetensors"):
        Shelf(["base"], params(), "cpu")


def test_new_key_is_printed_once_and_kept_as_a_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("", encoding="utf-8")
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    assert tohum("serve", "--new-key", "ada") == 0
    key = capsys.readouterr().out.strip()
    kept = (tmp_path / ".tohum/secrets/serving-keys.json").read_text(encoding="utf-8")
    assert re.fullmatch(r"tohum-[\w-]{43}", key)
    assert key not in kept
    assert list(json.loads(kept)) == ["ada"]
    assert tohum("serve", "--revoke-key", "ada") == 0


def test_embeddings_are_refused_when_the_folder_changed_after_it_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model("base")
    loaded = Loaded.read(Path("models/base"), None, "unreviewed", "cpu", 4)
    make_model("base", seed=2)
    with pytest.raises(UserError, match="changed after it was loaded"):
        loaded.embed(["x"])
