"""Ollama's Modelfile for a GGUF file: the chat template in Go's template language, and the texts that end an answer.

    modelfile(Path("models/chat-lora"), Path("chat-lora.gguf"))
    # then: ollama create chat-lora -f chat-lora.Modelfile

Ollama does not read the Jinja template of a GGUF file. The Go template here is made from that one: rendered with
stand-ins for all texts, it shows what stands before, between and after them. Language: Ollama's docs/template.md.
"""

import re
from pathlib import Path
from typing import NamedTuple

from pipeline import foreign
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer, export
from pipeline.tokenizer.chat_template import ChatTemplate, RefusedConversationError

_STAND_IN = re.compile("\ue001[0-9]\ue002")


class Frame(NamedTuple):
    """A chat template's own texts around those of a conversation that ends with a question."""

    opening: str
    """Before the first question, without a system message."""
    before_system: str | None
    """Before a system message; None where the template has none."""
    after_system: str
    """Between system message and first question."""
    after_question: str
    """After a question: where an answer is generated."""
    before_answer: str
    """What is generated before an answer's text; mostly empty."""
    after_answer: str
    """Between an answer and the next question."""


def modelfile(folder: Path, gguf: Path) -> str:
    """The content of a Modelfile.

    Args:
        folder: of the model.
        gguf: the file that gguf_format.py wrote of it.

    Raises:
        UserError: a chat template that treats turns differently, which Go's language could not say in these few words.
    """
    tokenizer = Tokenizer.load(folder)
    content = foreign.read_object(folder / "tohum.json") if (folder / "tohum.json").is_file() else {}
    input_format = export.describe(tokenizer, export.first_task(content), 1)
    names = {number: text for text, number in tokenizer.special.items()}
    ends = [names[number] for number in input_format.ends or (tokenizer.end_of_text,)]
    template = "{{ .Prompt }}" if input_format.template is None else _go(frame(tokenizer, folder), folder)
    stops = "".join(f'PARAMETER stop "{_quoted(end)}"\n' for end in ends)
    return f'FROM ./{gguf.name}\nTEMPLATE """{template}"""\n{stops}'


def frame(tokenizer: Tokenizer, folder: Path) -> Frame:
    """The texts of the chat template in a model's folder; errors as of `modelfile`."""
    template = tokenizer.chat_template
    assert template is not None
    opening, to_answer, after_answer, again, repeated, after_question = _between(template, "uauau")
    plain = Frame(opening, None, "", after_question, to_answer.removeprefix(after_question), after_answer)
    regular = to_answer.startswith(after_question) and (again, repeated) == (to_answer, after_answer)
    try:
        before, after, *rest = _between(template, "suau")
    except RefusedConversationError:
        made = plain
    else:
        made = plain._replace(before_system=before, after_system=after)
        regular = regular and rest == [to_answer, after_answer, after_question]
    if not regular:
        raise UserError(
            f"{folder}: no Modelfile: its chat template writes one turn differently from another; write the TEMPLATE "
            "by hand, or train with template chat or alpaca"
        )
    return made


def _between(template: ChatTemplate, roles: str) -> list[str]:
    """The template's texts around stand-ins for a conversation of system, user and assistant messages."""
    named = {"s": "system", "u": "user", "a": "assistant"}
    messages = [{"role": named[role], "content": f"\ue001{place}\ue002"} for place, role in enumerate(roles)]
    pieces = template.render(messages, add_generation_prompt=True)
    parts = _STAND_IN.split("".join(piece.text for piece in pieces))
    if len(parts) != len(roles) + 1:
        raise RefusedConversationError("the folder's chat template leaves out a message, or repeats one")
    return parts


def _go(texts: Frame, folder: Path) -> str:
    """The template in Go's language; `.Messages` holds the system message too, which is written first."""
    if any('"""' in str(text) for text in texts):
        raise UserError(f'{folder}: no Modelfile: its chat template has """ in it, which would end the TEMPLATE')
    first, system, after_system, question, before, after = (_literal(text or "") for text in texts)
    opening = first
    if texts.before_system is not None:
        opening = f"{{{{ if .System }}}}{system}{{{{ .System }}}}{after_system}{{{{ else }}}}{first}{{{{ end }}}}"
    return (
        f'{opening}{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{{{{ .Content }}}}{question}'
        f'{{{{ else if eq .Role "assistant" }}}}{before}{{{{ .Content }}}}{after}{{{{ end }}}}{{{{ end }}}}'
    )


def _literal(text: str) -> str:
    """A text in a Go template."""
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    """A text within quotation marks of a Modelfile."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
