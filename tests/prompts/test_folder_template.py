"""`template: model`: ids as of transformers' apply_chat_template, safe texts, the one cut, and the learned answers."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline import tokenizer as vocabularies
from pipeline.data.conversations import Earlier, Turn
from pipeline.errors import UserError
from pipeline.prompts import examples, folder_template, templates
from pipeline.prompts.examples import Reason
from pipeline.prompts.request import Request
from pipeline.prompts.spec import TaskSpec
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.chat_template import ChatTemplate, Marker, Piece, RefusedConversationError
from tests.fakes import ByteTokenizer
from tests.prompts.chat_templates import STYLES, folder

WORDS = [
    "Where is Ayşe?",
    "ışık",
    " boşluk ",
    "\n",
    "x" * 9,
    "12 345",
    "a\n\nb",
    "👍",
    "<",
    ">",
    "|",
    "im_end|>",
    "</thin",
]
CONVERSATIONS = 1000
TOOL = {
    "type": "function",
    "function": {"name": "hava", "description": "Hava durumu", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module", params=list(STYLES))
def style(request: pytest.FixtureRequest) -> str:
    """Name of a released model's template."""
    return str(request.param)


@pytest.fixture(scope="module")
def made(style: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """The vocabulary of that style: ours, and transformers'."""
    from transformers import AutoTokenizer

    path = folder(STYLES[style], tmp_path_factory.mktemp("styles") / style)
    return vocabularies.adopt(path), AutoTokenizer.from_pretrained(path)


def drawn(draw: random.Random, *, system: bool) -> list[dict[str, str]]:
    """A conversation that ends with a question."""

    def text() -> str:
        return "".join(draw.choice(WORDS) for _ in range(draw.randint(1, 5))) or "x"

    messages = [{"role": "system", "content": text()}] if system and draw.random() < 0.5 else []
    for _ in range(draw.randint(0, 3)):
        messages += [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]
    return [*messages, {"role": "user", "content": text()}]


def request_of(messages: list[dict[str, str]]) -> Request:
    """The same conversation as a request; texts of white space too."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    talk = [message["content"] for message in messages if message["role"] != "system"]
    turns = tuple(Turn(*pair) for pair in zip(talk[:-1:2], talk[1::2], strict=True))
    return Request(talk[-1], "", Earlier(system, turns))


def test_prompt_has_the_ids_of_apply_chat_template(style: str, made: tuple[Tokenizer, Any]) -> None:
    """Lost otherwise: the model is trained on prompts that no other program sends."""
    ours, theirs = made
    draw = random.Random(1)
    compared = 0
    while compared < CONVERSATIONS:
        messages = drawn(draw, system=STYLES[style].system)
        if any(name in message["content"] for message in messages for name in ours.special):
            continue  # the next test but one
        compared += 1
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert templates.prompt(ours, "model", request_of(messages), 9999).ids == expected


def test_example_has_the_ids_of_the_whole_conversation_up_to_its_end(style: str, made: tuple[Tokenizer, Any]) -> None:
    """Only the line end that some templates put behind the last answer is left out: nothing follows it."""
    ours, theirs = made
    draw = random.Random(2)
    spec = TaskSpec(name="chat", template="model", max_tokens=9999, max_prompt_tokens=9000)
    for _ in range(CONVERSATIONS // 5):
        messages = [message | {"content": message["content"].strip() or "x"} for message in drawn(draw, system=False)]
        if any(name in message["content"] for message in messages for name in ours.special):
            continue
        request, output = request_of(messages), draw.choice(["evet", "dün\n\nve bugün", "12. ışık"])
        history = json.dumps([{"role": m["role"], "content": m["content"]} for m in messages[:-1]])
        record = {"instruction": request.question, "input": "", "output": output, "history": history}
        example = examples.answer_example(ours, spec, record, learns_earlier=True)
        assert not isinstance(example, Reason), example
        whole = [*messages, {"role": "assistant", "content": output}]
        expected = theirs.apply_chat_template(whole, add_generation_prompt=False, return_dict=False)
        assert example.ids == expected[: len(example.ids)]
        assert theirs.decode(expected[len(example.ids) :]).strip() in ("", STYLES[style].eos)
        learned = [number for number, taught in zip(*example, strict=True) if taught]
        opens, end = folder_template.template_of(ours).turn
        answers = [message["content"] for message in whole if message["role"] == "assistant"]
        said = [text.removeprefix(opens) for text in theirs.decode(learned).split(theirs.decode([end]))]
        assert [text.strip() for text in said] == [*answers, ""]


def test_prompt_keeps_special_tokens_of_texts_as_text(style: str, made: tuple[Tokenizer, Any]) -> None:
    """A message could end its turn otherwise, and speak as the system; also where template and text meet."""
    ours, _ = made
    template = folder_template.template_of(ours)
    plain = templates.prompt(ours, "model", Request("soru"), 9999).ids
    spelled = [*template.markers, "<|im_start|><|im_end|>", "a</s>b", *(name[1:] for name in template.markers)]
    spelled += [name[:-1] for name in template.markers] + ["".join(template.markers)]
    for text in spelled:
        ids = templates.prompt(ours, "model", Request(text), 9999).ids
        assert [i for i in ids if i in ours.special.values()] == [i for i in plain if i in ours.special.values()], text
        assert text in ours.decode(ids)


def test_prompt_is_cut_by_turns_then_in_the_middle_of_texts(style: str, made: tuple[Tokenizer, Any]) -> None:
    """Random conversations and limits: never longer, markers whole, the oldest turns gone first."""
    ours, _ = made
    draw = random.Random(3)
    least = templates.markers(ours, "model")
    opening = ours.decode(templates.prompt(ours, "model", Request("x"), 9999).ids).rpartition("x")[2]
    for _ in range(60):
        messages = drawn(draw, system=STYLES[style].system)
        request = request_of(messages)
        limit = least + draw.randint(3, 60)
        ids = templates.prompt(ours, "model", request, limit).ids
        assert len(ids) <= limit
        assert ours.decode(ids).endswith(opening)
    long = Request("a" * 50 + "ı" * 200 + "z" * 50, "", Earlier("", (Turn("eski", "cevap"),)))
    text = ours.decode(templates.prompt(ours, "model", long, least + 20).ids)
    assert "eski" not in text
    assert "aa" in text
    assert "zz" in text
    assert "ııııııııııııııııııııııı" not in text


def test_an_answer_ends_with_the_end_of_a_turn(style: str, made: tuple[Tokenizer, Any]) -> None:
    """Lost otherwise: generation runs on past the answer, to the longest one allowed."""
    ours, _ = made
    expected = {"gemma": "<end_of_turn>", "phi3": "<|end|>"}.get(style, STYLES[style].eos)
    assert templates.end_of_answer(ours, "model") == ours.special[expected]
    assert templates.answer(ours, "model", "evet")[-1] == ours.special[expected]
    assert templates.answer_text(ours, "model", templates.opens(ours, "model") + "evet") == "evet"


def test_render_gives_transformers_ids_for_tools(tmp_path: Path) -> None:
    """Roles and schemas of tools, in a template that has them."""
    from transformers import AutoTokenizer

    path = folder(STYLES["qwen"], tmp_path / "qwen")
    ours, theirs = vocabularies.adopt(path), AutoTokenizer.from_pretrained(path)
    call = {"type": "function", "function": {"name": "hava", "arguments": {"il": "İzmir", "gün": 2}}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Kısa yaz."},
        {"role": "user", "content": "Hava nasıl?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"derece": 21}'},
        {"role": "tool", "content": "<|im_end|"},
    ]
    template = ours.chat_template
    assert template is not None
    for tools in (None, [TOOL]):
        pieces = template.render(messages, tools=tools, add_generation_prompt=True)
        expected = theirs.apply_chat_template(messages, tools=tools, add_generation_prompt=True, return_dict=False)
        assert template.encode(pieces, ours) == expected


def test_a_system_message_that_the_template_refuses_makes_no_example(tmp_path: Path) -> None:
    """Gemma has no system role; a request says so, and the samples gate counts the record."""
    ours = vocabularies.adopt(folder(STYLES["gemma"], tmp_path / "gemma"))
    request = Request("Nerede?", "", Earlier("Kısa yaz.", ()))
    with pytest.raises(RefusedConversationError, match="System role not supported"):
        templates.prompt(ours, "model", request, 999)
    spec = TaskSpec(name="instruct", template="model", max_tokens=99, max_prompt_tokens=90)
    history = json.dumps([{"role": "system", "content": "Kısa yaz."}])
    record = {"instruction": "Nerede?", "input": "", "output": "Evde", "history": history}
    reason = examples.reason("answers", ours, spec, record)
    assert isinstance(reason, Reason)
    assert reason.code == "refused_by_template"
    assert examples.reason("answers", ours, spec, record | {"history": ""}) is None


def test_an_earlier_answer_with_weight_0_is_not_learned(made: tuple[Tokenizer, Any]) -> None:
    ours, theirs = made
    turns = (Turn("bir", "birinci cevap", False), Turn("iki", "ikinci cevap", True))
    prompt = templates.prompt(ours, "model", Request("üç", "", Earlier("", turns)), 999, learns_earlier=True)
    learned = theirs.decode([number for number, taught in zip(*prompt, strict=True) if taught])
    assert "ikinci cevap" in learned
    assert "birinci" not in learned
    assert "üç" not in learned


BROKEN = {
    "none": (None, "needs a chat template, and the tokenizer's folder has none"),
    "no_end": ("{% for m in messages %}{{ m.role + m.content }}{% endfor %}", "ends an answer with no special token"),
    "answer_first": (
        "{% for m in messages|reverse %}{{ m.content + '<end>' }}{% endfor %}",
        "writes an answer elsewhere than after the opening",
    ),
    "syntax": ("{% for %}", "refuses the conversation"),
    "sandbox": ("{{ messages.__class__.__mro__ }}", "refuses the conversation"),
    "python": ("{{ messages[0].content.missing() }}", "refuses the conversation"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_template_of_refuses_a_template_that_no_answer_can_be_learned_in(name: str) -> None:
    source, sentence = BROKEN[name]
    tokenizer = ByteTokenizer(["<|endoftext|>", "<end>"])
    if source is not None:
        tokenizer.chat_template = ChatTemplate(source, {}, {"<end>": Marker(257, False, False)})
    with pytest.raises(UserError, match=sentence) as caught:
        folder_template.template_of(tokenizer)
    assert "\n" not in str(caught.value)


def test_a_changed_earlier_answer_is_not_learned_silently_elsewhere() -> None:
    """A template that shortens earlier answers hides them: the record makes no example of task chat."""
    tokenizer = ByteTokenizer(["<|endoftext|>", "<end>"])
    source = (
        "{% for m in messages %}{{ m.role + ':' + (m.content if loop.last or m.role == 'user' else m.content[:3]) + "
        "'<end>' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    tokenizer.chat_template = ChatTemplate(source, {}, {"<end>": Marker(257, False, False)})
    request = Request("soru", "", Earlier("", (Turn("bir", "uzun cevap"),)))
    with pytest.raises(RefusedConversationError, match="changes an earlier message"):
        templates.prompt(tokenizer, "model", request, 999, learns_earlier=True)
    assert not any(templates.prompt(tokenizer, "model", request, 999).learned)


def test_rest_after_gives_the_pieces_behind_an_opening() -> None:
    from pipeline.tokenizer.chat_template import rest_after

    end = Piece("<end>", Marker(1, False, False))
    assert rest_after([Piece("a")], [Piece("ab"), end]) == [Piece("b"), end]
    assert rest_after([end], [end, Piece("x")]) == [Piece("x")]
    assert rest_after([Piece("a"), end], [Piece("a")]) is None
    assert rest_after([Piece("b")], [Piece("ab")]) is None
