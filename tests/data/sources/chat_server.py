"""A small server on this machine that speaks OpenAI's chat completions, as a test scripts it."""

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer:
    """Answers `script` entries first, one a request, then every prompt with `reply(prompt)`."""

    def __init__(self, reply: Callable[[str], str]) -> None:
        self.reply, self.script = reply, []
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        counting = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with counting:
                    outer.requests.append(body | {"path": self.path})
                    outer.headers.append(dict(self.headers))
                    answer = outer.script.pop(0) if outer.script else completion(outer.reply)
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    answer(self, body)
                finally:
                    with counting:
                        outer.at_once -= 1

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def send(handler, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def completion(reply: Callable[[str], str | None], finish: str = "stop", **headers: str) -> Callable:
    """A chat completion as OpenAI's servers send it: UTF-8, letters not escaped."""

    def answer(handler, body):
        text = reply(body["messages"][0]["content"])
        message = {"role": "assistant", "content": text}
        value = {
            "model": f"{body['model']}-2026-01-01",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        }
        send(handler, 200, json.dumps(value, ensure_ascii=False).encode(), **headers)

    return answer


def says(text: str | None, finish: str = "stop", **headers: str) -> Callable:
    return completion(lambda _: text, finish, **headers)


def status(code: int, body: bytes = b"", **headers: str) -> Callable:
    return lambda handler, _: send(handler, code, body, **headers)


def raw(body: bytes) -> Callable:
    return lambda handler, _: send(handler, 200, body)


def cut(handler, _) -> None:
    """Half a body, then the connection is closed."""
    send(handler, 200, b'{"choices": [{"mess', length=500)


def slow(seconds: float, then: Callable) -> Callable:
    def answer(handler, body):
        time.sleep(seconds)
        then(handler, body)

    return answer


def passage_of(prompt: str) -> str:
    """The passage in a prompt of the project's templates."""
    return re.split(r"\n(?:Passage|Parça):\n", prompt)[1]


def quoting(prompt: str) -> str:
    """A model that asks for the first sentence of the passage and answers with it."""
    sentence = re.split(r"(?<=[.!?])\s", passage_of(prompt))[0]
    words = sentence.split()
    return json.dumps({"question": f"{words[0]} {words[1]} ...?", "answer": sentence}, ensure_ascii=False)
