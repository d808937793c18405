"""Nearest neighbours on embeddings: padding or an unnormalised vector would make this row worthless."""

from pathlib import Path

import pytest
import torch

from pipeline import tokenizer as vocabularies
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.studies import neighbours
from tests.model import library_models
from tests.models import network
from tests.tokenizer import foreign

TEXTS = ["ışık gün", "they're in 1923 yıl; böyle... don't", "çiğ"]


def model_of(name: str, vocabulary: vocabularies.Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GPT:
    if name == "own":
        return network("llama", vocab_size=vocabulary.vocab_size, context_length=48).eval()
    monkeypatch.setitem(library_models._SHARED, "vocab_size", vocabulary.vocab_size)
    return checkpoint.load(library_models.written(name, tmp_path / name))


@pytest.mark.parametrize("name", ["own", "bert", "gemma"])
def test_embeddings_are_mean_states_whatever_is_beside_a_text(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = vocabularies.adopt(foreign.write("wordpiece", tmp_path / "words"))
    model = model_of(name, vocabulary, tmp_path, monkeypatch)
    together_ND = neighbours.embeddings(model, vocabulary, TEXTS, 40)
    for text, vector_D in zip(TEXTS, together_ND, strict=True):
        ids_1T = torch.tensor([[*vocabulary.text_prefix, *vocabulary.encode(text), *vocabulary.text_suffix]])
        with torch.no_grad():
            mean_D = model.hidden(ids_1T)[0].mean(0)
        torch.testing.assert_close(vector_D, mean_D / mean_D.norm(), atol=1e-5, rtol=1e-4)


def test_embeddings_keep_the_tokens_around_a_cut_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = vocabularies.adopt(foreign.write("wordpiece", tmp_path / "words"))
    model = model_of("bert", vocabulary, tmp_path, monkeypatch)
    long = " ".join(TEXTS * 5)
    before, after = vocabulary.text_prefix, vocabulary.text_suffix
    assert (len(before), len(after)) == (1, 1)
    ids = vocabulary.encode(long)
    cut_1T = torch.tensor([[*before, *ids[:3], *ids[-3:], *after]])
    with torch.no_grad():
        mean_D = model.hidden(cut_1T)[0].mean(0)
    vector_1D = neighbours.embeddings(model, vocabulary, [long], 8)
    torch.testing.assert_close(vector_1D[0], mean_D / mean_D.norm(), atol=1e-5, rtol=1e-4)


def test_embeddings_refuse_an_encoder_decoder(tmp_path: Path) -> None:
    vocabulary = vocabularies.adopt(foreign.write("unigram", tmp_path / "words"))
    model = checkpoint.load(library_models.written("t5", tmp_path / "t5"))
    with pytest.raises(UserError, match="an encoder-decoder has no embedding of a single text here"):
        neighbours.embeddings(model, vocabulary, TEXTS, 40)


def test_voted_takes_the_label_with_the_largest_sum_of_similarities() -> None:
    known_MD = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.5, 0.9], [-1.0, 0.0]]))
    labels = ["ham", "spam", "spam", "ham"]
    query_1D = torch.tensor([[1.0, 0.0]])
    assert neighbours.voted(query_1D, known_MD, labels, 1) == ["ham"]
    assert neighbours.voted(query_1D, known_MD, labels, 3) == ["spam"]  # 0.60 + 0.49 beside 1.00
    assert neighbours.voted(query_1D, known_MD, labels, 99) == ["spam"]  # an opposite text has no vote


def test_nearest_gives_the_most_similar_first() -> None:
    known_MD = torch.eye(3)
    similarities, rows = neighbours.nearest(torch.tensor([[0.6, 0.8, 0.0]]), known_MD, 2)
    assert rows.tolist() == [[1, 0]]
    assert similarities[0].tolist() == pytest.approx([0.8, 0.6])
