"""The endpoints of people's judgement and rights: /v1/ratings, /v1/labels and /v1/forget."""

from typing import Any

from starlette.requests import Request as HttpRequest

from pipeline.serving import bodies
from pipeline.serving.context import Context


async def ratings(context: Context, request: HttpRequest) -> dict[str, Any]:
    """POST /v1/ratings: a person's judgement of an answer that was kept with consent."""
    body = await context.body(request, bodies.RatingBody)
    context.records.require_consent_possible(True)
    rater = context.user(request, body.user)
    identity = await context.records.keep_rating(body.request, rater, body.form, body.value)
    return {"id": identity, "object": "rating", "request": body.request, "form": body.form}


async def labels(context: Context, request: HttpRequest) -> dict[str, Any]:
    """POST /v1/labels: the true label of an earlier request, known later."""
    body = await context.body(request, bodies.LabelBody)
    await context.records.keep_label(body.request, body.label)
    return {"object": "label", "request": body.request}


async def forget(context: Context, request: HttpRequest) -> dict[str, Any]:
    """POST /v1/forget: takes all that a user of this key sent out of the journal."""
    body = await context.body(request, bodies.ForgetBody)
    return {"object": "erasure", "erased": await context.records.forget(context.user(request, body.user))}
