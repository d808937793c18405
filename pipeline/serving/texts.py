"""The endpoints that answer in text: /v1/chat/completions and /v1/completions."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest

from pipeline.data.conversations import text_of
from pipeline.errors import UserError
from pipeline.inference.answers import ends
from pipeline.inference.engine import RowSettings
from pipeline.serving import bodies
from pipeline.serving.answers import ChatForm, CompletionForm
from pipeline.serving.context import Context, require_endpoint
from pipeline.serving.decoding import Asked
from pipeline.serving.errors import ApiError
from pipeline.serving.generation import Generation, Question
from pipeline.serving.models import Loaded
from pipeline.serving.records import new_request
from pipeline.tasks import Request

_LONG, _TURNS = 20_000, 16  # characters and turns beyond which a prompt is made outside of the event loop


async def chat(context: Context, request: HttpRequest) -> Generation:
    """POST /v1/chat/completions."""
    body = await context.body(request, bodies.ChatBody)
    slot, loaded = context.loaded(body.model)
    require_endpoint(body.model, loaded, "/v1/chat/completions")
    _require_allowed(context, body, 1)
    try:
        asked = Request.of_messages(body.messages)
    except UserError as error:
        raise ApiError(400, str(error), "messages") from None
    most = body.max_completion_tokens or body.max_tokens or context.settings.limits.tokens
    settings = _row_settings(context, body, loaded, most, body.top_logprobs)
    identity = new_request()
    question = Question(
        identity=identity, slot=slot, loaded=loaded,
        asked=[Asked(await _prompt(loaded, asked, "messages"), settings, body.n)], stops=body.stops,
        form=ChatForm(identity, slot.name, loaded.task.tokenizer, body.logprobs, body.with_usage), stream=body.stream,
        with_usage=body.with_usage, logprobs=body.logprobs,
        texts=[[{"role": message["role"], "content": text_of(message)} for message in body.messages]],
        settings=_kept(body, settings), user=context.user(request, body.user), store=body.store,
    )  # fmt: skip
    return Generation(context, question)


async def completions(context: Context, request: HttpRequest) -> Generation:
    """POST /v1/completions."""
    body = await context.body(request, bodies.CompletionBody)
    slot, loaded = context.loaded(body.model)
    require_endpoint(body.model, loaded, "/v1/completions")
    _require_allowed(context, body, len(body.prompts))
    settings = _row_settings(context, body, loaded, body.max_tokens, body.logprobs or 0)
    prompts = [await _prompt(loaded, Request(text), "prompt") for text in body.prompts]
    identity, logprobs = new_request(), body.logprobs is not None
    question = Question(
        identity=identity, slot=slot, loaded=loaded, asked=[Asked(prompt, settings, body.n) for prompt in prompts],
        stops=body.stops,
        form=CompletionForm(identity, slot.name, loaded.task.tokenizer, logprobs, body.with_usage), stream=body.stream,
        with_usage=body.with_usage, logprobs=logprobs, texts=body.prompts, settings=_kept(body, settings),
        user=context.user(request, body.user), store=body.store,
    )  # fmt: skip
    return Generation(context, question)


def _require_allowed(context: Context, body: bodies.Sampled, prompts: int) -> None:
    """Raises ApiError 400 for too many answers, or for consent where none is kept."""
    most = context.settings.limits.answers
    if prompts * body.n > most:
        raise ApiError(400, f"n is {body.n}, prompts are {prompts}; a request may have {most} answers in all", "n")
    context.records.require_consent_possible(body.store)


def _row_settings(context: Context, body: bodies.Sampled, loaded: Loaded, most: int, top_logprobs: int) -> RowSettings:
    """The engine's settings."""
    if not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in body.logit_bias):
        raise ApiError(400, "logit_bias: expected token ids as keys", "logit_bias")
    return RowSettings(
        max_tokens=min(most, context.settings.limits.tokens), temperature=body.temperature, top_k=body.top_k,
        top_p=body.top_p, stop=frozenset(ends(loaded.task)),
        seed=secrets.randbits(62) if body.seed is None else body.seed,
        top_logprobs=min(top_logprobs, loaded.model.config.vocab_size),
        bias={int(number): value for number, value in body.logit_bias.items()},
    )  # fmt: skip


def _kept(body: bodies.Sampled, settings: RowSettings) -> Mapping[str, Any]:
    """The settings that the journal keeps: with them and the weights the answer can be made again."""
    kept = {name: getattr(settings, name) for name in ("max_tokens", "temperature", "top_k", "top_p", "seed")}
    kept |= {"n": body.n, "stop": body.stops}
    return kept | ({"logit_bias": body.logit_bias} if body.logit_bias else {})


async def _prompt(loaded: Loaded, request: Request, param: str) -> Sequence[int]:
    """The task's prompt. Raises ApiError 400 that names the field of the body."""
    try:
        turns = request.earlier.turns
        characters = len(request.text) + sum(len(turn.question) + len(turn.answer) for turn in turns)
        if characters > _LONG or len(turns) > _TURNS:
            return await asyncio.to_thread(loaded.task.prompt, request)
        return loaded.task.prompt(request)
    except UserError as error:
        raise ApiError(400, str(error), param) from None
