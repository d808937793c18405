"""Answers of a chat model to many prompts: requested several at once, retried, kept on disk, given in order.

An endpoint speaks OpenAI's chat completions (POST <endpoint>/chat/completions). An answer is a file of .tohum/answers,
named by the hash of (prompt, model, settings) and written when it arrives: an interrupted download continues with the
missing ones, and a rerun asks nothing. The key is read from its environment variable, sent, and written nowhere.
"""

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from pipeline.config.params import ChatModel
from pipeline.data.sources._kept_answers import Answer, Kept, Refusal
from pipeline.errors import UserError

_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}
_REFUSALS = {400, 413, 422}
"""Status codes that may concern one prompt only: too long, or refused by a filter."""
_MOST_REFUSALS = 5
"""Refusals before any answer after which the request itself is taken to be wrong."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LONGEST_STATED_PAUSE_S = 300.0
_DETAIL = 200


class _TransientError(Exception):
    """A failed attempt that is worth a retry, and the pause that the server asks for in seconds."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


def stated_address(model: ChatModel) -> str:
    """The model's address as provenance states it: host of the endpoint, name of its variable, or the folder."""
    if model.endpoint is None:
        return str(model.folder)
    return model.endpoint if model.endpoint.startswith("$") else urlsplit(model.endpoint).netloc.rpartition("@")[2]


def answers(model: ChatModel, prompts: Iterable[str], kept: Path, where: str) -> Iterator[Answer | Refusal]:
    """The answers to prompts, in their order; only those that are not kept are requested.

    Args:
        model: the model and how persistently it is asked.
        prompts: read as far as there are requests to make.
        kept: folder of the kept answers.
        where: the model's section of params.yaml in errors, such as download.sources.faq.ask.

    Raises:
        UserError: no key, the server refuses or fails in all attempts, or another folder than pinned. Answers that
            have arrived are kept.
    """
    store = Kept(kept, model)
    if model.folder is not None:
        from pipeline.data.sources._folder_model import answers_of_folder

        yield from answers_of_folder(model, prompts, store, where)
        return
    endpoint = _Endpoint(model, where)
    with ThreadPoolExecutor(model.concurrency) as pool:
        waiting: deque[tuple[str, Future[Answer | Refusal]]] = deque()
        requested: dict[str, Future[Answer | Refusal]] = {}  # equal prompts are one request
        try:
            for prompt in prompts:
                if prompt not in requested:
                    requested[prompt] = pool.submit(_answer, prompt, store, endpoint.ask)
                waiting.append((prompt, requested[prompt]))
                if len(waiting) >= 2 * model.concurrency:
                    yield _oldest(waiting, requested)
            while waiting:
                yield _oldest(waiting, requested)
        finally:
            endpoint.stopped.set()  # requests that wait for their next attempt end now
            pool.shutdown(cancel_futures=True)


def _oldest(
    waiting: "deque[tuple[str, Future[Answer | Refusal]]]", requested: "dict[str, Future[Answer | Refusal]]"
) -> Answer | Refusal:
    prompt, future = waiting.popleft()
    received = future.result()
    requested.pop(prompt, None)
    return received


def _answer(prompt: str, store: Kept, ask: Callable[[str], Answer | Refusal]) -> Answer | Refusal:
    if (answer := store.get(prompt)) is not None:
        return answer
    received = ask(prompt)
    if isinstance(received, Answer):
        store.put(prompt, received)
    return received


class _Endpoint:
    """Requests to one endpoint, from several threads."""

    def __init__(self, model: ChatModel, where: str) -> None:
        self._model, self._where = model, where
        self._url = f"{_address(model, where).rstrip('/')}/chat/completions"
        self._key = _variable(model.key, f"{where}.key") if model.key is not None else None
        self._refusals = self._received = 0
        self._counting = threading.Lock()
        self.stopped = threading.Event()

    def ask(self, prompt: str) -> Answer | Refusal:
        """One answer, in as many attempts as allowed. Raises UserError after the last one."""
        failures = 0
        while True:
            try:
                return self._counted(self._attempt(prompt))
            except _TransientError as error:
                failures += 1
                if failures > self._model.retries or self.stopped.is_set():
                    raise UserError(
                        f"{stated_address(self._model)}: {error}, after {failures} attempts; answers that have arrived "
                        f"are kept: run again, or raise {self._where}.retries"
                    ) from None
                self.stopped.wait(error.pause_s or min(_FIRST_PAUSE_S * 2.0 ** (failures - 1), _LONGEST_PAUSE_S))

    def _counted(self, received: Answer | Refusal) -> Answer | Refusal:
        with self._counting:
            if isinstance(received, Answer):
                self._received += 1
                return received
            self._refusals += 1
            if self._refusals >= _MOST_REFUSALS and not self._received:
                raise UserError(
                    f"{stated_address(self._model)}: {received.detail}, for each of {self._refusals} prompts; expected "
                    f"answers: correct model, max_tokens or temperature in {self._where}"
                )
        return received

    def _attempt(self, prompt: str) -> Answer | Refusal:
        model = self._model
        body = {
            "model": model.model, "messages": [{"role": "user", "content": prompt}], "temperature": model.temperature,
            "max_tokens": model.max_tokens, "seed": model.seed, "stream": False,
        }  # fmt: skip
        try:
            response = requests.post(
                self._url, json=body, auth=self._authorise, timeout=model.timeout_s, allow_redirects=False
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _TransientError(f"the connection failed ({self._without_secrets(type(error).__name__)})") from None
        except requests.RequestException as error:
            raise UserError(f"{self._where}.endpoint: no valid address ({type(error).__name__}); correct it") from None
        return _received(response.content) if response.status_code == 200 else self._not_ok(response)

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sets the key; being called at all keeps requests from sending a password of ~/.netrc."""
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _not_ok(self, response: requests.Response) -> Refusal:
        status = f"the server answers {response.status_code} {response.reason or ''}".rstrip()
        said = self._without_secrets(response.content.decode("utf-8", "replace"))
        detail = f"{status}: {' '.join(said.split())[:_DETAIL]}" if said.strip() else status
        if response.status_code in _WORTH_RETRYING:
            raise _TransientError(status, _stated_pause(response))
        if response.status_code in _REFUSALS:
            return Refusal(detail)
        advice = f"check the address, the model and the key in {self._where}"
        if response.status_code in (401, 403):
            variable = self._model.key
            advice = f"check the key in {variable}" if variable else f"name its variable in {self._where}.key"
        raise UserError(f"{stated_address(self._model)}: {detail}; expected 200: {advice}")

    def _without_secrets(self, text: str) -> str:
        secrets = [self._key, *([self._url] if str(self._model.endpoint).startswith("$") else [])]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text


def _received(body: bytes) -> Answer:
    """The answer in a response's body, whose letters are UTF-8 whatever its header says (RFC 8259, section 8.1)."""
    try:
        value = json.loads(body)
        choice = value["choices"][0]
        content, finish = choice["message"].get("content"), choice.get("finish_reason")
        named = value.get("model")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _TransientError(f"the body is no chat completion ({_start(body)})") from None
    if not isinstance(content, str | None):
        raise _TransientError(f"the answer is {type(content).__name__}, expected text")
    return Answer(content or "", str(named or ""), str(finish or ""))


def _start(body: bytes) -> str:
    return repr(" ".join(body[:_DETAIL].decode("utf-8", "replace").split())[:60])


def _stated_pause(response: requests.Response) -> float:
    """Seconds that the server asks to wait (Retry-After, RFC 9110 section 10.2.3); 0 where it states none."""
    try:
        seconds = float(response.headers.get("Retry-After", "0"))
    except ValueError:  # a date
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_STATED_PAUSE_S) if seconds == seconds else 0.0


def _address(model: ChatModel, where: str) -> str:
    endpoint = str(model.endpoint)
    if not endpoint.startswith("$"):
        return endpoint
    address = _variable(endpoint[1:], f"{where}.endpoint")
    if not address.startswith(("http://", "https://")):
        raise UserError(f"the environment variable {endpoint[1:]} holds no http address; set it to one ending in /v1")
    return address


def _variable(name: str, where: str) -> str:
    if not (value := os.environ.get(name, "").strip()):
        raise UserError(f"{where} names the environment variable {name}, which is not set; set it and run again")
    return value


def as_provenance(model: ChatModel, template_sha256: str, named: Iterable[str]) -> dict[str, Any]:
    """The provenance of asked answers: address, models as answered, settings, hash of the prompt template."""
    return {
        "asked": stated_address(model),
        "models": sorted(named),
        "settings": model.model_dump(include={"model", "sha256", "temperature", "max_tokens", "seed"}),
        "prompts_sha256": template_sha256,
    }
