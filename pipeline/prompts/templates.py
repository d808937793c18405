"""Prompt templates and the one cut: token ids of conversations and answers.

`chat` and `alpaca` are written here; `model` is the chat template of the folder that training starts from
(pipeline/prompts/folder_template.py).

User text is encoded as ordinary text; only a template places special tokens, so no message can contain one. A prompt
longer than its limit is cut the same way everywhere: the oldest turns go first, then the middle of the last question,
then the middle of the system message; never a marker.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pipeline.errors import UserError
from pipeline.prompts import folder_template
from pipeline.prompts.request import Request
from pipeline.prompts.vocabulary import Prompt, Vocabulary, without_middle


class Fragment(NamedTuple):
    """A piece of a prompt."""

    kind: Literal["marker", "system", "question"]
    """Markers (special tokens, headings) are never cut."""
    text: str
    special: bool = False
    """Whether `text` names a special token."""


class Template(NamedTuple):
    """A layout of prompt and answer."""

    question: Callable[[str, str], list[Fragment]]
    """(instruction, input) -> the prompt of one turn, up to the answer."""
    system: Callable[[str], list[Fragment]]
    """System message -> the prefix of the first turn."""
    opens: str
    """Prefix of the answer."""


def _chat(instruction: str, given: str) -> list[Fragment]:
    text = f"{instruction}\n{given}" if given else instruction
    return [
        Fragment("marker", "<|user|>", special=True),
        Fragment("question", text),
        Fragment("marker", "<|end|>", special=True),
        Fragment("marker", "<|assistant|>", special=True),
    ]


def _chat_system(text: str) -> list[Fragment]:
    return [
        Fragment("marker", "<|system|>", special=True),
        Fragment("system", text),
        Fragment("marker", "<|end|>", special=True),
    ]


def _alpaca(instruction: str, given: str) -> list[Fragment]:
    """The layout of Stanford Alpaca (Taori et al. 2023): sections that any vocabulary can spell."""
    middle = [Fragment("marker", "\n\n### Input:\n"), Fragment("question", given)] if given else []
    return [
        Fragment("marker", "### Instruction:\n"),
        Fragment("question", instruction),
        *middle,
        Fragment("marker", "\n\n### Response:\n"),
    ]


FOLDERS_OWN = "model"
"""The template of the folder that training starts from."""
TEMPLATES = {
    # An answer starts with a space, as in Llama 2's layout: a word inside running text has that space in its token, and
    # adapters that leave the vocabulary's rows frozen can only produce tokens that pretraining taught. For the
    # same reason an answer ends with end-of-text and not with a marker that occurs in no pretraining text.
    "chat": Template(_chat, _chat_system, " "),
    "alpaca": Template(_alpaca, lambda text: [Fragment("system", text), Fragment("marker", "\n\n")], ""),
}


def prompt(
    tokenizer: Vocabulary, template: str, request: Request, limit: int, *, learns_earlier: bool = False
) -> Prompt:
    """The prompt of a request, at most `limit` tokens.

    Args:
        tokenizer: the model's vocabulary.
        template: a name in TEMPLATES, or `model`.
        request: the question, after the earlier messages.
        limit: more than the `markers` of the template.
        learns_earlier: whether `learned` marks the answers of earlier turns; else it marks nothing.

    Raises:
        UserError: the vocabulary lacks a special token or a chat template (use `alpaca`), or its template refuses the
            conversation.
    """
    if template == FOLDERS_OWN:
        return folder_template.prompt(tokenizer, request, limit, learns_earlier=learns_earlier)
    layout, (system, turns) = TEMPLATES[template], request.earlier
    before = layout.system(system) if system else []
    last = layout.question(request.question, request.input)
    earlier = [
        (layout.question(turn.question, ""), answer(tokenizer, template, turn.answer), turn.learned and learns_earlier)
        for turn in turns
    ]
    pieces = [_encoded(tokenizer, template, fragments) for fragments, _, _ in earlier]
    sizes = [len(piece) + len(ids) for piece, (_, ids, _) in zip(pieces, earlier, strict=True)]
    for dropped in range(len(earlier) + 1):
        kept = [(piece, ids, learned) for piece, (_, ids, learned) in zip(pieces, earlier, strict=True)][dropped:]
        # the system message is encoded with the first turn that is kept
        first = [*before, *(earlier[dropped][0] if dropped < len(earlier) else last)]
        if sum(sizes[dropped + 1 :]) > limit:
            continue
        heads = [_encoded(tokenizer, template, first), *(piece for piece, _, _ in kept[1:])]
        if dropped < len(earlier):
            heads.append(_encoded(tokenizer, template, last))
        said = [(ids, learned) for _, ids, learned in kept]
        if sum(map(len, heads)) + sum(len(ids) for ids, _ in said) <= limit:
            return _joined(heads, said)
    return _joined([_cut(tokenizer, template, [*before, *last], limit)], [])


def markers(tokenizer: Vocabulary, template: str) -> int:
    """The most tokens that the markers of one turn with system message and input take; errors as of `prompt`."""
    if template == FOLDERS_OWN:
        return folder_template.markers(tokenizer)
    layout = TEMPLATES[template]
    fragments = [*layout.system("x"), *layout.question("x", "x")]
    return sum(len(_encoded(tokenizer, template, [part])) for part in fragments if part.kind == "marker")


def answer(tokenizer: Vocabulary, template: str, output: str) -> list[int]:
    """Ids of an answer, the token that ends it included; errors as of `prompt`."""
    if template == FOLDERS_OWN:
        return folder_template.answer(tokenizer, output)
    return [*tokenizer.encode(TEMPLATES[template].opens + output), tokenizer.end_of_text]


def opens(tokenizer: Vocabulary, template: str) -> str:
    """The prefix of an answer's text."""
    return folder_template.template_of(tokenizer).turn.opens if template == FOLDERS_OWN else TEMPLATES[template].opens


def answer_text(tokenizer: Vocabulary, template: str, text: str) -> str:
    """A generated text (or its first piece) without the prefix of an answer."""
    return text.removeprefix(opens(tokenizer, template))


def end_of_answer(tokenizer: Vocabulary, template: str) -> int:
    """The id that ends an answer."""
    return folder_template.template_of(tokenizer).turn.end if template == FOLDERS_OWN else tokenizer.end_of_text


def _joined(pieces: Sequence[list[int]], said: Sequence[tuple[list[int], bool]]) -> Prompt:
    ids: list[int] = []
    learned: list[bool] = []
    for place, piece in enumerate(pieces):
        ids += piece
        learned += [False] * len(piece)
        if place < len(said):
            ids += said[place][0]
            learned += [said[place][1]] * len(said[place][0])
    return Prompt(ids, learned)


def _encoded(tokenizer: Vocabulary, template: str, fragments: Sequence[Fragment]) -> list[int]:
    """Ids of fragments; neighbouring texts are encoded as one, as other programs encode a rendered prompt."""
    ids: list[int] = []
    text = ""
    for fragment in fragments:
        if not fragment.special:
            text += fragment.text
            continue
        ids += [*(tokenizer.encode(text) if text else []), _special(tokenizer, fragment.text, template)]
        text = ""
    return ids + (tokenizer.encode(text) if text else [])


def _cut(tokenizer: Vocabulary, template: str, fragments: Sequence[Fragment], limit: int) -> list[int]:
    """Ids of a turn that is longer than the limit: question and system message lose their middles.

    The system message stays whole while it takes at most half of the room that the markers leave. Instruction and input
    share the question's room, the shorter one is kept whole where it can be.
    """
    encoded = [_encoded(tokenizer, template, [fragment]) for fragment in fragments]
    places: dict[str, list[int]] = {"marker": [], "system": [], "question": []}
    for place, fragment in enumerate(fragments):
        places[fragment.kind].append(place)
    sizes = {kind: sum(len(encoded[place]) for place in at) for kind, at in places.items()}
    room = max(limit - sizes["marker"], 0)
    system = min(sizes["system"], max(room - sizes["question"], room // 2))
    for kind, left in (("system", system), ("question", room - system)):
        waiting = sorted(places[kind], key=lambda place: len(encoded[place]))
        for number, place in enumerate(waiting):
            encoded[place] = without_middle(encoded[place], left // (len(waiting) - number))
            left -= len(encoded[place])
    return [i for ids in encoded for i in ids]


def _special(tokenizer: Vocabulary, name: str, template: str) -> int:
    if name not in tokenizer.special:
        raise UserError(
            f"template {template!r} needs the special token {name}, the vocabulary has "
            f"{', '.join(tokenizer.special)}; set template: alpaca in the recipe's task"
        )
    return int(tokenizer.special[name])
