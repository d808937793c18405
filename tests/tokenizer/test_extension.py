"""Vocabulary extension: old ids stay, new tokens shorten the new language, and other readers give equal ids."""

import json
from pathlib import Path

import pytest
import tokenizers

from pipeline import tokenizer
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer, export
from tests.tokenizer import foreign, test_adopted

NEW = [
    "Yıldızların altında çiçekler açıyor, çocuklar gülümsüyor.",
    "Yıldızlar ve çiçekler, gülümseyen çocuklar için.",
] * 9
OLD = ["they're don't in 1923 12 345", "I'LL x=1 \n\n  \t", "日本語 👍🏽"]
SIZE = 40
"""New tokens."""


def folder(style: str, path: Path) -> Path:
    """A published vocabulary: of a style of test_adopted, or of a kind of foreign."""
    path.mkdir(parents=True, exist_ok=True)
    if style in foreign.KINDS:
        return foreign.write(style, path)
    test_adopted.write(test_adopted.make(style), path, style)
    return path


@pytest.fixture(scope="module", params=["gpt2", "qwen", "smollm2", "shuffled", "neox", "missing_bytes", "roberta"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer, Path]:
    """A vocabulary, the extended one saved and loaded again, and its folder."""
    path = tmp_path_factory.mktemp(request.param)
    theirs = folder(request.param, path / "theirs")
    base = tokenizer.adopt(theirs)
    tokenizer.extend(theirs, None, base.vocab_size + SIZE, iter(NEW)).save(path / "ours")
    return base, Tokenizer.load(path / "ours"), path / "ours"


def test_extend_keeps_old_ids_and_appends_new_ones(both: tuple[Tokenizer, Tokenizer, Path]) -> None:
    """The rows of the open model would belong to other tokens."""
    base, extended, _ = both
    assert extended.vocab_size == base.vocab_size + SIZE
    assert (extended.special, extended.end_of_text, extended.pad) == (base.special, base.end_of_text, base.pad)
    for number in range(base.vocab_size):
        assert extended.decode_bytes([number]) == base.decode_bytes([number])
    assert list(extended.parts) == list(range(base.vocab_size, base.vocab_size + SIZE))


def test_extend_names_the_parts_of_each_new_token(both: tuple[Tokenizer, Tokenizer, Path]) -> None:
    base, extended, _ = both
    for number, parts in extended.parts.items():
        assert len(parts) > 1
        assert max(parts) < base.vocab_size
        assert b"".join(base.decode_bytes([part]) for part in parts) == extended.decode_bytes([number])


def test_extend_shortens_the_new_language_and_merges_old_tokens_only(both: tuple[Tokenizer, Tokenizer, Path]) -> None:
    """A new merge that came before an old one would split old words differently."""
    base, extended, _ = both
    for text in NEW[:2]:
        ids = extended.encode(text)
        assert len(ids) < 0.75 * len(base.encode(text))
        assert extended.decode(ids) == text
        assert [part for number in ids for part in extended.parts.get(number, (number,))] == base.encode(text)
    for text in OLD:
        assert extended.encode(text) == base.encode(text)


def test_extend_gives_equal_ids_in_other_readers(both: tuple[Tokenizer, Tokenizer, Path]) -> None:
    """A tuned model would read other ids in transformers than it was trained on."""
    from transformers import AutoTokenizer

    _, extended, path = both
    export.write(path, extended, export.describe(extended, {"name": "next_token"}, 99))
    theirs, library = AutoTokenizer.from_pretrained(path), tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    for text in [*NEW[:2], *OLD, *foreign.lines(20)]:
        ids = extended.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        assert library.encode(text, add_special_tokens=False).ids == ids


def test_extend_gives_equal_bytes_for_equal_texts(tmp_path: Path) -> None:
    """dvc.lock would change from run to run."""
    theirs = folder("gpt2", tmp_path / "theirs")
    for name in "ab":
        tokenizer.extend(theirs, None, 500, iter(NEW)).save(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_extend_stops_where_pairs_run_out(tmp_path: Path) -> None:
    extended = tokenizer.extend(folder("gpt2", tmp_path), None, 9000, ["çiğ gülümsüyor"] * 2)
    assert extended.vocab_size < 600


@pytest.mark.parametrize(
    ("style", "size", "texts", "message"),
    [
        ("wordpiece", 900, NEW, "model WordPiece is no byte-level BPE"),
        ("byte_fallback", 900, NEW, "model BPE is no byte-level BPE"),
        ("gpt2", 300, NEW, r"vocab_size is 300, and .*tokenizer\.json has \d+ ids already"),
        ("gpt2", 900, ["in in"], "no word that the vocabulary splits twice"),
        ("gpt2", 900, [], "no word that the vocabulary splits twice"),
    ],
)
def test_extend_refuses_with_the_reason(tmp_path: Path, style: str, size: int, texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tokenizer.extend(folder(style, tmp_path), None, size, texts)


def test_extend_adds_no_token_with_the_name_of_a_special_one(tmp_path: Path) -> None:
    """A text would spell the end of a turn."""
    path = folder("gpt2", tmp_path)
    extended = tokenizer.extend(path, None, 600, ["<|endoftext|> " * 50] * 9)
    names = json.loads((_saved(extended, tmp_path / "ours") / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert "<|endoftext|>" not in {token for token, number in names["vocab"].items() if number in extended.parts}
    assert extended.end_of_text not in extended.encode("<|endoftext|>")


def _saved(vocabulary: Tokenizer, path: Path) -> Path:
    vocabulary.save(path)
    return path
