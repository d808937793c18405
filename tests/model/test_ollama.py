"""ollama.py: the Go template of a Modelfile writes the prompts that the model was trained on.

Ollama's binary is no package, so the part of Go's template language that the file uses is interpreted here.
"""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import tokenizer as vocabularies
from pipeline.errors import UserError
from pipeline.model import checkpoint, ollama
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tokenizer import Tokenizer
from tests.models import network
from tests.prompts.chat_templates import STYLES, folder
from tests.specs import written

_TOKEN = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)


def go(template: str, system: str, messages: list[dict[str, str]]) -> str:
    """The text of a Go template of `if`, `else`, `else if eq`, `range .Messages` and fields, as Go's text/template."""
    parts = _TOKEN.split(template)
    text, _ = _block(parts, 0, {"System": system, "Messages": messages})
    return text


def _block(parts: list[str], at: int, scope: dict[str, Any]) -> tuple[str, int]:
    """Text from `at` to the `end` or `else` that closes the block, and its place; odd places are actions."""
    text = ""
    while at < len(parts):
        part = parts[at]
        if at % 2 == 0:
            text += part
            at += 1
        elif part == "end" or part.startswith("else"):
            return text, at
        elif part.startswith("if "):
            inner, at = _choice(parts, at, scope)
            text += inner
        elif part == "range .Messages":
            bodies = [_block(parts, at + 1, scope | message) for message in scope["Messages"]]
            text += "".join(body for body, _ in bodies)
            at = bodies[0][1] + 1
        else:
            text += part[1:-1] if part.startswith('"') else scope[part.removeprefix(".")]
            at += 1
    return text, at


def _choice(parts: list[str], at: int, scope: dict[str, Any]) -> tuple[str, int]:
    """The branch of an `if` that holds."""
    chosen = ""
    taken = False
    while parts[at] != "end":
        condition = parts[at].removeprefix("else").strip().removeprefix("if ")
        match = re.fullmatch(r'eq \.(\w+) "(\w+)"', condition)
        holds = scope[match[1]] == match[2] if match else (not condition or bool(scope[condition.removeprefix(".")]))
        inner, at = _block(parts, at + 1, scope)
        if holds and not taken:
            chosen, taken = inner, True
    return chosen, at + 1


def saved(path: Path, words: Path, task: TaskSpec) -> Path:
    """A random model of a task."""
    model = network("llama", vocab_size=Tokenizer.load(words).vocab_size)
    checkpoint.save(model, path, tokenizer=words, metadata=written([task]))
    return path


def rendered(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    """The prompt by the exported Jinja template."""
    template = tokenizer.chat_template
    assert template is not None
    return "".join(piece.text for piece in template.render(messages, add_generation_prompt=True))


@pytest.mark.parametrize("template", ["model", "chat", "alpaca"])
@pytest.mark.parametrize("style", ["smollm2", "llama3", "qwen", "gemma", "mistral", "phi3", "zephyr"])
def test_modelfile_writes_the_prompts_of_the_chat_template(style: str, template: str, tmp_path: Path) -> None:
    """Lost otherwise: Ollama would ask the model in another layout than it was trained on."""
    if template == "chat":
        vocabularies.train(["Ayşe İzmir'de yaşıyor. " * 30], 300, "gpt2").save(tmp_path / "words")
    else:
        vocabularies.adopt(folder(STYLES[style], tmp_path / "theirs")).save(tmp_path / "words")
    task = TaskSpec(name="chat", template=template, max_tokens=16, max_prompt_tokens=12)
    path = saved(tmp_path / "model", tmp_path / "words", task)
    content = ollama.modelfile(path, tmp_path / "out/model.gguf")
    go_template = content.partition('TEMPLATE """')[2].partition('"""')[0]
    tokenizer, draw = Tokenizer.load(path), random.Random(1)
    assert content.startswith("FROM ./model.gguf\n")
    for _ in range(50):
        system = draw.choice(["", "Kısa yaz."]) if STYLES[style].system or template != "model" else ""
        messages = []
        for number in range(draw.randint(0, 3)):
            messages += [{"role": "user", "content": f"soru {number}"}, {"role": "assistant", "content": "yanıt\n2"}]
        messages.append({"role": "user", "content": "son {{ soru }}"})
        head = [{"role": "system", "content": system}] if system else []
        expected = rendered(tokenizer, head + messages)
        named = [{"Role": message["role"], "Content": message["content"]} for message in head + messages]
        assert go(go_template, system, named) == expected


def test_modelfile_stops_where_answers_end(tmp_path: Path) -> None:
    """Lost otherwise: Ollama shows the next turn's markers, and goes on."""
    vocabularies.adopt(folder(STYLES["gemma"], tmp_path / "theirs")).save(tmp_path / "words")
    for template, stops in {"model": ["<end_of_turn>", "<eos>"], "alpaca": ["<eos>"]}.items():
        task = TaskSpec(name="chat", template=template, max_tokens=16, max_prompt_tokens=12)
        content = ollama.modelfile(saved(tmp_path / template, tmp_path / "words", task), Path("x.gguf"))
        assert re.findall(r'^PARAMETER stop "(.*)"$', content, re.MULTILINE) == stops


def test_modelfile_of_a_language_model_continues_a_text(tmp_path: Path) -> None:
    vocabularies.train(["Ayşe İzmir'de yaşıyor. " * 30], 300, "gpt2").save(tmp_path / "words")
    content = ollama.modelfile(saved(tmp_path / "model", tmp_path / "words", TEXT), Path("base.gguf"))
    assert content == 'FROM ./base.gguf\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER stop "<|endoftext|>"\n'


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{% for m in messages %}{{ loop.index ~ m.role + m.content + '<eos>' }}{% endfor %}", "one turn differently"),
        ("{% for m in messages %}{{ m.role + '\"\"\"' + m.content + '<eos>' }}{% endfor %}", "would end the TEMPLATE"),
    ],
)
def test_modelfile_refuses_a_template_that_it_cannot_say(source: str, sentence: str, tmp_path: Path) -> None:
    generation = "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
    style = STYLES["gemma"]._replace(template=source + generation)
    vocabularies.adopt(folder(style, tmp_path / "theirs")).save(tmp_path / "words")
    task = TaskSpec(name="chat", template="model", max_tokens=16, max_prompt_tokens=12)
    path = saved(tmp_path / "model", tmp_path / "words", task)
    with pytest.raises(UserError, match=sentence):
        ollama.modelfile(path, Path("x.gguf"))
