"""The endpoints that answer with numbers: /v1/classify and /v1/embeddings."""

import asyncio
import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest

from pipeline.prompts.spec import REWARD
from pipeline.serving import bodies
from pipeline.serving.context import Context, require_endpoint
from pipeline.serving.errors import ApiError
from pipeline.serving.models import Loaded
from pipeline.serving.records import new_request
from pipeline.tasks import Request
from pipeline.watching.observations import label_text


async def classify(context: Context, request: HttpRequest) -> dict[str, Any]:
    """POST /v1/classify: the label of every text with the probabilities of all, labels, or a number; of a reward model
    the reward of every answer.
    """
    body = await context.body(request, bodies.ClassifyBody)
    slot, loaded = context.loaded(body.model)
    require_endpoint(body.model, loaded, "/v1/classify")
    context.records.require_consent_possible(body.store)
    answers = await context.decoder.score(loaded.score, _requests(body, loaded))
    user, data, own = context.user(request, body.user), [], new_request()
    for place, (text, answer) in enumerate(zip(body.texts, answers, strict=True)):
        identity = new_request() if place else own  # a label for the answer's id is one for the first text
        if body.store:
            await context.records.keep_request(_entry(identity, loaded, user, text, answer))
        label = label_text(answer.get("label", answer.get("labels")))
        context.records.observe(
            identity,
            slot,
            loaded,
            text,
            label=label,
            confidence=answer.get("score"),
            value=answer.get("value", answer.get("reward")),
        )
        data.append({"index": place, "id": identity, **answer})
    context.metrics.tokens.labels(slot.name, "texts").inc(len(data))
    return {"id": own, "object": "list", "model": slot.name, "data": data}


async def embeddings(context: Context, request: HttpRequest) -> dict[str, Any]:
    """POST /v1/embeddings: vectors of length 1."""
    body = await context.body(request, bodies.EmbeddingBody)
    slot, loaded = context.loaded(body.model)
    vectors = await context.decoder.score(loaded.embed, body.texts)
    data = [
        {"object": "embedding", "index": place, "embedding": _encoded(vector, body.encoding_format)}
        for place, vector in enumerate(vectors)
    ]
    tokens = await asyncio.to_thread(lambda: sum(len(loaded.task.tokenizer.encode(text)) for text in body.texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": slot.name, "usage": usage}


def _requests(body: bodies.ClassifyBody, loaded: Loaded) -> list[Request]:
    """The texts of a request, for a reward model each with its answer.

    Raises:
        ApiError: answers for a model that takes none, none for a reward model, or not one for each text; 400.
    """
    scores_answers = loaded.task.spec.name == REWARD
    if scores_answers and len(body.answers) != len(body.texts):
        found = f"{len(body.answers)} answers to {len(body.texts)} inputs"
        raise ApiError(400, f"answer: {found}; a reward model scores one answer to each input", "answer")
    if not scores_answers and body.answer is not None:
        raise ApiError(400, f"answer: {body.model[:80]} is no reward model; leave it out", "answer")
    if scores_answers and body.store:
        raise ApiError(400, "store: the answers that a reward model scores are not kept; leave it out", "store")
    if not scores_answers:
        return [Request(text) for text in body.texts]
    return [Request(text, answer=answer) for text, answer in zip(body.texts, body.answers, strict=True)]


def _entry(identity: str, loaded: Loaded, user: str, text: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The journal's entry of a classified text."""
    return {
        "id": identity, "model": loaded.folder.name, "version": loaded.version, "model_sha256": loaded.sha256,
        "task": loaded.task.spec.name, "user": user, "consent": "store", "settings": {}, "text": text, "answers": [],
        "label": answer.get("label", answer.get("labels", answer.get("value"))), "scores": dict(answer),
    }  # fmt: skip


def _encoded(vector: Sequence[float], form: str) -> list[float] | str:
    """A vector as numbers, or as base64 of little-endian float32, which OpenAI's client asks for."""
    if form == "float":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
