"""Embeddings: equal to transformers' states pooled by hand, whatever else is in the batch."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import tokenizer as vocabularies
from pipeline.errors import UserError
from pipeline.inference.embeddings import POOLINGS, Embedder
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.paths import CODE as ROOT
from pipeline.prompts.spec import TEXT
from pipeline.tokenizer import Tokenizer
from tests.models import shape
from tests.open_models import minilm_folder, open_models
from tests.specs import SPAM, written

TEXTS = ["Ayşe nerede yaşıyor?", "", "free prize now! ışıl ışıl çiğ köfte", "ı", "uzun bir metin " * 40]
FAMILIES = ("gpt2", "llama", "qwen3")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small vocabulary."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    vocabularies.train(["Ayşe İzmir'de yaşıyor. free prize, uzun bir metin ışıl çiğ. " * 20], 320, "gpt2").save(folder)
    return folder


def saved(folder: Path, words: Path, family: str = "llama", task: Any = TEXT) -> Path:
    """A random model of 64 positions."""
    size = {"vocab_size": Tokenizer.load(words).vocab_size, "context_length": 64, "tie_embeddings": False}
    model = GPT(shape(family, **size), torch.Generator().manual_seed(3))
    if task.outputs:
        model.add_score(len(task.outputs), torch.Generator().manual_seed(4))
    labels = list(task.outputs) or None
    checkpoint.save(model, folder, tokenizer=words, labels=labels, metadata=written([task.within(64)]))
    return folder


def by_hand(folder: Path, texts: list[str], pooling: str, limit: int) -> Any:
    """Vectors of transformers' states, pooled as sentence-transformers does, one text at a time."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    tokenizer.truncation_side = "right"
    vectors = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        with torch.no_grad():
            states_TD = model(**inputs).last_hidden_state[0]
        vector = {"mean": states_TD.mean(0), "last": states_TD[-1], "first": states_TD[0]}[pooling]
        vectors.append(torch.nn.functional.normalize(vector, dim=0))
    return torch.stack(vectors).numpy()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("task", [TEXT, SPAM], ids=["next_token", "classify"])
@pytest.mark.parametrize("family", FAMILIES)
def test_embed_gives_transformers_pooled_states_of_the_same_folder(
    family: str, task: Any, pooling: Any, words: Path, tmp_path: Path
) -> None:
    """In one batch of texts of different lengths, with an empty and a long one."""
    folder = saved(tmp_path / "model", words, family, task)
    vectors = Embedder(folder, pooling).embed(TEXTS)
    np.testing.assert_allclose(vectors, by_hand(folder, TEXTS, pooling, 64), atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_embed_gives_a_text_the_same_vector_alone_and_in_a_batch(pooling: Any, words: Path, tmp_path: Path) -> None:
    embedder = Embedder(saved(tmp_path / "model", words), pooling)
    together = embedder.embed(TEXTS, normalise=False)
    alone = np.concatenate([embedder.embed([text], normalise=False) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(embedder.embed(TEXTS, normalise=False, batch_size=2), alone, atol=1e-5)


def test_embed_does_not_pool_padding(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """States of padding are arbitrary; here they are infinite."""
    embedder = Embedder(saved(tmp_path / "model", words))
    expected, real = embedder.embed(TEXTS), embedder._model.hidden

    def hidden(inputs_BT: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return real(inputs_BT, mask=mask).masked_fill(~mask[:, :, None], float("inf"))

    monkeypatch.setattr(embedder._model, "hidden", hidden)
    np.testing.assert_allclose(embedder.embed(TEXTS), expected)


def test_embedder_takes_pooling_and_limit_of_a_folder_of_sentence_transformers(words: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", words)
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(modes))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    (folder / "manifest.json").unlink()
    embedder = Embedder(folder)
    assert (embedder.pooling, embedder.max_tokens) == ("last", 20)
    np.testing.assert_allclose(embedder.embed(TEXTS), by_hand(folder, TEXTS, "last", 20), atol=2e-5)
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(UserError, match=r"pools by pooling_mode_max_tokens; one of: .*; choose --pooling"):
        Embedder(folder)
    assert Embedder(folder, "mean").pooling == "mean"


@open_models
def test_embed_equals_sentence_transformers_arithmetic_on_minilm() -> None:
    """Mean of the states of real tokens, normalised, cut to 256 tokens."""
    folder = minilm_folder()
    embedder = Embedder(folder)
    assert (embedder.pooling, embedder.max_tokens, embedder.width) == ("mean", 256, 384)
    np.testing.assert_allclose(embedder.embed(TEXTS), by_hand(folder, TEXTS, "mean", 256), atol=1e-5)
    made = example(folder)
    assert set(made["nearest"][:2]) == set(made["texts"][:2])
    assert made["groups"][0] == made["groups"][1] != made["groups"][2] == made["groups"][3]


def example(folder: Path) -> dict[str, Any]:
    """The variables of the example in pipeline/README.md after it ran."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "pipeline/README.md").read_text(encoding="utf-8"), re.S)
    (block,) = (block for block in blocks if "Embedder" in block)
    variables: dict[str, Any] = {}
    exec(block.replace("FOLDER", str(folder)), variables)
    return variables


def test_the_example_of_search_and_clustering_runs(words: Path, tmp_path: Path) -> None:
    made = example(saved(tmp_path / "model", words))
    assert sorted(made["nearest"]) == sorted(made["texts"])
    assert set(made["groups"]) == {0, 1}
