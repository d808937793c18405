"""Bodies of requests: JSON, checked field by field; a field or a value that is not supported is an error that names it.

Fields and their meanings are those of OpenAI's API reference. A field without an effect here is accepted in its neutral
value only (`presence_penalty: 0`), because a client that sets another expects another answer.
"""

import json
import re
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.data.journal import TIE
from pipeline.serving.errors import ApiError

TOP_LOGPROBS = 20
"""Most alternatives of a token, as in OpenAI's API."""
_MESSAGES = 512  # of a conversation; cutting it to the context takes quadratic time
_BIASES = 1024
_STOP_CHARACTERS = 1000  # of a stop text
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "metadata": ({},),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
    "dimensions": (),
}
"""Known fields that are not supported -> their values without an effect."""


_TAG = re.compile(r"str|int|float|bool|.*[\[(].*|constrained-.*|function-.*")
"""Names by which pydantic tells the members of a union apart in an error's path."""


class Body(BaseModel):
    """Base class: exact types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


_Stop = Annotated[str, Field(max_length=_STOP_CHARACTERS)]
Stops = _Stop | Annotated[list[_Stop], Field(max_length=4)] | None


class Sampled(Body):
    """Fields that every request for a text has."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    n: Annotated[int, Field(ge=1, le=128)] = 1
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=_BIASES)] = {}
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    store: bool = False

    @model_validator(mode="after")
    def _stops_are_texts(self) -> "Sampled":
        if any(not text for text in self.stops):
            raise ValueError("stop holds an empty text; expected texts at which the answer ends")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream: true")
        return self

    @property
    def stops(self) -> list[str]:
        """Texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with its numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatBody(Sampled):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS)] = 0

    @model_validator(mode="after")
    def _asks_for_logprobs(self) -> "ChatBody":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs: true")
        return self


class CompletionBody(Sampled):
    """Body of /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] = 16
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def prompts(self) -> list[str]:
        """The texts to continue."""
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)


class ClassifyBody(Body):
    """Body of /v1/classify."""

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    answer: str | Annotated[list[str], Field(min_length=1, max_length=256)] | None = None
    """Of a reward model: the answer to score to each input."""
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    store: bool = False

    @property
    def texts(self) -> list[str]:
        """The texts to classify."""
        return [self.input] if isinstance(self.input, str) else list(self.input)

    @property
    def answers(self) -> list[str]:
        """The answers to score."""
        return [self.answer] if isinstance(self.answer, str) else list(self.answer or ())


class EmbeddingBody(Body):
    """Body of /v1/embeddings."""

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    encoding_format: Literal["float", "base64"] = "float"
    user: Annotated[str, Field(max_length=256)] | None = None

    @property
    def texts(self) -> list[str]:
        """The texts to embed."""
        return [self.input] if isinstance(self.input, str) else list(self.input)


Id = Annotated[str, Field(pattern=r"^req-[0-9a-f]{32}$")]
_TAKEN_BACK = re.compile("choice|thumb|correction|rat-[0-9a-f]{32}")


class RatingBody(Body):
    """Body of /v1/ratings."""

    request: Id
    form: Literal["choice", "thumb", "correction", "undo"]
    value: Any = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    @model_validator(mode="after")
    def _has_a_fitting_value(self) -> "RatingBody":
        value = self.value
        fits = {
            "choice": value == TIE or (type(value) is int and value >= 0),
            "thumb": value in ("up", "down"),
            "correction": isinstance(value, str) and bool(value.strip()),
            "undo": value is None or (isinstance(value, str) and _TAKEN_BACK.fullmatch(value) is not None),
        }
        expected = {
            "choice": f"the number of the better answer, from 0, or {TIE}",
            "thumb": "up or down",
            "correction": "a text",
            "undo": "choice, thumb, correction or a rating's id, or nothing for the latest rating",
        }
        if not fits[self.form]:
            raise ValueError(f"value of a {self.form}: expected {expected[self.form]}")
        return self


class LabelBody(Body):
    """Body of /v1/labels."""

    request: Id
    label: Annotated[str, Field(max_length=256)] | float | list[Annotated[str, Field(max_length=256)]]


class ForgetBody(Body):
    """Body of /v1/forget."""

    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None


Shape = TypeVar("Shape", bound=Body)


def parsed(data: bytes, shape: type[Shape]) -> Shape:
    """The body of a request. Raises ApiError 400 that names the field."""
    fields = _object(data)
    present = {key: value for key, value in fields.items() if value is not None}
    for key, neutral in _NEUTRAL.items():
        if key in present and key not in shape.model_fields:
            if not any(_same(present[key], value) for value in neutral):
                _refuse_field(key, neutral)
            del present[key]
    try:
        return shape.model_validate(present)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
        param = ".".join(step for step in map(str, problem["loc"]) if not _TAG.fullmatch(step))
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(shape.model_fields))
            raise ApiError(
                400, f"{param[:80]} is not a supported field; supported: {known}", param[:80], "unsupported_parameter"
            ) from None
        message = problem["msg"].removeprefix("Value error, ")
        raise ApiError(400, f"{param}: {message}" if param else message, param or message.partition(" ")[0]) from None


def _same(found: Any, neutral: Any) -> bool:
    """Whether two JSON values are equal; false is not 0."""
    return bool(found == neutral) and isinstance(found, bool) == isinstance(neutral, bool)


def _refuse_field(key: str, neutral: tuple[Any, ...]) -> NoReturn:
    only = f" other than {' or '.join(json.dumps(value) for value in neutral)}" if neutral else ""
    raise ApiError(400, f"{key}{only} is not supported by this server; leave it out", key, "unsupported_parameter")


def _object(data: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises ApiError 400."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: byte {error.start} cannot be decoded") from None
    try:
        value = json.loads(text, parse_constant=_no_number)
        if "\\u" in text:  # an escape may be half a character, which no tokenizer and no file takes
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ApiError(400, "the body has half a character (an unpaired \\ud800 to \\udfff); send whole ones") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is no JSON object; expected {...}")
    return value


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return "a number in it is none that JSON has, or too long"


def _no_number(_: str) -> NoReturn:
    raise ValueError
