"""readme.py: the code in a model folder's README.md runs from any folder and gives the predictor's answers."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import files
from pipeline import tokenizer as vocabularies
from pipeline.inference.embeddings import Embedder
from pipeline.inference.predictor import Predictor
from pipeline.model import adapter_folder, checkpoint, readme
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.prompts.request import Request
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tokenizer import Tokenizer, export
from pipeline.tuners import Adapter
from tests import variants
from tests.model import library_models
from tests.models import shape
from tests.specs import labels_of, written
from tests.tokenizer import foreign

CLASSIFY = TaskSpec(name="classify", labels=("ham", "spam"), max_tokens=40, max_prompt_tokens=40)
TASKS = {
    "next_token": TEXT.within(160),
    "classify": CLASSIFY,
    "multi_label": TaskSpec(name="multi_label", labels=("ev", "iş", "çöp"), max_tokens=40, max_prompt_tokens=40),
    "regress": TaskSpec(name="regress", mean=-3.25, deviation=1.5, max_tokens=40, max_prompt_tokens=40),
    "cloze": TaskSpec(
        name="cloze",
        labels=("ham", "spam"),
        pattern="{text} Bu{label}",
        verbalizers={"ham": " iyi", "spam": " kötü"},
        max_tokens=60,
        max_prompt_tokens=56,
    ),
    "chat": TaskSpec(name="chat", template="chat", max_tokens=64, max_prompt_tokens=50),
    "alpaca": TaskSpec(name="instruct", template="alpaca", max_tokens=64, max_prompt_tokens=50),
    "reward": TaskSpec(name="reward", template="chat", max_tokens=64, max_prompt_tokens=50),
}
ADAPTERS = [variant for variant in variants.variants("tuners") if isinstance(variant.build(), Adapter)]
# Name of the README's variable -> the predictor's field.
RESULTS = {
    "classify": "label",
    "cloze": "label",
    "next_token": "completion",
    "chat": "completion",
    "alpaca": "completion",
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small vocabulary."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    vocabularies.train(["a text, a question, another text. Bu mesaj iyi, şu kötü. " * 20], 320, "gpt2").save(folder)
    return folder


def network(words: Path, labels: int, family: str = "llama") -> GPT:
    """A random model that generates no special token but end-of-text."""
    tokenizer = Tokenizer.load(words)
    size = {"vocab_size": tokenizer.vocab_size, "context_length": 160, "tie_embeddings": False}
    model = GPT(shape(family, **size), torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
        for number in tokenizer.special.values():
            model.head.weight[number] = 0
    if labels:
        model.add_score(labels, torch.Generator().manual_seed(5))
    return model


def code(folder: Path, number: int) -> dict[str, Any]:
    """The variables of the README's code block of that number after it ran."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    variables: dict[str, Any] = {}
    exec(blocks[number].replace("FOLDER", str(folder)), variables)
    return variables


@pytest.mark.parametrize("name", list(TASKS))
def test_the_code_of_a_task_gives_the_predictors_answer(
    name: str, tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS[name]
    labels = None if task.name == "cloze" else list(task.outputs) or None  # cloze has labels and no head
    folder = tmp_path / "model"
    checkpoint.save(network(words, len(labels or [])), folder, tokenizer=words, labels=labels, metadata=written([task]))
    monkeypatch.chdir("/")
    variables = code(folder, 0)
    require_answer(name, folder, variables)


def require_answer(name: str, folder: Path, variables: dict[str, Any]) -> None:
    """The README's variables have the predictor's answer."""
    if name == "reward":
        asked = [Request("a question", answer="an answer"), Request("another question", answer="")]
        ours = [row["reward"] for row in Predictor(folder).answer(asked)]
        assert abs(ours[0] - ours[1]) > 0.01
        assert [variables["reward"](one.question, one.answer) for one in asked] == pytest.approx(ours, abs=1e-5)
        return
    text = "a question" if name in ("chat", "alpaca") else "a text"
    expected = Predictor(folder).answer([text])[0]
    if name == "classify":
        best, other = variables["rows"][0]
        assert (best["label"], best["score"]) == (expected["label"], pytest.approx(expected["score"], abs=1e-5))
        assert best["score"] + other["score"] == pytest.approx(1)
    elif name == "multi_label":
        shares = {row["label"]: row["score"] for row in variables["rows"][0]}
        assert shares == pytest.approx(expected["probabilities"], abs=1e-5)
    elif name == "regress":
        assert variables["numbers"][0] == pytest.approx(expected["value"], abs=1e-4)
    else:
        made = {"cloze": "label", "next_token": "text"}.get(name, "answer")
        assert variables[made] == expected[RESULTS[name]]


def save_tuned(models: Path, variant: variants.Variant, task: TaskSpec, words: Path, whole: bool) -> None:
    """models/base, and models/tuned with an adapter of random weights; not whole: without the base's weights."""
    tuner, labels = variant.build(), None if task.name == "cloze" else list(task.outputs) or None
    checkpoint.save(network(words, 0), models / "base", tokenizer=words, metadata=written([TEXT]))
    model = checkpoint.load(models / "base")
    if labels:
        model.add_score(len(labels), torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        tuner.apply(model, generator, lambda text: [1, 2, 3])
        for parameter in tuner.groups(model)[0]["params"]:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    checkpoint.save(
        tuner.merge(model.eval()) if whole else model, models / "tuned",
        tokenizer=words, labels=labels, metadata=written([task]),
        adapter=lambda folder: tuner.save_adapter(model, folder, "../../base"),
        base=None if whole else adapter_folder.describe(models / "base"),
    )  # fmt: skip


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("tuner", ["lora", "ia3"])
def test_the_code_of_an_adapter_without_its_base_gives_the_predictors_answer(
    tuner: str, name: str, tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text in, answer out; transformers alone finds no weights there, and the README says so."""
    import transformers

    task = TASKS[name]
    save_tuned(tmp_path, next(v for v in ADAPTERS if v.name == tuner), task, words, whole=False)
    folder = tmp_path / "tuned"
    assert "from_pretrained` of transformers alone finds no weights here" in (folder / "README.md").read_text()
    with pytest.raises(OSError, match="no file named"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)
    monkeypatch.chdir("/")
    variables = code(folder, 0)
    require_answer(name, folder, variables)


@pytest.mark.parametrize("variant", [v for v in ADAPTERS if v.name in ("prefix", "prompt", "bottleneck")], ids=str)
def test_the_code_of_an_adapter_without_its_base_gives_the_scores_of_virtual_tokens(
    variant: variants.Variant, tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tuned(tmp_path, variant, TASKS["next_token"], words, whole=False)
    folder = tmp_path / "tuned"
    if variant.name == "bottleneck":
        assert "```" not in (folder / "README.md").read_text()
        return
    monkeypatch.chdir("/")
    made = code(folder, 0)
    inputs = made["tokenizer"]("a text", return_tensors="pt")
    scores = made["model"].eval()(**inputs).logits[:, -inputs["input_ids"].shape[1] :]
    torch.testing.assert_close(scores, checkpoint.load(folder)(inputs["input_ids"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("weights", "said"), [("bfloat16", True), ("float32", False)])
def test_the_readme_says_that_peft_adds_an_adapter_to_the_exact_weights(
    weights: Any, said: bool, tmp_path: Path, words: Path
) -> None:
    """Lost otherwise: scores that differ between Tohum and peft look like a damaged adapter."""
    save_tuned(tmp_path, next(v for v in ADAPTERS if v.name == "lora"), CLASSIFY, words, whole=False)
    files.write_json(tmp_path / "tuned/base.json", adapter_folder.describe(tmp_path / "base", weights).model_dump())
    tokenizer, task = Tokenizer.load(words), written([CLASSIFY])["tasks"][0]
    text = readme.text(task, "llama", export.describe(tokenizer, task, 160), tmp_path / "tuned/adapter")
    assert ("peft adds it to the exact weights" in text) == said


def library_model(name: str, folder: Path) -> tuple[LibraryModel, Path]:
    """A small model that transformers computes, and the folder of a vocabulary as its authors publish it."""
    vocabularies.adopt(foreign.write("unigram" if name == "t5" else "wordpiece", folder / "theirs")).save(
        folder / "words"
    )
    tokenizer = Tokenizer.load(folder / "words")
    model = checkpoint.load(library_models.written(name, folder / "network", tokenizer.vocab_size))
    assert isinstance(model, LibraryModel)
    with torch.no_grad():  # generates no special token
        for number in tokenizer.special.values():
            model.embed.weight[number] = 0
    return model, folder / "words"


OPEN = TaskSpec(name="unchanged").within(128)
INSTRUCT = TaskSpec(name="instruct", template="alpaca", max_tokens=128, max_prompt_tokens=60)


@pytest.mark.parametrize("name", library_models.ENCODERS)
def test_the_code_of_an_unchanged_encoder_gives_the_embeddings_of_the_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: code for text generation, which an encoder cannot do."""
    model, words = library_model(name, tmp_path)
    checkpoint.save(model, tmp_path / "model", tokenizer=words, metadata=written([OPEN]))
    text = (tmp_path / "model/README.md").read_text()
    assert "The model is an encoder" in text
    assert "Completes texts" not in text
    monkeypatch.chdir("/")
    vectors_ND = code(tmp_path / "model", 0)["vectors"]
    expected_ND = torch.from_numpy(Embedder(tmp_path / "model").embed(["a text", "another text"]))
    torch.testing.assert_close(vectors_ND, expected_ND, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("task", "variable"), [(INSTRUCT, "answer"), (OPEN, "text")], ids=["instruct", "unchanged"])
def test_the_code_of_an_encoder_decoder_gives_the_predictors_answer(
    task: TaskSpec, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: `text-generation` refuses a T5, or its encoder reads a text without its end."""
    model, words = library_model("t5", tmp_path)
    checkpoint.save(model, tmp_path / "model", tokenizer=words, metadata=written([task]))
    monkeypatch.chdir("/")
    made = code(tmp_path / "model", 0)[variable]
    question = "a question" if variable == "answer" else "a text"
    assert made == Predictor(tmp_path / "model").answer([question])[0]["completion"] != ""


def test_the_code_of_an_encoder_decoders_adapter_gives_the_predictors_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, words = library_model("t5", tmp_path)
    checkpoint.save(model, tmp_path / "base", tokenizer=words, metadata=written([OPEN]))
    tuner, generator = next(v for v in ADAPTERS if v.name == "lora").build(), torch.Generator().manual_seed(4)
    model = checkpoint.load(tmp_path / "base")
    with torch.no_grad():
        tuner.apply(model, generator, lambda text: [1, 2, 3])
        for parameter in tuner.groups(model)[0]["params"]:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    checkpoint.save(
        model.eval(), tmp_path / "tuned", tokenizer=words, metadata=written([INSTRUCT]),
        adapter=lambda folder: tuner.save_adapter(model, folder, "../../base"),
        base=adapter_folder.describe(tmp_path / "base"),
    )  # fmt: skip
    monkeypatch.chdir("/")
    made = code(tmp_path / "tuned", 0)["answer"]
    assert made == Predictor(tmp_path / "tuned").answer(["a question"])[0]["completion"] != ""


def test_the_readme_of_a_tuned_encoder_names_its_own_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code too gives the predictor's labels."""
    model, words = library_model("bert", tmp_path)
    model.add_score(2, torch.Generator().manual_seed(2))
    folder = tmp_path / "model"
    checkpoint.save(model, folder, tokenizer=words, labels=["ham", "spam"], metadata=written([CLASSIFY]))
    assert "[CLS] and [SEP]" in (folder / "README.md").read_text()
    assert "end-of-text" not in (folder / "README.md").read_text()
    monkeypatch.chdir("/")
    require_answer("classify", folder, code(folder, 0))


def test_the_readme_names_repository_and_commit_of_an_unchanged_base(tmp_path: Path, words: Path) -> None:
    """An adapter over open weights can be given away without the base's folder."""
    variant = next(v for v in ADAPTERS if v.name == "lora")
    save_tuned(tmp_path, variant, TASKS["next_token"], words, whole=False)
    path = tmp_path / "tuned/adapter/adapter_config.json"
    named = {"base_model_name_or_path": "org/name", "revision": "0" * 40}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    tokenizer = Tokenizer.load(words)
    task = written([TASKS["next_token"]])["tasks"][0]
    text = readme.text(task, "llama", export.describe(tokenizer, task, 160), path.parent)
    assert "is its\nrepository and `revision` its commit." in text
    assert 'from_pretrained(base, revision=commit, config=config, dtype="float32")' in text
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        compile(block, "README.md", "exec")


@pytest.mark.parametrize("task", [TASKS["next_token"], CLASSIFY], ids=["next_token", "classify"])
@pytest.mark.parametrize("variant", ADAPTERS, ids=str)
def test_the_code_of_an_adapter_gives_the_models_scores_from_any_folder(
    variant: variants.Variant, task: TaskSpec, tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: the base's path held only in the project's root, and labels were LABEL_0 and LABEL_1."""
    labels = labels_of(task)
    models = tmp_path / "models"
    save_tuned(models, variant, task, words, whole=True)
    moved = shutil.move(models, tmp_path / "elsewhere")
    folder = Path(moved) / "tuned"
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    if config["peft_type"] == "BOTTLENECK":
        assert "only Tohum reads it" in (folder / "README.md").read_text()
        assert "```" not in (folder / "README.md").read_text()
        return
    monkeypatch.chdir("/")
    made = code(folder, 0 if "num_virtual_tokens" in config else 1)
    inputs = made["tokenizer"]("a text", return_tensors="pt")
    scores = made["model"].eval()(**inputs).logits
    ours = checkpoint.load(folder)
    if labels:
        assert made["model"].config.id2label == {0: "ham", 1: "spam"}
        expected = ours.classify(inputs["input_ids"], torch.ones_like(inputs["input_ids"], dtype=torch.bool))
    else:
        expected, scores = ours(inputs["input_ids"]), scores[:, -inputs["input_ids"].shape[1] :]
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
