"""The chat template of an adopted folder: conversations rendered and encoded as transformers' apply_chat_template does.

    template = tokenizer.chat_template               # None for a folder without one
    pieces = template.render([{"role": "user", "content": "x"}], add_generation_prompt=True)
    ids = template.encode(pieces, tokenizer)

Two differences, both on purpose. A special token that a message spells stays text: only the template's own text is
matched to special tokens. And `strftime_now` is not defined, so a template that prints the date prints its own default:
equal conversations give equal ids on every day.

A template is untrusted code: it runs in jinja2's ImmutableSandboxedEnvironment, as in transformers
(utils/chat_template_utils.py), which has no files, imports or attributes of Python.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from pipeline.errors import UserError
from pipeline.foreign import shown
from pipeline.tokenizer.guards import Guard, Names, texts

Message = Mapping[str, Any]
"""role, content, and whatever else a template reads (tool_calls, ...)."""
PROBE = "yanıt"
"""An answer of which no template changes a letter."""


class TextEncoder(Protocol):
    """The part of a tokenizer that encodes a rendered conversation."""

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text."""

    def encode_after_special(self, text: str) -> list[int]:
        """Ids of ordinary text that follows a special token."""


class Marker(NamedTuple):
    """A token outside of the vocabulary's merges that a template places by its name."""

    number: int
    """Its id."""
    strips_before: bool
    """Whether white space before it belongs to it (`lstrip` of tokenizer.json)."""
    strips_after: bool
    """Whether white space after it does (`rstrip`)."""


class Piece(NamedTuple):
    """A stretch of a rendered conversation: text, or a marker."""

    text: str
    marker: Marker | None = None


class RefusedConversationError(UserError):
    """A conversation that the template itself refuses, such as one with a system message."""


class ChatTemplate:
    """A chat template with the tokens that it can place."""

    def __init__(self, source: str, variables: Mapping[str, str], markers: Mapping[str, Marker]) -> None:
        """`source`: Jinja; `variables`: bos_token, eos_token, ... -> text; `markers`: text -> Marker."""
        self.source, self.variables, self.markers = source, dict(variables), dict(markers)

    @classmethod
    def of_files(cls, content: Mapping[str, bytes]) -> "ChatTemplate | None":
        """The template of a tokenizer's files (name -> bytes); None where they have none."""
        settings = _object(content.get("tokenizer_config.json"))
        source = settings.get("chat_template")
        if isinstance(source, list):  # named templates: transformers takes the one called default
            named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
            source = named.get("default")
        if "chat_template.jinja" in content:
            source = content["chat_template.jinja"].decode("utf-8", errors="replace")
        if not isinstance(source, str) or not source.strip():
            return None
        added = _object(content.get("tokenizer.json")).get("added_tokens") or []
        markers = {
            token["content"]: Marker(token["id"], bool(token.get("lstrip")), bool(token.get("rstrip")))
            for token in added
            if token.get("special") or not token["content"].isspace()
        }
        roles = _object(content.get("special_tokens_map.json")) | settings
        variables = {}
        for role, token in roles.items():
            text = token.get("content") if isinstance(token, dict) else token
            if role.endswith("_token") and isinstance(text, str):
                variables[role] = text
        return cls(source, variables, markers)

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool, tools: Sequence[Any] | None = None
    ) -> list[Piece]:
        """A conversation as text and markers.

        Args:
            messages: of the conversation; texts in them never become markers.
            add_generation_prompt: whether the opening of an answer follows.
            tools: schemas of the tools that the model may call; None: none.

        Raises:
            RefusedConversationError: the template does not accept the conversation, or fails on it.
        """
        guarded = Guard(self._names, [*texts(messages), *texts(tools)])
        text = self._rendered(
            [{key: guarded.value(value) for key, value in message.items()} for message in messages],
            None if tools is None else [guarded.value(tool) for tool in tools],
            add_generation_prompt,
        )
        return [Piece(guarded.without_guards(piece.text), piece.marker) for piece in self._split(text)]

    def encode(self, pieces: Sequence[Piece], tokenizer: TextEncoder) -> list[int]:
        """The ids of rendered pieces, which begin a prompt or follow a special token."""
        ids: list[int] = []
        for piece in pieces:
            if piece.marker is not None:
                ids.append(piece.marker.number)
            else:
                ids += tokenizer.encode_after_special(piece.text) if ids else tokenizer.encode(piece.text)
        return ids

    @cached_property
    def turn(self) -> "Turn":
        """How an answer begins and ends.

        Raises:
            UserError: the template writes an answer elsewhere than after its opening, or ends it with no marker.
        """
        asked = [{"role": "user", "content": "soru"}]
        opening = self.render(asked, add_generation_prompt=True)
        whole = self.render([*asked, {"role": "assistant", "content": PROBE}], add_generation_prompt=False)
        rest = rest_after(opening, whole)
        place = next((number for number, piece in enumerate(rest or ()) if PROBE in piece.text), None)
        if rest is None or place is None:
            raise UserError(
                "the folder's chat template writes an answer elsewhere than after the opening that it has for one "
                "(add_generation_prompt), so it cannot be trained on; set template: alpaca in the recipe's task"
            )
        end = next((piece.marker for piece in rest[place:] if piece.marker is not None), None)
        if end is None:
            raise UserError(
                "the folder's chat template ends an answer with no special token, so generation would not stop; set "
                "template: alpaca in the recipe's task"
            )
        names = {marker.number: name for name, marker in self.markers.items()}
        opens = "".join(piece.text if piece.marker is None else names[piece.marker.number] for piece in rest[:place])
        return Turn(opens + rest[place].text.partition(PROBE)[0], end.number)

    @cached_property
    def _names(self) -> Names:
        return Names(list(self.markers))

    @cached_property
    def _template(self) -> Any:
        return _environment().from_string(self.source)

    def _rendered(self, messages: list[dict[str, Any]], tools: list[Any] | None, add_generation_prompt: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text: str = self._template.render(
                **self.variables,
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateError as error:
            raise RefusedConversationError(
                f"the folder's chat template refuses the conversation: {shown(str(error))}"
            ) from None
        except Exception as error:  # a template may do anything with a message that it does not expect
            raise RefusedConversationError(
                f"the folder's chat template fails on the conversation: {shown(error)}"
            ) from None
        return text

    def _split(self, text: str) -> list[Piece]:
        """The text cut at every marker, the longest first, as the tokenizers library cuts it."""
        pieces, start = [], 0
        for name, begin, end in self._names.occurrences(text):
            marker, before = self.markers[name], text[start:begin]
            if marker.strips_before:
                before = before.rstrip()
            if marker.strips_after:
                end += len(text[end:]) - len(text[end:].lstrip())
            pieces += [Piece(before)] if before else []
            pieces.append(Piece(name, marker))
            start = end
        return [*pieces, *([Piece(text[start:])] if text[start:] else [])]


class Turn(NamedTuple):
    """The frame of an answer in a template."""

    opens: str
    """Text between the opening of an answer and its first letter; mostly empty."""
    end: int
    """Id of the token that ends an answer."""


def rest_after(opening: Sequence[Piece], whole: Sequence[Piece]) -> list[Piece] | None:
    """The pieces of `whole` after those of `opening`; None where it does not begin with them."""
    if not opening:
        return list(whole)
    *before, last = opening
    if list(whole[: len(before)]) != before or len(whole) <= len(before):
        return None
    same = whole[len(before)]
    if last.marker is not None or same.marker is not None:
        return list(whole[len(opening) :]) if same == last else None
    if not same.text.startswith(last.text):
        return None
    remainder = same.text[len(last.text) :]
    return [*([Piece(remainder)] if remainder else []), *whole[len(opening) :]]


def without_first_blank(tokenizer_json: bytes) -> bytes | None:
    """tokenizer.json for a text that follows a special token; None where that is encoded like any other.

    Metaspace of the tokenizers library with `prepend_scheme: first` puts a blank only before a text that begins the
    input (Llama 2, Mistral).
    """
    raw = json.loads(tokenizer_json)
    steps = raw.get("pre_tokenizer") or {}
    inner = steps.get("pretokenizers", [steps])
    first = [step for step in inner if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first"]
    for step in first:
        step["prepend_scheme"] = "never"
    return json.dumps(raw).encode() if first else None


def _object(data: bytes | None) -> dict[str, Any]:
    """The JSON object in a file of the folder; {} without the file."""
    value = json.loads(data) if data else {}
    return value if isinstance(value, dict) else {}


def _environment() -> Any:
    """The sandbox of transformers: its filters and functions, and a `generation` block that only encloses."""
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """{% generation %} ... {% endgeneration %}."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 reads it from the class

        def parse(self, parser: Any) -> Any:
            """The statements inside, as they are."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    return environment
