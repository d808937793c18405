"""predictor.py: answers depend on the text and the settings alone, and bad requests are named."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import tokenizer
from pipeline.errors import UserError
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from tests.models import shape

TEXTS = ["free prize", "ı", "Merhaba dünya, free prize now!"]
DRAWN = {"temperature": 1.5, "max_tokens": 8}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small tokenizer."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    tokenizer.train(["Ayşe İzmir'de yaşıyor. Merhaba dünya, free prize now! " * 20], 300, "gpt2").save(folder)
    return folder


def predictor(folder: Path, words: Path, task: dict[str, Any]) -> Predictor:
    """Of a small random model with this task."""
    generator = torch.Generator().manual_seed(1)
    size = tokenizer.Tokenizer.load(words).vocab_size
    model = GPT(shape(context_length=64, vocab_size=size, tie_embeddings=False), generator)
    labels = task.get("labels")
    if labels:
        model.add_score(len(labels), generator)
    checkpoint.save(model, folder / "model", tokenizer=words, labels=labels, metadata=task)
    return Predictor(folder / "model")


def test_answer_gives_a_label_and_its_probability_for_a_classifier(tmp_path: Path, words: Path) -> None:
    task = {"objective": "classify", "labels": ["ham", "spam"], "max_tokens": 32}
    for answer in predictor(tmp_path, words, task).answer(TEXTS):
        assert answer["label"] in task["labels"]
        assert 0.5 <= answer["score"] <= 1


@pytest.mark.parametrize("settings", [{"max_tokens": 8}, DRAWN])
@pytest.mark.parametrize("task", [{"objective": "next_token"}, {"objective": "instruct", "template": "chat"}])
def test_answer_is_that_of_the_text_alone(
    tmp_path: Path, words: Path, task: dict[str, Any], settings: dict[str, int | float]
) -> None:
    """Lost otherwise: a client's answer would depend on the other texts of its request."""
    model = predictor(tmp_path, words, task)
    answers = model.answer(TEXTS, settings)
    assert answers == [model.answer([text], settings)[0] for text in TEXTS]


def test_answer_changes_with_the_seed_when_drawn(tmp_path: Path, words: Path) -> None:
    model = predictor(tmp_path, words, {"objective": "next_token"})
    assert model.answer(TEXTS, DRAWN | {"seed": 2}) != model.answer(TEXTS, DRAWN) == model.answer(TEXTS, DRAWN)


def test_answer_takes_a_text_longer_than_the_context(tmp_path: Path, words: Path) -> None:
    assert len(predictor(tmp_path, words, {"objective": "next_token"}).answer(["free prize " * 200])) == 1


def test_answer_names_what_it_cannot_answer(tmp_path: Path, words: Path) -> None:
    model = predictor(tmp_path, words, {"objective": "next_token"})
    with pytest.raises(UserError, match="input 1 is int, expected text"):
        model.answer(["free", 7])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"unknown settings \['heat'\]; one of: max_tokens, temperature"):
        model.answer(["free"], {"heat": 1})
