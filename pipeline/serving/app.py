"""The application: paths and their endpoints, the list of models, health and figures."""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from pipeline.orchestration.same_origin import Receive, Scope, Send
from pipeline.serving import feedback, scores, static, texts
from pipeline.serving.context import Context, endpoint
from pipeline.serving.errors import ApiError
from pipeline.serving.models import Slot
from pipeline.tasks import Scoring

Endpoint = Callable[[Context, Request], Awaitable[Any]]
_POSTS: dict[str, Endpoint] = {
    "/v1/chat/completions": texts.chat,
    "/v1/completions": texts.completions,
    "/v1/classify": scores.classify,
    "/v1/embeddings": scores.embeddings,
    "/v1/ratings": feedback.ratings,
    "/v1/labels": feedback.labels,
    "/v1/forget": feedback.forget,
}


class App:
    """The endpoints as an ASGI application; the gate is in front of it."""

    def __init__(self, context: Context, draining: Callable[[], bool]) -> None:
        """`draining`: whether the server ends."""
        self._context, self._draining, self._started = context, draining, int(time.time())
        gets = {
            "/": static.index,
            "/page/{name}": static.file,
            "/health": self.health,
            "/metrics": self.figures,
            "/v1/models": self.models,
            "/v1/models/{name:path}": self.model,
        }
        self._paths = {*_POSTS, *(path for path in gets if "{" not in path)}
        routes = [Route(path, self._posted(function), methods=["POST"]) for path, function in _POSTS.items()]
        routes += [Route(path, function, methods=["GET"]) for path, function in gets.items()]
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

    async def health(self, _: Request) -> Response:
        """GET /health: 200 while requests are taken; 503 while the server ends, or when decoding has failed."""
        status = "failed" if self._context.decoder.failed else "draining" if self._draining() else "ok"
        return _json({"status": status}, 200 if status == "ok" else 503)

    async def figures(self, _: Request) -> Response:
        """GET /metrics."""
        metrics = self._context.metrics
        metrics.answers.set(self._context.decoder.answers)
        metrics.model.clear()
        for slot in self._context.shelf.slots.values():
            if slot.loaded is not None:
                metrics.model.labels(slot.name, slot.loaded.version or "-", slot.loaded.standing).set(1)
        return Response(metrics.text(), media_type=metrics.content_type)

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        slots = self._context.shelf.slots.values()
        return _json({"object": "list", "data": [self._described(slot) for slot in slots]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        return _json(self._described(self._context.slot(request.path_params["name"])))

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
            "endpoint": endpoint(loaded),
            "labels": list(spec.outputs) if isinstance(loaded.task, Scoring) else None,
            "decoded_by": None if loaded.engine is None else "compiled" if loaded.engine.is_compiled else "torch",
            "max_prompt_tokens": spec.max_prompt_tokens,
            "context_length": loaded.model.room(),
        }

    def _posted(self, function: Endpoint) -> Callable[[Request], Awaitable[Any]]:
        """A function of context and request as Starlette calls it; it returns a response, or the JSON of one."""

        async def answer(request: Request) -> Any:
            answered = await function(self._context, request)
            return _json(answered) if isinstance(answered, dict) else answered

        return answer


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, media_type="application/json")
