"""Pairs written by a model folder: stage download asks it in a process of its own, pinned by its hash."""

import json
import sys
from pathlib import Path

import pytest
import torch

from pipeline import foreign, tokenizer
from pipeline.config.params import ChatModel
from pipeline.data.sources import _chat, _kept_answers
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from tests.models import shape
from tests.specs import ANSWERS, SPAM, labels_of, written

PROMPTS = ["Where is Ayşe?", "İzmir'de mi?", "free prize"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made(tmp_path_factory.mktemp("model"), ANSWERS)


def made(into: Path, task) -> Path:
    """A small random model with a task."""
    words = into / "tokenizer"
    tokenizer.train(["Ayşe İzmir'de yaşıyor. Merhaba dünya, free prize now! " * 20], 300, "gpt2").save(words)
    generator = torch.Generator().manual_seed(1)
    size = tokenizer.Tokenizer.load(words).vocab_size
    model = GPT(shape(context_length=64, vocab_size=size, tie_embeddings=False), generator)
    if task.labels:
        model.add_score(len(task.labels), generator)
    checkpoint.save(model, into / "model", tokenizer=words, labels=labels_of(task), metadata=written([task]))
    return into / "model"


def asked(folder: Path, **changes) -> ChatModel:
    fields = {
        "endpoint": None, "model": None, "key": None, "folder": str(folder), "sha256": pin(folder), "temperature": 0.0,
        "max_tokens": 8, "seed": 1, "retries": 0, "timeout_s": 1.0, "concurrency": 1,
    }  # fmt: skip
    return ChatModel.model_validate(fields | changes)


def pin(folder: Path) -> str:
    return foreign.pin(foreign.hashes(folder))


def test_answers_of_a_folder_are_those_of_its_predictor_and_are_kept(folder, tmp_path, monkeypatch):
    answers = list(_chat.answers(asked(folder), PROMPTS, tmp_path / "kept", "download.sources.faq.ask"))
    from pipeline.inference.predictor import Predictor

    expected = Predictor(folder).answer(PROMPTS, {"max_tokens": 8, "temperature": 0.0, "seed": 1})
    assert [answer.text for answer in answers] == [answer["completion"] for answer in expected]
    assert {answer.model for answer in answers} == {pin(folder)}
    monkeypatch.setattr(sys, "executable", "/nowhere")  # a second process could not start
    assert list(_chat.answers(asked(folder), PROMPTS, tmp_path / "kept", "download.sources.faq.ask")) == answers


def test_answers_of_a_folder_need_its_pin(folder, tmp_path):
    for sha256, message in [(None, f"if you trust it, write {pin(folder)}"), ("0" * 64, "restore the folder")]:
        with pytest.raises(UserError, match=message):
            list(_chat.answers(asked(folder, sha256=sha256), PROMPTS, tmp_path, "download.sources.faq.ask"))
    missing = asked(folder).model_copy(update={"folder": "models/none"})
    with pytest.raises(UserError, match=r"faq\.ask\.folder is .*no such folder"):
        list(_chat.answers(missing, PROMPTS, tmp_path, "download.sources.faq.ask"))


def test_answers_of_a_folder_are_refused_when_it_classifies(tmp_path, capfd):
    folder = made(tmp_path, SPAM)
    with pytest.raises(UserError, match="stopped without an answer"):
        list(_chat.answers(asked(folder), PROMPTS, tmp_path / "kept", "download.sources.faq.ask"))
    assert "answers with labels" in capfd.readouterr().err


def test_kept_answers_are_asked_again_when_a_file_is_damaged(folder, tmp_path):
    kept = _kept_answers.Kept(tmp_path, asked(folder))
    kept.put("a", _kept_answers.Answer("ışık \ud83d", "m", "stop"))
    assert kept.get("a") == _kept_answers.Answer("ışık \ud83d", "m", "stop")
    (file,) = tmp_path.rglob("*.json")
    assert json.loads(file.read_text())["model"] == "m"
    for content in (b"", b"{", b"[]", b'{"text": "x"}', b"\xff"):
        file.write_bytes(content)
        assert kept.get("a") is None
