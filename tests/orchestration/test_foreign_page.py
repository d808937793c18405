"""A web page of somebody else, open in the user's browser, against the servers that `make` starts.

If these fail, that page reads the user's runs and models, or has a worker run a shell on the user's machine.
"""

import base64
import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.tracking import credentials
from tests import scratch

pytestmark = pytest.mark.slow
EVIL = "http://evil.example"
TOHUM = [sys.executable, "-m", "pipeline.cli"]
WAYS = [{"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {}]
"""Content types with which a page may send a body to another origin unasked; none: a Blob without a type."""
CLIENT = httpx.Client(timeout=120, verify=False, trust_env=False)
"""One for all: making one costs more than a request."""
SHELL = {"command": "touch owned", "working_dir": "/tmp"}
PAGE_SENDS = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": f"{EVIL}:{5000}", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
]
"""Headers that a browser puts on what a foreign page sends; the last: a page of another port of this machine."""


@dataclass(frozen=True)
class Server:
    """A running server, started in a scratch project as the Makefile does."""

    name: str
    url: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    @property
    def secret(self) -> str:
        """The line in its file."""
        return (self.folder / ".tohum/secrets" / self.name).read_text(encoding="utf-8").strip()

    @property
    def login(self) -> dict[str, str]:
        """The header that those send who know it; so does a browser that remembers it, for any page."""
        return {"Authorization": "Basic " + base64.b64encode(self.secret.encode()).decode()}

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """One request; a body is sent as JSON text under whatever content type `headers` say."""
        content = None if body is None else json.dumps(body)
        return CLIENT.request(method, self.url + path, content=content, headers=headers)

    def tell(self, path: str, body: object) -> httpx.Response:
        """A request of the user's own program."""
        return self.ask("POST", path, body, **self.login, **{"content-type": "application/json"})


def start(name: str, target: str, folder: Path) -> Iterator[Server]:
    """The server of a make target, on a free port, until the tests are through."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = scratch.environment() | {
        f"TOHUM_{name.upper()}_PORT": str(port),
        "PREFECT_HOME": str(folder / "prefect"),
    }
    for inherited in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI"):
        environment.pop(inherited, None)
    log = folder / f"{name}.log"
    # the environment is there: make shall not look after it
    command = [
        "make",
        "-s",
        "-f",
        str(ROOT / "Makefile"),
        "-o",
        ".venv/.ready",
        "-o",
        ".venv/bin/tohum",
        f"BIN={scratch.BIN}",
        target,
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    server = Server(name, f"http://127.0.0.1:{port}", folder, log, process, environment)
    try:
        await_up(server)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=120)


def await_up(server: Server) -> None:
    """Waits for the first answer, whatever it is."""
    for _ in range(1200):
        assert server.process.poll() is None, server.log.read_text()
        try:
            CLIENT.get(server.url)
            return
        except httpx.TransportError:
            time.sleep(0.25)
    raise AssertionError(server.log.read_text())


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start("prefect", "prefect", tmp_path_factory.mktemp("prefect"))


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start("mlflow", "ui", tmp_path_factory.mktemp("mlflow"))


def assert_closed(answer: httpx.Response) -> None:
    """Nothing was done, nothing is told, and no browser would let the page read the answer."""
    assert answer.status_code in (400, 401, 403)
    assert "access-control-allow-origin" not in answer.headers
    assert len(answer.content) < 200
    assert "tohum" not in answer.headers.get("set-cookie", "")


def three_posts(flow: str) -> list[tuple[str, object]]:
    """With which a page made the worker run a shell: a flow, a work pool, a deployment with a command."""
    template = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
    return [
        ("/api/flows/", {"name": flow}),
        ("/api/work_pools/", {"name": flow, "type": "process", "base_job_template": template}),
        (
            "/api/deployments/",
            {"name": flow, "flow_id": "0" * 8 + "-0000-4000-8000-" + "0" * 12, "job_variables": SHELL},
        ),
    ]


def everything(prefect: Server) -> list[int]:
    """How much the server holds of what the three make."""
    return [len(prefect.tell(f"/api/{what}/filter", {}).json()) for what in ("flows", "work_pools", "deployments")]


def test_prefect_refuses_changes_by_a_foreign_page(prefect: Server) -> None:
    """Seen: three POSTs, and the worker ran a shell."""
    before = everything(prefect)
    for headers in PAGE_SENDS:
        for way in WAYS:
            for path, body in three_posts("evil"):
                assert_closed(prefect.ask("POST", path, body, **headers, **way))
                assert_closed(prefect.ask("POST", path, body, **headers, **way, **prefect.login))
    for way in WAYS:  # a browser that says nothing of the page
        assert_closed(prefect.ask("POST", *three_posts("evil")[0], **way))
    assert everything(prefect) == before


def test_prefect_refuses_reads_by_a_foreign_page(prefect: Server) -> None:
    for headers in PAGE_SENDS:
        assert_closed(prefect.ask("GET", "/api/health", **headers, **prefect.login))
        assert_closed(prefect.ask("GET", "/api/admin/settings", **headers))
        assert_closed(prefect.ask("POST", "/api/flow_runs/filter", {}, **headers))
        assert_closed(prefect.ask("GET", "/", **headers))
    for path in ("/api/flows/", "/api/deployments/x/create_flow_run"):
        preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        assert_closed(prefect.ask("OPTIONS", path, Origin=EVIL, **preflight))


def test_prefect_answers_the_user(prefect: Server) -> None:
    """Refusing everybody would pass the tests above: the same posts, with the secret, do something."""
    before = everything(prefect)
    flow, pool, deployment = three_posts("mine")
    made = prefect.tell(*flow)
    assert made.status_code == 201
    assert prefect.tell(*pool).status_code == 201
    path, body = deployment
    assert isinstance(body, dict)
    answer = prefect.tell(path, body | {"flow_id": made.json()["id"], "work_pool_name": "mine", "job_variables": {}})
    assert answer.status_code == 201, answer.text
    assert everything(prefect) == [count + 1 for count in before]
    page = prefect.ask("GET", "/")
    assert page.status_code == 200
    assert "html" in page.text
    assert prefect.ask("GET", "/ui-settings").json()["auth"] == "BASIC"
    own = {"Origin": prefect.url, "Sec-Fetch-Site": "same-origin"}
    assert prefect.ask("POST", "/api/flows/filter", {}, **own, **prefect.login).status_code == 200


def test_prefect_answers_its_command_line(prefect: Server) -> None:
    """As prefect.yaml says: the secret comes from its file, through the environment."""
    command = [*TOHUM, "run", sys.executable, "-m", "prefect", "flow", "ls"]
    done = subprocess.run(
        command, cwd=prefect.folder, env=prefect.environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert prefect.secret not in done.stdout + done.stderr


def test_mlflow_refuses_changes_by_a_foreign_page(mlflow: Server) -> None:
    names = [("/api/2.0/mlflow/experiments/create", "evil"), ("/ajax-api/2.0/mlflow/registered-models/create", "evil")]
    for headers in PAGE_SENDS:
        for way in WAYS:
            for path, name in names:
                assert_closed(mlflow.ask("POST", path, {"name": name}, **headers, **way))
                assert_closed(mlflow.ask("POST", path, {"name": name}, **headers, **way, **mlflow.login))
        upload = "/api/2.0/mlflow-artifacts/artifacts/0/evil.txt"
        assert_closed(mlflow.ask("PUT", upload, "x", **headers, **mlflow.login))
    found = mlflow.tell("/api/2.0/mlflow/experiments/search", {"max_results": 9}).json()
    assert [one["name"] for one in found["experiments"]] == ["Default"]
    assert not list(mlflow.folder.rglob("evil*"))


def test_mlflow_refuses_reads_by_a_foreign_page(mlflow: Server) -> None:
    for headers in [*PAGE_SENDS, {}]:
        login = mlflow.login if headers else {}
        for path in ("/", "/health", "/version", "/api/2.0/mlflow/experiments/get?experiment_id=0", "/graphql"):
            assert_closed(mlflow.ask("GET", path, **headers, **login))
    preflight = {"Access-Control-Request-Method": "POST"}
    assert_closed(mlflow.ask("OPTIONS", "/api/2.0/mlflow/experiments/search", Origin=EVIL, **preflight))


def test_mlflow_answers_the_user(mlflow: Server) -> None:
    """A browser, after the password; a link from elsewhere to a page of it; MLflow's client with the variables."""
    page = mlflow.ask("GET", "/", **mlflow.login, **{"Sec-Fetch-Site": "none"})
    assert page.status_code == 200
    assert "html" in page.text
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert mlflow.ask("GET", "/start", **mlflow.login, **link).status_code == 200  # where a first visit goes
    assert mlflow.ask("GET", "/", **mlflow.login, **link, Cookie="tohum_visited=1").status_code == 200
    assert_closed(mlflow.ask("GET", "/", **mlflow.login, **link | {"Sec-Fetch-Dest": "iframe"}))
    assert "www-authenticate" in mlflow.ask("GET", "/").headers
    program = (
        "import mlflow\n"
        f"mlflow.set_tracking_uri({mlflow.url!r})\n"
        "with mlflow.start_run():\n"
        "    mlflow.log_text('ışık', 'a.txt')\n"
        "print(len(mlflow.search_runs()))\n"
    )
    command = [*TOHUM, "run", sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=mlflow.folder, env=mlflow.environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1"
    assert list((mlflow.folder / "mlartifacts").rglob("a.txt"))


def test_mlflow_opens_as_model_training(mlflow: Server) -> None:
    """Lost otherwise: a reviewer's first look at the runs is MLflow's empty page of traces."""
    visit = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", **mlflow.login}
    CLIENT.cookies.clear()  # as a browser that was never here
    first = mlflow.ask("GET", "/", **visit)
    assert (first.status_code, first.headers["location"]) == (307, "/start")
    start = mlflow.ask("GET", "/start", **visit)
    assert "localStorage.setItem('mlflow.workflowType_v1', JSON.stringify('machine_learning'))" in start.text
    cookie = start.headers["set-cookie"].partition(";")[0]
    assert mlflow.ask("GET", "/", **visit, Cookie=cookie).status_code == 200
    assert_closed(mlflow.ask("GET", "/start"))
    pages = Path(str(importlib.util.find_spec("mlflow").origin)).parent / "server/js/build/static/js"
    text = "".join(path.read_text(encoding="utf-8") for path in pages.glob("main.*.js"))
    assert 'key:"mlflow.workflowType",version:1' in text
    assert 'e.MACHINE_LEARNING="machine_learning"' in text


@pytest.mark.parametrize("which", ["prefect", "mlflow"])
def test_servers_refuse_another_host_name(which: str, request: pytest.FixtureRequest) -> None:
    """DNS rebinding: evil.example is made to mean 127.0.0.1, and its page is then of the same origin."""
    server: Server = request.getfixturevalue(which)
    port = server.url.rpartition(":")[2]
    for host in (
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1.evil.example:{port}",
        f"10.0.0.1:{port}",
        "127.0.0.1",
    ):
        for path in ("/", "/api/health", "/version"):
            assert_closed(server.ask("GET", path, Host=host, Origin=f"http://{host}", **server.login))
    moved = server.ask("GET", "/a?b=1", Host=f"localhost:{port}", **{"Sec-Fetch-Mode": "navigate"})
    assert (moved.status_code, moved.headers["location"]) == (307, f"{server.url}/a?b=1")


@pytest.mark.parametrize("which", ["prefect", "mlflow"])
def test_servers_refuse_a_websocket_of_a_foreign_page(which: str, request: pytest.FixtureRequest) -> None:
    """Browsers ask nobody before they open one to another origin."""
    server: Server = request.getfixturevalue(which)
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Origin": EVIL}
    handshake |= {"Sec-WebSocket-Key": base64.b64encode(b"0" * 16).decode(), "Sec-WebSocket-Protocol": "prefect"}
    for path in ("/api/events/out", "/api/events/in", "/api/logs/out"):
        assert server.ask("GET", path, **handshake).status_code == 403


@pytest.mark.parametrize("which", ["prefect", "mlflow"])
def test_servers_refuse_a_wrong_password(which: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(which)
    path = "/api/flows/filter" if which == "prefect" else "/api/2.0/mlflow/experiments/search"
    user, _, password = server.secret.partition(":")
    for wrong in (f"{user}:", f"{user}:x", f":{password}", password, f"{server.secret}x", f"admin:{password}"):
        header = {"Authorization": "Basic " + base64.b64encode(wrong.encode()).decode()}
        assert server.ask("POST", path, {"max_results": 1}, **header).status_code == 401
    for odd in ("Basic", "Basic !", f"Bearer {password}", server.secret):
        assert server.ask("POST", path, {"max_results": 1}, Authorization=odd).status_code == 401


@pytest.mark.parametrize("which", ["prefect", "mlflow"])
def test_servers_listen_on_loopback_and_keep_the_secret_private(which: str, request: pytest.FixtureRequest) -> None:
    """Other users of the machine see every process's arguments; logs are sent around."""
    server: Server = request.getfixturevalue(which)
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    password = server.secret.partition(":")[2]
    listening = [
        one.laddr.ip for process in processes for one in process.net_connections() if one.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}
    assert not [one for process in processes for one in process.cmdline() if password in one]
    said = server.log.read_text(encoding="utf-8")
    assert password not in said
    assert f".tohum/secrets/{which}" in said
    path = server.folder / ".tohum/secrets" / which
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(password) >= 40


def test_serve_refuses_a_port_that_is_taken(mlflow: Server) -> None:
    command = [*TOHUM, "ui"]
    done = subprocess.run(
        command, cwd=mlflow.folder, env=mlflow.environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: port ")
    assert "TOHUM_MLFLOW_PORT" in done.stderr


TEMPORARY = """
import asyncio, json
import httpx
from pipeline.orchestration import flow
from prefect.server.api.server import create_app
from prefect.settings import PREFECT_API_AUTH_STRING

async def ask() -> None:
    evil = {"Origin": "http://evil.example"}
    transport = httpx.ASGITransport(app=create_app(ephemeral=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        answers = [
            await client.post("/api/flows/", content='{"name": "evil"}', headers=evil),
            await client.post("/api/flows/filter", content="{}", headers=evil),
            await client.options("/api/flows/", headers=evil | {"Access-Control-Request-Method": "POST"}),
            await client.get("/api/admin/version", auth=tuple(PREFECT_API_AUTH_STRING.value().split(":"))),
        ]
    print(json.dumps([[one.status_code, one.headers.get("access-control-allow-origin")] for one in answers]))

with flow.closed():
    asyncio.run(ask())
"""
"""The server that Prefect starts for a flow without one, asked by a foreign page."""


def test_flow_closes_its_temporary_server_to_others(tmp_path: Path) -> None:
    """It shares its database with the server that workers ask: a run made here is run there."""
    environment = scratch.environment() | {"PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(ROOT)}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-c", TEMPORARY]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[401, None], [401, None], [400, None], [200, None]]


def test_secret_is_made_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a second start would lock out the first one's clients, or a secret that all may read be used."""
    monkeypatch.chdir(tmp_path)
    first = credentials.secret("mlflow")
    assert credentials.secret("mlflow") == first
    assert credentials.secret("prefect") != first
    path = tmp_path / ".tohum/secrets/mlflow"
    path.chmod(0o644)
    with pytest.raises(UserError, match="other users may read it"):
        credentials.secret("mlflow")
    path.chmod(0o600)
    for damaged in ("", "tohum:", "tohum:short\n", "\xff"):
        path.write_bytes(damaged.encode("latin-1"))
        with pytest.raises(UserError, match="holds no secret"):
            credentials.secret("mlflow")
    path.unlink()
    path.symlink_to("/dev/null")
    with pytest.raises(UserError, match="no plain file"):
        credentials.secret("mlflow")
    assert sorted(one.name for one in path.parent.iterdir()) == ["mlflow", "prefect"]


def test_client_environment_gives_no_secret_to_the_users_own_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: our password would go to a foreign server, or replace the user's login there."""
    monkeypatch.chdir(tmp_path)
    theirs = {"PREFECT_API_URL": "https://prefect.example/api", "MLFLOW_TRACKING_URI": "https://mlflow.example"}
    assert credentials.client_environment(theirs) == {}
    assert not (tmp_path / ".tohum").exists()
    ours = credentials.client_environment({})
    assert ours["PREFECT_API_URL"] == f"{credentials.address('prefect')}/api"
    assert set(ours) == {
        "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    }  # fmt: skip
    monkeypatch.setenv("TOHUM_MLFLOW_PORT", "http")
    with pytest.raises(UserError, match="TOHUM_MLFLOW_PORT is 'http', expected a port"):
        credentials.client_environment({})
