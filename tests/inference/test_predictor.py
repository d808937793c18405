"""predictor.py: answers depend on the text and the settings alone, and bad requests are named."""

from pathlib import Path

import pytest
import torch

from pipeline import tokenizer
from pipeline.errors import UserError
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.prompts.request import Request
from pipeline.prompts.spec import TaskSpec
from tests.models import shape
from tests.specs import ANSWERS, SPAM, TEXT, labels_of, written

TEXTS = ["free prize", "ı", "Merhaba dünya, free prize now!"]
DRAWN = {"temperature": 1.5, "max_tokens": 8}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small tokenizer."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    tokenizer.train(["Ayşe İzmir'de yaşıyor. Merhaba dünya, free prize now! " * 20], 300, "gpt2").save(folder)
    return folder


def predictor(folder: Path, words: Path, task: TaskSpec) -> Predictor:
    """Of a small random model with this task."""
    generator = torch.Generator().manual_seed(1)
    size = tokenizer.Tokenizer.load(words).vocab_size
    model = GPT(shape(context_length=64, vocab_size=size, tie_embeddings=False), generator)
    if task.labels:
        model.add_score(len(task.labels), generator)
    checkpoint.save(model, folder / "model", tokenizer=words, labels=labels_of(task), metadata=written([task]))
    return Predictor(folder / "model")


def test_answer_gives_a_label_and_its_probability_for_a_classifier(tmp_path: Path, words: Path) -> None:
    model = predictor(tmp_path, words, SPAM)
    shares = model.probabilities([Request(text) for text in TEXTS])
    for answer, share in zip(model.answer(TEXTS), shares, strict=True):
        assert list(share) == ["ham", "spam"]
        assert answer == {"label": max(share, key=share.__getitem__), "score": max(share.values())}


@pytest.mark.parametrize("settings", [{"max_tokens": 8}, DRAWN])
@pytest.mark.parametrize("task", [TEXT, ANSWERS])
def test_answer_is_that_of_the_text_alone(
    tmp_path: Path, words: Path, task: TaskSpec, settings: dict[str, int | float]
) -> None:
    """Lost otherwise: a client's answer would depend on the other texts of its request."""
    model = predictor(tmp_path, words, task)
    answers = model.answer(TEXTS, settings)
    assert answers == [model.answer([text], settings)[0] for text in TEXTS]


def test_answer_changes_with_the_seed_when_drawn(tmp_path: Path, words: Path) -> None:
    model = predictor(tmp_path, words, TEXT)
    assert model.answer(TEXTS, DRAWN | {"seed": 2}) != model.answer(TEXTS, DRAWN) == model.answer(TEXTS, DRAWN)


def test_answer_takes_a_text_longer_than_the_context(tmp_path: Path, words: Path) -> None:
    assert len(predictor(tmp_path, words, TEXT).answer(["free prize " * 200])) == 1


def test_answer_names_what_it_cannot_answer(tmp_path: Path, words: Path) -> None:
    model = predictor(tmp_path, words, TEXT)
    with pytest.raises(UserError, match="input 1 is int, expected text"):
        model.answer(["free", 7])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"unknown settings \['heat'\]; one of: max_tokens, temperature"):
        model.answer(["free"], {"heat": 1})
