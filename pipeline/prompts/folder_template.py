"""Prompts in the chat template of the model's own folder (`template: model`): ids as of apply_chat_template.

`prompt` and `answer` are the counterparts of those in pipeline/prompts/templates.py. A long prompt is cut the same way:
the template renders the messages that are left, so no marker of it is ever cut.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from pipeline.data.conversations import Turn
from pipeline.errors import UserError
from pipeline.prompts.request import Request
from pipeline.prompts.vocabulary import Prompt, Vocabulary, without_middle
from pipeline.tokenizer.chat_template import ChatTemplate, Piece, RefusedConversationError, rest_after

_STAND_IN, _STAND_INS = "\ue001{}\ue002", re.compile("\ue001([0-9]+)\ue002")
"""Text that no template changes, in place of a message's."""
_FIRST_MARKER = 0xF0000
"""Code point (private use) that stands for the first marker in a text where markers are one character each."""


def template_of(tokenizer: Vocabulary) -> ChatTemplate:
    """The chat template of a vocabulary. Raises UserError where it has none that an answer can be learned in."""
    template = tokenizer.chat_template
    if template is None:
        raise UserError(
            "template 'model' needs a chat template, and the tokenizer's folder has none (chat_template.jinja, or "
            "chat_template in tokenizer_config.json); set template: alpaca in the recipe's task"
        )
    _ = template.turn
    return template


def prompt(tokenizer: Vocabulary, request: Request, limit: int, *, learns_earlier: bool) -> Prompt:
    """The prompt of a request, at most `limit` tokens; arguments as of pipeline.prompts.templates.prompt.

    Raises:
        UserError: a folder without a chat template.
        RefusedConversationError: the template does not accept the messages.
    """
    template, (system, turns) = template_of(tokenizer), request.earlier
    for dropped in range(len(turns) + 1):
        kept = turns[dropped:]
        messages = _messages(system, kept, request.text)
        pieces = template.render(messages, add_generation_prompt=True)
        ids = template.encode(pieces, tokenizer)
        if len(ids) <= limit:
            if not learns_earlier or not kept:
                return Prompt(ids, [False] * len(ids))
            return Prompt(ids, _learned(tokenizer, template, messages, kept, pieces))
    ids = _cut(tokenizer, template, system, request.text, limit)
    return Prompt(ids, [False] * len(ids))


def answer(tokenizer: Vocabulary, output: str) -> list[int]:
    """Ids of an answer after its opening, the token that ends it included; errors as of `prompt`."""
    template = template_of(tokenizer)
    asked = _messages("", (), "soru")
    opening = template.render(asked, add_generation_prompt=True)
    whole = template.render([*asked, {"role": "assistant", "content": output}], add_generation_prompt=False)
    rest = rest_after(opening, whole)
    ends = [place for place, piece in enumerate(rest or ()) if _is_end(template, piece)]
    if rest is None or not ends:
        raise RefusedConversationError(
            f"the folder's chat template does not write the answer {output[:40]!r} after its opening"
        )
    before = template.encode(opening, tokenizer)
    through = template.encode(whole[: len(whole) - len(rest) + ends[-1] + 1], tokenizer)
    if through[: len(before)] == before:
        return through[len(before) :]
    # the last id of the opening would change with the answer, and generation begins after it as it is
    ids: list[int] = []
    for piece in rest[: ends[-1] + 1]:
        ids += [piece.marker.number] if piece.marker is not None else tokenizer.encode_after_special(piece.text)
    return ids


def markers(tokenizer: Vocabulary) -> int:
    """The most tokens that the template adds to one turn with a system message, or without where it refuses one."""
    template = template_of(tokenizer)
    size = len(_ids(tokenizer, template, "", "x"))
    try:
        return max(size, len(_ids(tokenizer, template, "x", "x")))
    except RefusedConversationError:
        return size


def _messages(system: str, turns: Sequence[Turn], question: str) -> list[dict[str, str]]:
    """The list of messages that a template renders."""
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
    return [*messages, {"role": "user", "content": question}]


def _ids(tokenizer: Vocabulary, template: ChatTemplate, system: str, question: str) -> list[int]:
    pieces = template.render(_messages(system, (), question), add_generation_prompt=True)
    return template.encode(pieces, tokenizer)


def _cut(tokenizer: Vocabulary, template: ChatTemplate, system: str, question: str, limit: int) -> list[int]:
    """Ids of a turn that is longer than the limit: question and system message lose their middles.

    The system message stays whole while it takes at most half of the room that the markers leave.
    """
    texts = {"system": tokenizer.encode(system) if system else [], "question": tokenizer.encode(question)}
    room = max(limit - (len(_ids(tokenizer, template, "x" if system else "", "x")) - (2 if system else 1)), 0)
    system_room = min(len(texts["system"]), max(room - len(texts["question"]), room // 2))
    question_room = room - system_room
    while True:
        kept_system = _text_without_middle(tokenizer, system, texts["system"], system_room)
        kept = _text_without_middle(tokenizer, question, texts["question"], question_room)
        ids = _ids(tokenizer, template, kept_system, kept)
        over = len(ids) - limit
        if over <= 0 or not (question_room or system_room):
            return ids
        question_room, over = max(question_room - over, 0), max(over - question_room, 0)
        system_room = max(system_room - over, 0)


def _text_without_middle(tokenizer: Vocabulary, text: str, ids: list[int], most: int) -> str:
    """The text of at most so many of its ids, whole characters only."""
    if len(ids) <= most:
        return text
    kept = without_middle(ids, most)
    head = most // 2
    return "".join(tokenizer.decode(part).strip("\ufffd") for part in (kept[:head], kept[head:]))


def _is_end(template: ChatTemplate, piece: Piece) -> bool:
    return piece.marker is not None and piece.marker.number == template.turn.end


def _learned(
    tokenizer: Vocabulary,
    template: ChatTemplate,
    messages: Sequence[dict[str, str]],
    turns: Sequence[Turn],
    pieces: Sequence[Piece],
) -> list[bool]:
    """Per id of a rendered conversation: whether it belongs to an earlier answer, its end included, that is learned."""
    text = _flat(template, pieces)
    spans = _spans(template, messages, text)
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    taught = [spans[place] for place, turn in zip(answers, turns, strict=True) if turn.learned]
    learned: list[bool] = []
    at = 0
    for piece in pieces:
        size = 1 if piece.marker is not None else len(piece.text)
        if piece.marker is not None:
            learned.append(any(begin <= at < end for begin, end in taught))
        else:
            inside = [(begin - at, end - at) for begin, end in taught]
            encode = tokenizer.encode_after_special if learned else tokenizer.encode
            learned += _learned_ids(encode, piece.text, inside)
        at += size
    return learned


def _learned_ids(encode: Callable[[str], list[int]], text: str, spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Per id of a text: whether it lies within one of the spans of characters; an id across a bound does not."""
    ids = encode(text)
    learned = [False] * len(ids)
    for begin, end in spans:
        if end > 0 and begin < len(text):
            before, through = encode(text[: max(begin, 0)]), encode(text[:end])
            first, last = _shared(before, ids), _shared(through, ids)
            first += first < len(before)
            learned[first:last] = [True] * (last - first)
    return learned


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of ids with which both begin."""
    return next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _flat(template: ChatTemplate, pieces: Sequence[Piece]) -> str:
    """Rendered pieces as one text, in which every marker is one private character."""
    letters = {name: chr(_FIRST_MARKER + place) for place, name in enumerate(template.markers)}
    return "".join(piece.text if piece.marker is None else letters[piece.text] for piece in pieces)


def _spans(template: ChatTemplate, messages: Sequence[dict[str, str]], text: str) -> dict[int, tuple[int, int]]:
    """Number of a message -> begin and end of its text in the rendered conversation; of an answer with its end.

    Found by rendering the same conversation with stand-ins for all texts: between them is the template's own text.
    """
    stand_ins = [message | {"content": _STAND_IN.format(place)} for place, message in enumerate(messages)]
    parts = _STAND_INS.split(_flat(template, template.render(stand_ins, add_generation_prompt=True)))
    end = chr(_FIRST_MARKER + [marker.number for marker in template.markers.values()].index(template.turn.end))
    spans: dict[int, tuple[int, int]] = {}
    if not text.startswith(parts[0]):
        raise _hidden()
    at = len(parts[0])
    for number, after in zip(map(int, parts[1::2]), parts[2::2], strict=True):
        content = messages[number]["content"]
        said = next((form for form in _forms(content) if text.startswith(form + after, at)), None)
        if said is None or number in spans:
            raise _hidden()
        begin, at = at, at + len(said)
        if messages[number]["role"] == "assistant":
            opens = template.turn.opens  # the model generates it too
            begin -= len(opens) if text.endswith(opens, 0, begin) else 0
            spans[number] = begin, at + after.find(end) + 1
        else:
            spans[number] = begin, at
        at += len(after)
    if at != len(text) or len(spans) < len(messages):
        raise _hidden()
    return spans


def _forms(content: str) -> Iterator[str]:
    """A message's text as templates write it: whole, or trimmed."""
    yield from (content, content.strip(), content.lstrip(), content.rstrip())


def _hidden() -> RefusedConversationError:
    return RefusedConversationError(
        "the folder's chat template changes an earlier message, so that its answer cannot be learned in place"
    )
