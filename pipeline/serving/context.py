"""Everything that endpoints share: settings, models, the decoding thread, records and figures."""

from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from pipeline.config.serving import Serving
from pipeline.serving import bodies
from pipeline.serving.decoding import Decoder
from pipeline.serving.errors import ApiError
from pipeline.serving.gate import Facts, read_body
from pipeline.serving.metrics import Metrics
from pipeline.serving.models import Loaded, Shelf, Slot
from pipeline.serving.records import Records
from pipeline.tasks import Answering, Scoring

Shape = TypeVar("Shape", bound=bodies.Body)


@dataclass(frozen=True)
class Context:
    """The parts of one server."""

    settings: Serving
    shelf: Shelf
    decoder: Decoder
    records: Records
    metrics: Metrics

    async def body(self, request: Request, shape: type[Shape]) -> Shape:
        """The checked body of a request. Raises ApiError."""
        return bodies.parsed(await read_body(request.receive, self.settings.limits.body_bytes), shape)

    def slot(self, name: str) -> Slot:
        """A served model by its name. Raises ApiError 404."""
        slots = self.shelf.slots
        found = slots.get(name) or next((slot for slot in slots.values() if slot.asked == name), None)
        if found is None:
            raise ApiError(404, f"model: no {name[:80]!r} here; one of: {', '.join(slots)}", "model", "model_not_found")
        return found

    def loaded(self, name: str) -> tuple[Slot, Loaded]:
        """A served model that can answer. Raises ApiError 404 for another name, 503 for one without a champion."""
        slot = self.slot(name)
        if slot.loaded is None:
            raise ApiError(503, f"{slot.name} has no champion now", "model", headers={"retry-after": "30"})
        return slot, slot.loaded

    def user(self, request: Request, name: str | None) -> str:
        """The pseudonym of a request's user."""
        facts: Facts = request.scope["state"]["facts"]
        return self.records.pseudonym(facts.owner, name)


def endpoint(loaded: Loaded) -> str:
    """The path that asks a model."""
    if isinstance(loaded.task, Scoring):
        return "/v1/classify"
    return "/v1/chat/completions" if isinstance(loaded.task, Answering) else "/v1/completions"


def require_endpoint(name: str, loaded: Loaded, path: str) -> None:
    """Raises ApiError 400 for a model that is asked at another path."""
    if (right := endpoint(loaded)) != path:
        task = loaded.task.spec.name
        raise ApiError(400, f"{name[:80]} has the task {task} and does not answer here; use {right}", "model")
