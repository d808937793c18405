"""The endpoints: OpenAI's for texts and embeddings, and our own for labels, ratings and erasure."""

import asyncio
import base64
import json
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route, Router

from pipeline.config.serving import Serving
from pipeline.errors import UserError
from pipeline.inference.answers import ends
from pipeline.inference.engine import RowSettings
from pipeline.orchestration.same_origin import Receive, Scope, Send
from pipeline.serving import bodies, static
from pipeline.serving.answers import ChatForm, CompletionForm
from pipeline.serving.decoding import Asked, Decoder
from pipeline.serving.errors import ApiError
from pipeline.serving.gate import Facts, read_body
from pipeline.serving.generation import Generation, Question, Service
from pipeline.serving.metrics import Metrics
from pipeline.serving.models import Loaded, Shelf, Slot
from pipeline.serving.records import Records, new_request
from pipeline.tasks import Answering, Request, Scoring

_LONG = 20_000  # characters from which a prompt is encoded outside of the event loop


class App:
    """The endpoints as an ASGI application; the gate is in front of it."""

    def __init__(self, settings: Serving, shelf: Shelf, decoder: Decoder, records: Records, metrics: Metrics) -> None:
        self._settings, self._shelf, self._decoder, self._records, self._metrics = (
            settings, shelf, decoder, records, metrics,
        )  # fmt: skip
        self._service = Service(decoder, records, metrics, settings.limits.unread_pieces)
        self._started = int(time.time())
        self.draining: Callable[[], bool] = lambda: False
        posts: dict[str, Callable[[HttpRequest], Awaitable[Any]]] = {
            "/v1/chat/completions": self.chat,
            "/v1/completions": self.completions,
            "/v1/classify": self.classify,
            "/v1/embeddings": self.embeddings,
            "/v1/ratings": self.ratings,
            "/v1/labels": self.labels,
            "/v1/forget": self.forget,
        }
        gets: dict[str, Callable[[HttpRequest], Awaitable[Any]]] = {
            "/": static.index,
            "/page/{name}": static.file,
            "/health": self.health,
            "/metrics": self.figures,
            "/v1/models": self.models,
            "/v1/models/{name:path}": self.model,
        }
        self._paths = {*posts, *(path for path in gets if "{" not in path)}
        routes = [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
        routes += [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3. Raises ApiError, for the gate."""
        scope["app"] = self  # Starlette raises an HTTPException then
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            expected = ", ".join(sorted(self._paths))
            message = f"no such path or method; expected one of: {expected}"
            raise ApiError(error.status_code, message, headers=error.headers) from None

    def knows(self, path: str) -> bool:
        """Whether a path is one of the server's."""
        return path in self._paths or static.has(path)

    async def chat(self, request: HttpRequest) -> Generation:
        """POST /v1/chat/completions."""
        body = bodies.parsed(await self._body(request), bodies.ChatBody)
        slot, loaded = self._loaded(body.model)
        if loaded.engine is None or not isinstance(loaded.task, Answering):
            raise _other_endpoint(body.model, loaded)
        try:
            asked = Request.of_messages(body.messages)
        except UserError as error:
            raise ApiError(400, str(error), "messages") from None
        messages = [{"role": message["role"], "content": message["content"]} for message in body.messages]
        most = body.max_completion_tokens or body.max_tokens or self._settings.limits.tokens
        settings, kept = self._row_settings(body, loaded, most, body.top_logprobs)
        prompts = [await self._prompt(loaded, asked, "messages")]
        identity, usage = new_request(), bool(body.stream_options and body.stream_options.include_usage)
        form = ChatForm(identity, slot.name, loaded.task.tokenizer, body.logprobs, usage)
        return self._generation(
            request, body, slot, loaded, identity, form, prompts, settings, kept, [messages], body.logprobs
        )

    async def completions(self, request: HttpRequest) -> Generation:
        """POST /v1/completions."""
        body = bodies.parsed(await self._body(request), bodies.CompletionBody)
        slot, loaded = self._loaded(body.model)
        if loaded.engine is None or isinstance(loaded.task, Answering):
            raise _other_endpoint(body.model, loaded)
        settings, kept = self._row_settings(body, loaded, body.max_tokens, body.logprobs or 0)
        prompts = [await self._prompt(loaded, Request(text), "prompt") for text in body.prompts]
        identity, usage = new_request(), bool(body.stream_options and body.stream_options.include_usage)
        logprobs = body.logprobs is not None
        form = CompletionForm(identity, slot.name, loaded.task.tokenizer, logprobs, usage)
        return self._generation(
            request, body, slot, loaded, identity, form, prompts, settings, kept, body.prompts, logprobs
        )

    def _generation(  # noqa: PLR0913 - the two endpoints' common end
        self, request: HttpRequest, body: bodies.Sampled, slot: Slot, loaded: Loaded, identity: str,
        form: ChatForm | CompletionForm, prompts: Sequence[Sequence[int]], settings: RowSettings, kept: dict[str, Any],
        texts: Sequence[Any], logprobs: bool,
    ) -> Generation:  # fmt: skip
        most = self._settings.limits.answers
        if len(prompts) * body.n > most:
            raise ApiError(400, f"n is {body.n}; a request may have {most} answers in all", "n")
        self._records.require_consent_possible(body.store)
        return Generation(
            self._service,
            Question(
                identity=identity, slot=slot, loaded=loaded,
                asked=[Asked(prompt, settings, body.n) for prompt in prompts],
                stops=body.stops, form=form, stream=body.stream,
                with_usage=bool(body.stream_options and body.stream_options.include_usage),
                logprobs=logprobs, texts=texts, settings=kept,
                user=self._records.pseudonym(_facts(request).owner, body.user), store=body.store,
            ),
        )  # fmt: skip

    def _row_settings(
        self, body: bodies.Sampled, loaded: Loaded, most: int, top_logprobs: int
    ) -> tuple[RowSettings, dict[str, Any]]:
        """The engine's settings, and those that the journal keeps."""
        seed = secrets.randbits(62) if body.seed is None else body.seed
        most = min(most, self._settings.limits.tokens)
        if not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in body.logit_bias):
            raise ApiError(400, "logit_bias: expected token ids as keys", "logit_bias")
        settings = RowSettings(
            max_tokens=most, temperature=body.temperature, top_k=body.top_k, top_p=body.top_p,
            stop=frozenset(ends(loaded.task)), seed=seed,
            top_logprobs=min(top_logprobs, loaded.model.config.vocab_size),
            bias={int(number): value for number, value in body.logit_bias.items()},
        )  # fmt: skip
        kept: dict[str, Any] = {"max_tokens": most, "temperature": body.temperature, "top_k": body.top_k}
        kept |= {"top_p": body.top_p, "seed": seed}
        kept |= {"n": body.n, "stop": body.stops}
        return settings, kept | ({"logit_bias": body.logit_bias} if body.logit_bias else {})

    async def _prompt(self, loaded: Loaded, request: Request, param: str) -> list[int]:
        """The task's prompt. Raises ApiError 400 that names the field of the body."""
        try:
            if len(request.text) + sum(len(turn.question) + len(turn.answer) for turn in request.earlier.turns) > _LONG:
                return await asyncio.to_thread(loaded.task.prompt, request)
            return loaded.task.prompt(request)
        except UserError as error:
            raise ApiError(400, str(error), param) from None

    async def classify(self, request: HttpRequest) -> Response:
        """POST /v1/classify: the label of every text with the probabilities of all, or a number."""
        body = bodies.parsed(await self._body(request), bodies.ClassifyBody)
        slot, loaded = self._loaded(body.model)
        if not isinstance(loaded.task, Scoring):
            raise _other_endpoint(body.model, loaded)
        self._records.require_consent_possible(body.store)
        answers = await self._decoder.score(loaded.score, [Request(text) for text in body.texts])
        user = self._records.pseudonym(_facts(request).owner, body.user)
        data = []
        for place, (text, answer) in enumerate(zip(body.texts, answers, strict=True)):
            identity = new_request()
            if body.store:
                label = answer.get("label", answer.get("labels", answer.get("value")))
                await self._records.keep_request(
                    {"id": identity, "model": loaded.folder.name, "version": loaded.version,
                     "model_sha256": loaded.sha256, "task": loaded.task.spec.name, "user": user, "consent": "store",
                     "settings": {}, "text": text, "answers": [], "label": label, "scores": answer}
                )  # fmt: skip
            self._records.observe(
                identity, slot, loaded, text, label=answer.get("label"), confidence=answer.get("score"),
                value=answer.get("value"),
            )  # fmt: skip
            data.append({"index": place, "id": identity, **answer})
        self._metrics.tokens.labels(slot.name, "texts").inc(len(data))
        return _json({"id": new_request(), "object": "list", "model": slot.name, "data": data})

    async def embeddings(self, request: HttpRequest) -> Response:
        """POST /v1/embeddings: vectors of length 1."""
        body = bodies.parsed(await self._body(request), bodies.EmbeddingBody)
        slot, loaded = self._loaded(body.model)
        vectors = await self._decoder.score(loaded.embed, body.texts)
        data = [
            {"object": "embedding", "index": place, "embedding": _encoded(vector, body.encoding_format)}
            for place, vector in enumerate(vectors)
        ]
        tokens = sum(len(loaded.task.tokenizer.encode(text)) for text in body.texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"object": "list", "data": data, "model": slot.name, "usage": usage})

    async def ratings(self, request: HttpRequest) -> Response:
        """POST /v1/ratings: a person's judgement of an answer that was kept with consent."""
        body = bodies.parsed(await self._body(request), bodies.RatingBody)
        self._records.require_consent_possible(True)
        rater = self._records.pseudonym(_facts(request).owner, body.user)
        identity = await self._records.keep_rating(body.request, rater, body.form, body.value)
        return _json({"id": identity, "object": "rating", "request": body.request, "form": body.form})

    async def labels(self, request: HttpRequest) -> Response:
        """POST /v1/labels: the true label of an earlier request, known later."""
        body = bodies.parsed(await self._body(request), bodies.LabelBody)
        await self._records.keep_label(body.request, body.label)
        return _json({"object": "label", "request": body.request})

    async def forget(self, request: HttpRequest) -> Response:
        """POST /v1/forget: takes all that a user of this key sent out of the journal."""
        body = bodies.parsed(await self._body(request), bodies.ForgetBody)
        user = self._records.pseudonym(_facts(request).owner, body.user)
        return _json({"object": "erasure", "erased": await self._records.forget(user)})

    async def health(self, _: HttpRequest) -> Response:
        """GET /health: 200 while requests are taken, 503 while the server ends."""
        draining = self.draining()
        return _json({"status": "draining" if draining else "ok"}, 503 if draining else 200)

    async def figures(self, _: HttpRequest) -> Response:
        """GET /metrics."""
        self._metrics.answers.set(self._decoder.answers)
        self._metrics.model.clear()
        for slot in self._shelf.slots.values():
            if slot.loaded is not None:
                self._metrics.model.labels(slot.name, slot.loaded.version or "-", slot.loaded.standing).set(1)
        return Response(self._metrics.text(), media_type=self._metrics.content_type)

    async def models(self, _: HttpRequest) -> Response:
        """GET /v1/models."""
        return _json({"object": "list", "data": [self._described(slot) for slot in self._shelf.slots.values()]})

    async def model(self, request: HttpRequest) -> Response:
        """GET /v1/models/NAME."""
        return _json(self._described(self._slot(request.path_params["name"])))

    def _described(self, slot: Slot) -> dict[str, Any]:
        described = {"id": slot.name, "object": "model", "created": self._started, "owned_by": "tohum"}
        loaded = slot.loaded
        if loaded is None:
            return described | {"ready": False, "fault": slot.fault}
        spec = loaded.task.spec
        return described | {
            "ready": True,
            "fault": slot.fault or None,
            "asked_as": slot.asked,
            "version": loaded.version,
            "review": loaded.standing,
            "model_sha256": loaded.sha256,
            "task": spec.name,
            "endpoint": _endpoint(loaded),
            "labels": list(spec.outputs) if isinstance(loaded.task, Scoring) else None,
            "max_prompt_tokens": spec.max_prompt_tokens,
            "context_length": loaded.model.room(),
        }

    def _slot(self, name: str) -> Slot:
        """A served model by its name. Raises ApiError 404."""
        slots = self._shelf.slots
        found = slots.get(name) or next((slot for slot in slots.values() if slot.asked == name), None)
        if found is None:
            raise ApiError(404, f"model: no {name[:80]!r} here; one of: {', '.join(slots)}", "model", "model_not_found")
        return found

    def _loaded(self, name: str) -> tuple[Slot, Loaded]:
        """Raises ApiError 404 for another name, 503 for a model without a champion."""
        slot = self._slot(name)
        if slot.loaded is None:
            raise ApiError(503, f"{slot.name} has no champion now", "model", headers={"retry-after": "30"})
        return slot, slot.loaded

    async def _body(self, request: HttpRequest) -> bytes:
        return await read_body(request.receive, self._settings.limits.body_bytes)


def _facts(request: HttpRequest) -> Facts:
    facts: Facts = request.scope["state"]["facts"]
    return facts


def _endpoint(loaded: Loaded) -> str:
    """The path that asks a model."""
    if isinstance(loaded.task, Scoring):
        return "/v1/classify"
    return "/v1/chat/completions" if isinstance(loaded.task, Answering) else "/v1/completions"


def _other_endpoint(name: str, loaded: Loaded) -> ApiError:
    """An error 400 for a model that is asked at another path."""
    task = loaded.task.spec.name
    return ApiError(400, f"{name} has the task {task} and does not answer here; use {_endpoint(loaded)}", "model")


def _encoded(vector: Sequence[float], form: str) -> list[float] | str:
    if form == "float":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, media_type="application/json")
