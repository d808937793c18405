"""The opening words of `tohum chat`: without them nobody knows which questions a model was trained to answer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from pipeline import config, files
from pipeline.cli._opening import opening
from pipeline.config.params import Params
from pipeline.data.conversations import Turn, of_turns
from pipeline.data.samples import sample
from pipeline.evaluation import Subject
from pipeline.model.gpt import GPT
from pipeline.paths import CODE as ROOT
from pipeline.paths import PROVENANCE, SAMPLES
from pipeline.prompts.spec import TaskSpec
from pipeline.tasks import Task
from pipeline.tokenizer import Tokenizer
from tests.fakes import ByteTokenizer
from tests.folders import write_raw, write_tokens

LABELLED = [
    {"text": "paket\nhızlı geldi", "label": "iyi"},
    {"text": "teşekkürler", "label": "iyi"},
    {"text": "kargo kırık " + "çok " * 40, "label": "kötü"},
    {"text": "üçüncü iyi", "label": "iyi"},
]
EARLIER = of_turns([Turn("Merhaba", "Selam")])
INSTRUCTIONS = [
    {"instruction": "Başkent neresi?", "input": "Türkiye", "output": "Ankara"},
    {"instruction": "Nasılsın?", "input": "", "output": "İyiyim", "history": EARLIER},
]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project with training records of two kinds from one file."""
    monkeypatch.chdir(tmp_path)
    write_raw(Path("raw"), labelled=LABELLED, instructions=INSTRUCTIONS)
    for kind in ("labelled", "instructions"):
        (SAMPLES / kind).mkdir(parents=True)
        (Path("raw") / f"{kind}.parquet").rename(SAMPLES / kind / "train.parquet")
    entry = {"address": "inputs/own.csv", "rows": {"labelled": 4, "instructions": 2}}
    files.write_json(PROVENANCE, {"sources": {"own": entry, "other": {"address": "x", "rows": {"documents": 1}}}})
    return config.check(yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8")))


def subject(model: str, **task: Any) -> Subject:
    """A model with this task; nothing of its network is needed."""
    tasks = (cast(Task, SimpleNamespace(spec=TaskSpec(**task))),)
    return Subject(model, cast(GPT, None), cast(Tokenizer, ByteTokenizer()), tasks, SAMPLES, cast(Any, None))


def test_opening_shows_labels_and_an_example_of_each_label(params: Params) -> None:
    model = subject("spam-lora", name="classify", labels=["iyi", "kötü"], max_tokens=32)
    taught, trained, _, *examples, end = opening(model, params, "spam-lora")
    assert "one of 2 labels: iyi, kötü" in taught
    assert trained == "Trained (lora from base) on 4 labelled texts of own (inputs/own.csv)."
    assert [example.rpartition(" -> ")[2] for example in examples] == ["iyi", "kötü", "iyi"]
    assert examples[0].strip() == "paket hızlı geldi -> iyi"
    assert "…" in examples[1]
    assert "Ctrl-D" in end


def test_opening_shows_question_and_answer_of_instructions(params: Params) -> None:
    lines = opening(subject("chat-full", name="instruct", template="chat"), params, "chat-full")
    assert "template chat" in lines[0]
    assert "  Başkent neresi? Türkiye -> Ankara" in lines
    assert "  Merhaba Selam Nasılsın? -> İyiyim" in lines  # earlier messages as text, not as JSON


def test_opening_says_so_when_the_training_data_is_elsewhere(params: Params) -> None:
    for recipe in (None, "removed-from-params"):
        lines = opening(subject("spam-lora", name="classify", labels=["a", "b"], max_tokens=32), params, recipe)
        assert len(lines) == 2
        assert "no example is shown" in lines[1]


def test_opening_shows_documents_of_the_base(params: Params) -> None:
    raw = write_raw(Path("data/raw"), documents=[{"text": f"{i}. gün köyde çay içildi"} for i in range(40)])
    sample(params, raw, write_tokens(raw, Path("data/tokens")), SAMPLES, progress=False)
    lines = opening(subject("base", name="next_token"), params, "base")
    assert "continues your text" in lines[0]
    assert "documents of other (x)" in lines[1]
    assert sum("gün köyde çay içildi" in line for line in lines) == 3


def test_opening_shows_no_training_data_of_unchanged_open_weights(params: Params) -> None:
    """Lost otherwise: a copied encoder is called a language model that was trained on this project's documents."""
    assert opening(subject("base", name="unchanged"), params, "base") == [
        "base: open weights, not trained here; where it is a language model, it continues your text.",
        "Type a text and press Enter; end with Ctrl-D.",
    ]
