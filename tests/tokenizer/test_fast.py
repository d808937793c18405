"""gigatoken in tiktoken's and rustbpe's place: if it differs anywhere, a corpus has ids that no other tool reproduces,
and a vocabulary depends on what is installed."""

import random
import sys
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import tokenizer as module
from pipeline.tokenizer import fast, trainer
from pipeline.tokenizer.encoders import BytePairs
from pipeline.tokenizer.pretokenizer import PART, PATTERNS
from tests.tokenizer.test_tokenizer import TEXT, corpus
from tests.tokenizer.test_utf8 import utf8_of

NAMES = ["gpt2", "cl100k_base", "o200k_base"]


@pytest.fixture(scope="module", params=NAMES)
def both(request: pytest.FixtureRequest) -> BytePairs:
    """A small vocabulary of each pattern."""
    ranks = trainer._rustbpe(corpus(), 380, request.param)
    return BytePairs(ranks, PATTERNS[request.param].tiktoken)


def assert_equal_ids(engine: BytePairs, texts: list[str]) -> None:
    slow, quick = engine.encode(texts), engine.encode_utf8(utf8_of(texts))
    assert engine._corpus is not None
    assert engine._corpus._agreed
    for text, one, other in zip(texts, slow, quick, strict=True):
        assert np.array_equal(one, other), repr(text)


@settings(max_examples=300)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_corpus_encoder_gives_tiktokens_ids_for_any_text(both: BytePairs, texts: list[str]) -> None:
    assert_equal_ids(both, texts)


def test_corpus_encoder_gives_tiktokens_ids_for_every_character(both: BytePairs) -> None:
    """Unicode grows every year and each library has the tables of its own year. Planes 4 to 16 have no letter."""
    letters = [chr(p) for p in range(0x32400) if not 0xD800 <= p < 0xE000 and unicodedata.category(chr(p)) != "Co"]
    draw = random.Random(1)
    draw.shuffle(letters)  # so that a differing one is among others
    lines = [" a".join(letters[i : i + 40]) for i in range(0, len(letters), 40)]
    assert_equal_ids(both, lines)
    assert both._corpus is not None
    differing = both._corpus._characters._differing
    assert differing, "both libraries know the same characters now: leave the slow way out"
    assert all(unicodedata.category(letter) == "Cn" for letter in differing)  # newer than this Python's tables


@pytest.mark.parametrize("name", NAMES)
def test_corpus_encoder_uses_tiktoken_for_a_differing_character(name: str) -> None:
    """A vocabulary with a token across every place where a text might be cut shows who cut it."""
    pairs = [pair for byte in range(256) for x in b"ab1 ." for pair in (bytes([x, byte]), bytes([byte, x]))]
    tokens = dict.fromkeys([*(bytes([byte]) for byte in range(256)), *pairs])
    engine = BytePairs({token: rank for rank, token in enumerate(tokens)}, PATTERNS[name].tiktoken)
    text = "a\u088fb 1\u088f1 \u088f."  # of Unicode 17
    assert_equal_ids(engine, ["plain", text, "ışık"])
    assert engine._corpus is not None
    assert not np.array_equal(engine._corpus._ids(text.encode()), engine.encode([text])[0])


def test_corpus_encoder_handles_long_and_empty_texts(both: BytePairs) -> None:
    line = "".join(corpus(1))
    assert_equal_ids(both, ["", line * (2 * PART // len(line)), " " * (PART + 3), "x", "ı" * PART])


def test_corpus_encoder_falls_back_to_tiktoken_for_differing_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = BytePairs(trainer._rustbpe(corpus(), 380, "gpt2"), PATTERNS["gpt2"].tiktoken)
    monkeypatch.setitem(fast.SCHEMES, PATTERNS["gpt2"].tiktoken, "cl100k")
    texts = ["it's 12345 here"] * 3
    with pytest.warns(UserWarning, match="gigatoken gives other ids than tiktoken"):
        found = engine.encode_utf8(utf8_of(texts))
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in engine.encode(texts)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert engine.encode_utf8(utf8_of(["it's 1"]))[0].tolist() == engine.encode(["it's 1"])[0].tolist()


@pytest.mark.parametrize("odd", [{b"ab": 300, b"abc": 400}, {b"abc": 256}], ids=["gaps", "a token of no merge"])
def test_corpus_encoder_is_none_for_an_unsupported_vocabulary(
    odd: dict[bytes, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its loader ends the process on such ranks, which published vocabularies have."""
    engine = BytePairs({bytes([byte]): byte for byte in range(256)} | odd, PATTERNS["gpt2"].tiktoken)
    assert engine._corpus is None
    assert engine.encode_utf8(utf8_of(["abc abcd"]))[0].tolist() == engine.encode(["abc abcd"])[0].tolist()
    assert capfd.readouterr() == ("", "")


def test_corpus_encoder_empties_its_word_cache(both: BytePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps every word that it ever saw: a corpus of hashes would fill the memory."""
    monkeypatch.setattr(fast, "_FRESH", 1000)
    texts = corpus(5)
    engine = BytePairs(both._ranks, both._pattern)
    assert engine._corpus is not None
    first = engine._corpus._fast
    for text in texts:
        assert engine.encode_utf8(utf8_of([text]))[0].tolist() == engine.encode([text])[0].tolist()
    assert engine._corpus._fast is not first
    assert engine._corpus._read <= 1000


def test_encoding_and_training_are_equal_without_gigatoken(both: BytePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert not fast.available(PATTERNS["gpt2"].tiktoken)
    other = BytePairs(both._ranks, both._pattern)
    assert other._corpus is None
    assert other.encode_utf8(utf8_of(["İyi günler"]))[0].tolist() == both.encode(["İyi günler"])[0].tolist()


def words_and_runs(seed: int) -> list[str]:
    """Some 130 KB of words as frequent as words are, and runs of one character, whose pairs overlap."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnoprstuvyzışğüöç", k=draw.randint(1, 9))) for _ in range(3000)]
    words += ["=", "==", "....", "----", "     ", "0" * draw.randint(2, 40), "aa" * draw.randint(1, 30)]
    draw.shuffle(words)
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=400)) for _ in range(60)]


@pytest.mark.parametrize("seed", range(5))
def test_learn_by_gigatoken_gives_rustbpes_merges(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties are many in so little text: each must go to the same pair."""
    monkeypatch.setattr(trainer, "_ONCE", 20_000)
    monkeypatch.setattr(trainer, "_rustbpe", None)
    texts = words_and_runs(seed)
    found = trainer.learn(texts, 1200, "gpt2", tmp_path)
    monkeypatch.undo()
    assert found == trainer._rustbpe(texts, 1200, "gpt2")


@pytest.mark.parametrize(
    ("text", "size"), [("000", 259), ("the quick brown fox 000 ==== aaaa", 400), ("abc def abc def\n", 264)]
)
def test_learn_uses_rustbpe_where_pairs_run_out(text: str, size: int, tmp_path: Path) -> None:
    """There gigatoken makes tokens twice, or others, however large the corpus: ids after them would move."""
    texts = [text] * 3000
    expected = trainer._rustbpe(texts, size, "gpt2")
    assert trainer.learn(texts, size, "gpt2", tmp_path) == expected
    (tmp_path / "texts").write_bytes(b"\xff".join(text.encode() for text in texts))
    assert trainer._gigatoken(tmp_path / "texts", size) != expected


def test_learn_by_gigatoken_gives_rustbpes_merges_of_a_corpus(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = [text for seed in range(9) for text in words_and_runs(seed)]
    texts.append(" " * 5000 + "-=" * 5000)
    found = trainer.learn(texts, 2000, "gpt2", tmp_path)
    assert found == trainer._rustbpe([part for text in texts for part in trainer.short_runs(text)], 2000, "gpt2")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_learn_uses_rustbpe_for_a_differing_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = "\u088f"  # of Unicode 17
    assert fast.CharacterClasses(PATTERNS["gpt2"].tiktoken).differing(utf8_of([f"a {letter} b"]).letters) == {letter}
    texts = [f"ab{letter}ab{letter} the end"] * 20 + words_and_runs(1)
    expected = trainer._rustbpe(texts, 600, "gpt2")

    def never(path: Path, size: int) -> None:
        raise AssertionError

    monkeypatch.setattr(trainer, "_gigatoken", never)
    assert trainer.learn(texts, 600, "gpt2", tmp_path) == expected
    with pytest.raises(AssertionError):
        trainer.learn(texts[20:], 600, "gpt2", tmp_path)


def test_learn_reads_written_texts_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_ONCE", 50)
    texts = ["ışık " * 30, "x", "日本語" * 40]
    assert trainer._written(texts, tmp_path / "t", PATTERNS["gpt2"].tiktoken, 0)
    assert [text for text in trainer._read(tmp_path / "t") if text] == texts


def test_train_gives_equal_folders_by_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module.train(words_and_runs(2), 700, "gpt2").save(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    module.train(words_and_runs(2), 700, "gpt2").save(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
