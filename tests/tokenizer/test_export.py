"""export.py: AutoTokenizer on a model's folder gives the ids of training, for every task and kind of vocabulary."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from pipeline import tokenizer as vocabularies
from pipeline.prompts import templates
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tasks import IGNORED, Request, open_task
from pipeline.tokenizer import Tokenizer, export
from tests.prompts import chat_templates
from tests.specs import written
from tests.tokenizer import foreign

TEXTS = ["Ayşe İzmir'de yaşıyor.", "", " iki  boşluk\n", "<|endoftext|>", "ışık 2024 👍"]
CLASSIFY = TaskSpec(name="classify", labels=("ham", "spam"), max_tokens=24, max_prompt_tokens=24)
CHAT = TaskSpec(name="chat", template="chat", max_tokens=256, max_prompt_tokens=200)
CLOZE = TaskSpec(
    name="cloze",
    labels=("ham", "spam"),
    pattern="Mesaj: {text} Bu{label}",
    verbalizers={"ham": " iyi", "spam": " kötü mesaj"},
    max_tokens=60,
    max_prompt_tokens=52,
)


@pytest.fixture(scope="module", params=["gpt2", "cl100k_base", "o200k_base"])
def words(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small vocabulary with one of the named patterns."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    vocabularies.train(
        ["Ayşe İzmir'de yaşıyor. Bu mesaj iyi, kötü.\n\n### Instruction:\n2024\n\n### Response:\nevet " * 20],
        320,
        request.param,
    ).save(folder)
    return folder


def exported(words: Path, folder: Path, task: TaskSpec) -> tuple[Tokenizer, Any]:
    """The vocabulary as of a model of this task: ours, and AutoTokenizer's."""
    from transformers import AutoTokenizer

    if words != folder:
        shutil.copytree(words, folder)
    tokenizer = Tokenizer.load(folder)
    export.write(folder, tokenizer, export.describe(tokenizer, export.first_task(written([task])), 256))
    return Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)


def test_write_puts_the_tokens_of_training_around_a_text(words: Path, tmp_path: Path) -> None:
    """Lost otherwise: a classifier was right for 0.605 instead of 0.970 of the texts, and nothing said so."""
    for number, task in enumerate((TEXT.within(256), CLASSIFY, CLOZE)):
        ours, theirs = exported(words, tmp_path / str(number), task)
        for text in TEXTS:
            assert theirs(text)["input_ids"] == open_task(task, ours).prompt(Request(text))
            assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)


def test_write_gives_equal_bytes_from_any_earlier_task(words: Path, tmp_path: Path) -> None:
    """Lost otherwise: a recipe that starts from a chat model would keep its decoder or its template."""
    files = (vocabularies.TOKENIZER, vocabularies.SETTINGS)
    for name, tasks in {"direct": [CLASSIFY], "after": [CHAT, CLOZE, CLASSIFY]}.items():
        for task in tasks:
            exported(words if task is tasks[0] else tmp_path / name, tmp_path / name, task)
    assert all((tmp_path / "direct" / file).read_bytes() == (tmp_path / "after" / file).read_bytes() for file in files)
    parts = {
        export.vocabulary_part((folder / files[0]).read_bytes())["decoder"]["type"]
        for folder in (words, tmp_path / "after")
    }
    assert len(parts) == 1


def test_write_sets_limits_and_sides(words: Path, tmp_path: Path) -> None:
    _, classifier = exported(words, tmp_path / "a", CLASSIFY)
    assert (classifier.model_max_length, classifier.padding_side, classifier.truncation_side) == (24, "right", "right")
    ours, generator = exported(words, tmp_path / "b", CHAT)
    assert (generator.model_max_length, generator.padding_side, generator.truncation_side) == (256, "left", "left")
    assert (generator.bos_token_id, generator.eos_token_id) == (ours.end_of_text, ours.end_of_text)
    _, cloze = exported(words, tmp_path / "c", CLOZE)
    assert cloze.model_max_length == 52


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_the_chat_template_marks_the_tokens_that_training_learns(words: Path, tmp_path: Path, template: str) -> None:
    """Lost otherwise: a prompt or a trained answer elsewhere would have other tokens than here."""
    task = CHAT.model_copy(update={"template": template})
    ours, theirs = exported(words, tmp_path / "chat", task)
    earlier = [{"role": "system", "content": "Kısa yaz."}, {"role": "user", "content": "Kaç?"},
               {"role": "assistant", "content": "üç"}]  # fmt: skip
    messages = [*earlier, {"role": "user", "content": "Emin\nmisin"}]
    learner = open_task(task, ours)
    prompt = learner.prompt(Request.of_messages(messages))
    assert theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompt
    history = json.dumps(earlier, ensure_ascii=False)
    record = {"instruction": "Emin\nmisin", "input": "", "history": history, "output": "evet 👍", "origin": "a:1"}
    ids, targets = learner.example(record)
    whole = theirs.apply_chat_template(
        [*messages, {"role": "assistant", "content": "evet 👍"}], return_dict=True, return_assistant_tokens_mask=True
    )
    assert whole["input_ids"] == ids
    assert whole["assistant_masks"] == [int(target != IGNORED) for target in targets]
    with pytest.raises(TemplateError, match="role tool; expected system, user or assistant"):
        theirs.apply_chat_template([{"role": "tool", "content": "x"}])


def test_decoding_an_answer_gives_its_text(words: Path, tmp_path: Path) -> None:
    """Lost otherwise: exact match was 0.00 in transformers where it was 0.91 here, by the space before every answer."""
    ours, theirs = exported(words, tmp_path / "chat", CHAT)
    for text in ("evet", "", " boşlukla", "iki\nsatır 👍", "."):
        ids = templates.answer(ours, "chat", text)
        assert theirs.decode(ids, skip_special_tokens=True) == text
    ours, theirs = exported(words, tmp_path / "base", TEXT)
    assert theirs.decode(ours.encode(" evet")) == " evet"


def adopted(
    folder: Path, words: Path, change: dict[str, Any], keep: tuple[str, ...] = ("<|endoftext|>", "<|bos|>")
) -> Path:
    """A folder as another library writes it: tokenizer.json with a post-processor of its own."""
    folder.mkdir(parents=True)
    raw = json.loads((words / "tokenizer.json").read_text())
    for number, token in enumerate(raw["added_tokens"]):
        if number == 1:
            token["content"] = "<|bos|>"
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in keep]
    (folder / "tokenizer.json").write_text(json.dumps(raw | change, ensure_ascii=False))
    settings = {"eos_token": "<|endoftext|>", "bos_token": "<|bos|>", "add_bos_token": True}
    settings |= {"tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def bos_first(words: Path) -> dict[str, Any]:
    number = Tokenizer.load(words).pad
    piece = {"SpecialToken": {"id": "<|bos|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    special = {"<|bos|>": {"id": "<|bos|>", "ids": [number], "tokens": ["<|bos|>"]}}
    template = {
        "type": "TemplateProcessing",
        "single": [piece, text],
        "pair": [piece, text, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": special,
    }
    return {"post_processor": template}


@pytest.mark.parametrize("task", [TEXT.within(256), CLASSIFY], ids=str)
def test_write_replaces_the_post_processor_of_an_adopted_vocabulary(words: Path, tmp_path: Path, task: Any) -> None:
    """Lost otherwise: a token that training never saw would stand before every text."""
    folder = adopted(tmp_path / "theirs", words, bos_first(words))
    vocabularies.adopt(folder).save(tmp_path / "kept")
    ours, theirs = exported(tmp_path / "kept", tmp_path / "model", task)
    for text in TEXTS:
        assert theirs(text)["input_ids"] == open_task(task, ours).prompt(Request(text))


def test_write_uses_the_tasks_chat_template_and_keeps_an_adopted_one_for_a_language_model(
    words: Path, tmp_path: Path
) -> None:
    """Lost otherwise: files of the adopted folder would overrule those of the model."""
    folder = adopted(tmp_path / "theirs", words, {}, ("<|bos|>", *Tokenizer.load(words).special))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}<|bos|>")
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|user|>"}))
    vocabularies.adopt(folder).save(tmp_path / "kept")
    messages = [{"role": "user", "content": "Kaç?"}]
    ours, theirs = exported(tmp_path / "kept", tmp_path / "chat", CHAT)
    expected = open_task(CHAT, ours).prompt(Request("Kaç?"))
    assert theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == expected
    assert theirs.eos_token_id == ours.end_of_text
    _, theirs = exported(tmp_path / "kept", tmp_path / "base", TEXT)
    assert theirs.apply_chat_template(messages, tokenize=False) == "Kaç?<|bos|>"
    _, theirs = exported(tmp_path / "kept", tmp_path / "classifier", CLASSIFY)
    assert theirs.chat_template is None


def test_pad_token_of_a_classifier_is_never_the_token_that_ends_its_texts(words: Path, tmp_path: Path) -> None:
    """Lost otherwise: transformers would take the end token for padding and read the token before it."""
    vocabularies.adopt(adopted(tmp_path / "two", words, {})).save(tmp_path / "kept")
    ours, theirs = exported(tmp_path / "kept", tmp_path / "model", CLASSIFY)
    assert ours.pad == ours.end_of_text
    assert theirs.pad_token == "<|bos|>"
    vocabularies.adopt(adopted(tmp_path / "one", words, {}, ("<|endoftext|>",))).save(tmp_path / "kept one")
    _, alone = exported(tmp_path / "kept one", tmp_path / "model one", CLASSIFY)
    assert alone.pad_token is None


def test_adopt_reads_a_tokenizer_json_without_a_model_type(words: Path, tmp_path: Path) -> None:
    """Older files leave it out, and the tokenizers library reads them; the exported file names it."""
    model = json.loads((words / "tokenizer.json").read_text())["model"]
    del model["type"]
    vocabularies.adopt(adopted(tmp_path / "old", words, {"model": model})).save(tmp_path / "kept")
    ours, theirs = exported(tmp_path / "kept", tmp_path / "model", TEXT)
    assert theirs("Ayşe")["input_ids"] == [ours.end_of_text, *Tokenizer.load(words).encode("Ayşe")]
    assert json.loads((tmp_path / "model/tokenizer.json").read_text())["model"]["type"] == "BPE"


FOREIGN = {
    "wordpiece": "bert", "unigram": "t5", "byte_fallback": "gemma", "missing_bytes": "llama", "roberta": "roberta",
    "prefix_space": "gpt2", "clip": "clip", "wordlevel": "llama",
}  # fmt: skip
"""Kind of vocabulary -> model_type of the folder, by which AutoTokenizer could choose another class."""


@pytest.mark.parametrize("task", ["classify", "unchanged"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_write_gives_the_ids_of_an_adopted_vocabulary(kind: str, task: str, tmp_path: Path) -> None:
    """Lost otherwise: a tuned BERT reads other ids in transformers than it was tuned on, or without [CLS] and [SEP]."""
    from transformers import AutoTokenizer

    vocabularies.adopt(foreign.write(kind, tmp_path / "theirs")).save(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": FOREIGN[kind]}), encoding="utf-8")
    decoder = json.loads((tmp_path / "model" / "tokenizer.json").read_bytes())["decoder"]
    tokenizer = Tokenizer.load(tmp_path / "model")
    unchanged = open_task(TaskSpec(name="unchanged").within(4000), tokenizer)
    input_format = export.describe(tokenizer, {"name": task, "max_tokens": 99}, 99)
    export.write(tmp_path / "model", tokenizer, input_format)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "model"), Tokenizer.load(tmp_path / "model")
    assert (input_format.before, input_format.after) == {
        "classify": (ours.text_prefix, ours.text_suffix or (ours.end_of_text,)),
        "unchanged": (ours.text_prefix, ours.text_suffix) if foreign.AROUND.get(kind) else ((ours.end_of_text,), ()),
    }[task]
    for text in ["Işık gün don't  köfte", "a b", "  x ", "日本語 [x]", *foreign.lines(20)]:
        ids = ours.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        assert theirs(text)["input_ids"] == [*input_format.before, *ids, *input_format.after]
        assert task != "unchanged" or unchanged.prompt(Request(text)) == theirs(text)["input_ids"]
        assert theirs.decode(ids) == ours.decode(ids) == tokenizer.decode(ids)
    assert theirs.eos_token_id == ours.end_of_text
    assert ours.unknown in (theirs.unk_token_id, None)
    assert theirs.pad_token_id is None or theirs.pad_token_id not in {*input_format.after, ours.unknown}
    assert json.loads((tmp_path / "model" / "tokenizer.json").read_bytes())["decoder"] == decoder


def test_write_keeps_the_roles_of_an_encoder(tmp_path: Path) -> None:
    """Lost otherwise: transformers' fill-mask finds no mask token in a tuned BERT."""
    from transformers import AutoTokenizer

    vocabularies.adopt(foreign.write("wordpiece", tmp_path / "model")).save(tmp_path / "model")
    tokenizer = Tokenizer.load(tmp_path / "model")
    for task in ("classify", "unchanged"):  # an export of an export too
        export.write(tmp_path / "model", tokenizer, export.describe(tokenizer, {"name": task, "max_tokens": 9}, 9))
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (theirs.cls_token, theirs.sep_token, theirs.mask_token, theirs.pad_token) == (
        "[CLS]", "[SEP]", "[MASK]", "[PAD]",
    )  # fmt: skip


def folder_of(style: str, path: Path, task: TaskSpec) -> tuple[Tokenizer, Any]:
    """A released vocabulary with a chat template of its own, as a model of this task is exported."""
    vocabularies.adopt(chat_templates.folder(chat_templates.STYLES[style], path / "theirs")).save(path / "words")
    return exported(path / "words", path / "model", task)


@pytest.mark.parametrize("style", ["smollm2", "gemma", "mistral"])
def test_write_keeps_the_folders_template_and_tokens_for_template_model(style: str, tmp_path: Path) -> None:
    """Its bos_token and eos_token too, since the template names them; and the end of a turn ends an answer."""
    task = CHAT.model_copy(update={"template": "model"})
    ours, theirs = folder_of(style, tmp_path, task)
    released = chat_templates.STYLES[style]
    assert theirs.chat_template == released.template
    assert (theirs.eos_token, theirs.bos_token) == (released.eos, released.bos)
    messages = [{"role": "user", "content": "Kaç?"}]
    prompt = open_task(task, ours).prompt(Request.of_messages(messages))
    assert theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompt
    ends = export.describe(ours, export.first_task(written([task])), 256).ends
    assert ends[0] == open_task(task, ours).stop
    assert ours.special[released.eos] in ends


@pytest.mark.parametrize("prefix", ["", "<s>"])
def test_write_leaves_out_a_bos_token_that_the_folder_of_a_template_lacks(prefix: str, tmp_path: Path) -> None:
    """Lost otherwise: `{{ bos_token }}` is nothing in training, and a token in the exported folder."""
    released = chat_templates.STYLES["mistral"]._replace(bos=None)
    path = chat_templates.folder(released, tmp_path / "theirs")
    if prefix:  # a post-processor's token, which is no bos_token either
        raw = json.loads((path / "tokenizer.json").read_text())
        number = next(token["id"] for token in raw["added_tokens"] if token["content"] == prefix)
        raw["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": prefix, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {prefix: {"id": prefix, "ids": [number], "tokens": [prefix]}},
        }
        (path / "tokenizer.json").write_text(json.dumps(raw))
    vocabularies.adopt(path).save(tmp_path / "words")
    task = CHAT.model_copy(update={"template": "model"})
    messages = [{"role": "user", "content": "Kaç?"}]
    trained = open_task(task, Tokenizer.load(tmp_path / "words")).prompt(Request.of_messages(messages))
    ours, theirs = exported(tmp_path / "words", tmp_path / "model", task)
    assert len(ours.text_prefix) == len(prefix and [prefix])
    assert theirs.bos_token is None
    assert open_task(task, ours).prompt(Request.of_messages(messages)) == trained
    assert theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == trained


@pytest.mark.parametrize("style", ["smollm2", "gemma", "mistral"])
def test_write_replaces_the_folders_template_and_end_for_any_other(style: str, tmp_path: Path) -> None:
    """Lost otherwise: other programs would ask an alpaca model in the template of the model it was tuned from."""
    task = CHAT.model_copy(update={"template": "alpaca"})
    ours, theirs = folder_of(style, tmp_path, task)
    assert theirs.chat_template == export.CHAT_TEMPLATES["alpaca"]
    assert theirs.eos_token_id == theirs.bos_token_id == ours.end_of_text == open_task(task, ours).stop
    messages = [{"role": "user", "content": "Kaç?"}]
    prompt = open_task(task, ours).prompt(Request.of_messages(messages))
    assert theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompt
    assert export.describe(ours, export.first_task(written([task])), 256).ends == (ours.end_of_text,)


def test_write_ends_answers_of_a_released_chat_model_at_its_turns_too(tmp_path: Path) -> None:
    """`base` is the released model unchanged: its template is kept, so its answers end as that says."""
    ours, theirs = folder_of("gemma", tmp_path, TEXT.within(256))
    assert theirs.chat_template == chat_templates.GEMMA
    assert theirs.bos_token == "<bos>"
    ends = export.describe(ours, export.first_task(written([TEXT.within(256)])), 256).ends
    assert {ours.special["<end_of_turn>"], ours.end_of_text} <= set(ends)


def test_saved_model_says_in_generation_config_where_an_answer_ends(tmp_path: Path) -> None:
    from pipeline.model import checkpoint
    from tests.models import network

    vocabularies.adopt(chat_templates.folder(chat_templates.STYLES["gemma"], tmp_path / "theirs")).save(
        tmp_path / "words"
    )
    model = network("llama", vocab_size=Tokenizer.load(tmp_path / "words").vocab_size)
    for template, ends in {"model": ["<end_of_turn>", "<eos>"], "alpaca": "<eos>"}.items():
        task = TaskSpec(name="chat", template=template, max_tokens=16, max_prompt_tokens=12)
        checkpoint.save(model, tmp_path / template, tokenizer=tmp_path / "words", metadata=written([task]))
        special = Tokenizer.load(tmp_path / template).special
        written_ends = json.loads((tmp_path / template / "generation_config.json").read_text())["eos_token_id"]
        assert written_ends == (special[ends] if isinstance(ends, str) else [special[name] for name in ends])
        assert (tmp_path / template / "README.md").read_text().count(f"by the template {template}") == 1
