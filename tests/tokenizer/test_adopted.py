"""Adopting a Hugging Face vocabulary: if these fail, open weights read other ids than they were trained
on."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline import tokenizer
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer, pretokenizer

_SENTENCE = "ışık gün çiğ köfte İstanbul'da they're don't in 1923 12 345 yıl; böyle... I'LL x=1 \n\n  \t 日本語 👍🏽"
WORDS = _SENTENCE.split(" ")
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.text(st.sampled_from(" \n\r\t\u00a0'sSſtlLdaA1½٣éı\u0301/.!İ中👍"), max_size=40),
    st.lists(st.sampled_from(WORDS), max_size=15).map(" ".join),
)
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def lines() -> list[str]:
    """Text to train on."""
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=12)) for _ in range(300)]


def _split(expression: str) -> Any:
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make(style: str) -> tokenizers.Tokenizer:
    """A small vocabulary with the moving parts of one family."""
    found = tokenizers.Tokenizer(models.BPE(ignore_merges=style == "llama3"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    first: list[str] = []
    match style:
        case "gpt2" | "neox" | "shuffled":
            found.pre_tokenizer = byte_level
        case "llama3":
            found.pre_tokenizer = _split(pretokenizer.PATTERNS["cl100k_base"].huggingface)
        case "qwen":
            found.normalizer = normalizers.NFC()
            found.pre_tokenizer = _split(QWEN)
        case "smollm2":
            digits = pre_tokenizers.Digits(individual_digits=True)
            found.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
            first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=450, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    found.train_from_iterator(lines(), trainer)
    ends = {
        "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        "qwen": ["<|endoftext|>", "<|im_end|>"],
    }
    found.add_special_tokens(ends.get(style, ["<|endoftext|>"]))
    if style == "qwen":
        found.add_tokens([AddedToken("<think>", normalized=False)])  # a control word that is not called special
    if style == "neox":
        found.add_tokens(["  ", "    "])
    return found


def write(found: tokenizers.Tokenizer, folder: Path, style: str) -> None:
    """The folder as its authors would publish it."""
    raw = json.loads(found.to_str())
    if style == "shuffled":  # ids that do not follow the merge order
        names = list(raw["model"]["vocab"])
        numbers = list(range(len(names)))
        random.Random(2).shuffle(numbers)
        raw["model"]["vocab"] = dict(zip(names, numbers, strict=True))
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    end = "<|eot_id|>" if style == "llama3" else "<|im_end|>" if style == "qwen" else "<|endoftext|>"
    config = {"eos_token": {"content": end}, "chat_template": "theirs"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


ENGINES = {
    **dict.fromkeys(("gpt2", "llama3", "qwen", "smollm2"), "tiktoken"),
    **dict.fromkeys(("neox", "shuffled"), "tokenizers"),
}


@pytest.fixture(scope="module", params=list(ENGINES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder of each style."""
    path = tmp_path_factory.mktemp("adopt") / request.param
    path.mkdir()
    write(make(request.param), path, request.param)
    return path


_ADOPTED: dict[Path, tuple[Tokenizer, tokenizers.Tokenizer]] = {}


def both(folder: Path) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """The folder adopted, saved and loaded again; and as the tokenizers library reads it."""
    if folder not in _ADOPTED:
        tokenizer.adopt(folder).save(folder.with_suffix(".saved"))
        theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        _ADOPTED[folder] = Tokenizer.load(folder.with_suffix(".saved")), theirs
    return _ADOPTED[folder]


@settings(max_examples=200)
@given(TEXT)
def test_adopt_gives_the_ids_of_the_library(folder: Path, text: str) -> None:
    """Open weights would see other tokens than those they learned."""
    ours, theirs = both(folder)
    assume(not any(special in text for special in ours.special))
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_adopt_uses_tiktoken_where_ids_are_proved_equal(folder: Path) -> None:
    """Encoding would be many times slower, or the library's fallback never used."""
    both(folder)
    facts = json.loads((folder.with_suffix(".saved") / "tohum-tokenizer.json").read_text(encoding="utf-8"))
    assert facts["engine"] == ENGINES[folder.name]


def test_adopt_keeps_files_byte_for_byte(folder: Path) -> None:
    """A fine-tuned model would be published with another vocabulary or chat template than its base."""
    both(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (folder.with_suffix(".saved") / name).read_bytes() == (folder / name).read_bytes()


def test_adopt_never_matches_added_tokens_in_text(folder: Path) -> None:
    """A message could forge the end of a turn."""
    ours, theirs = both(folder)
    for text in ("<|endoftext|>", "a<|im_end|>b", "<think>x", "<|eot_id|><|end_of_text|>"):
        assert not set(ours.encode(text)) & set(ours.special.values())
        assert ours.decode(ours.encode(text)) == text
    for name, number in ours.special.items():
        assert theirs.token_to_id(name) == number
        assert ours.decode([number]) == name
    assert ours.vocab_size == theirs.get_vocab_size()


def test_adopt_uses_the_vocabularys_end_of_text(folder: Path) -> None:
    """Documents would be separated by a token the base never saw."""
    ours, _ = both(folder)
    name = "<|end_of_text|>" if folder.name == "llama3" else "<|endoftext|>"
    assert ours.end_of_text == ours.special[name]


def test_adopt_appends_our_special_tokens(folder: Path, tmp_path: Path) -> None:
    """Appended tokens would overwrite learned ones, or be unknown to transformers."""
    ours, _ = both(folder)
    grown = tokenizer.adopt(folder, add_specials=True)
    grown.save(tmp_path)
    grown = Tokenizer.load(tmp_path)
    new = {name: number for name, number in grown.special.items() if name not in ours.special}
    assert sorted(new.values()) == list(range(ours.vocab_size, ours.vocab_size + len(new)))
    assert {"<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"} <= new.keys()
    again = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert {name: again.token_to_id(name) for name in new} == new
    assert grown.encode("ışık <|user|>") == ours.encode("ışık <|user|>")


def test_adopt_accepts_a_saved_folder(tmp_path: Path) -> None:
    """A model made here would not serve as open weights elsewhere."""
    first = tokenizer.train(lines(), 400, "cl100k_base")
    first.save(tmp_path)
    (tmp_path / "tohum-tokenizer.json").unlink()
    second = Tokenizer.load(tmp_path)
    assert second.special == first.special
    assert all(second.encode(line) == first.encode(line) for line in lines()[:20])


def _broken(change: str, raw: dict[str, Any]) -> None:
    match change:
        case "model.type is 'Words'":
            raw["model"]["type"] = "Words"
        case "dropout is 0.1":
            raw["model"]["dropout"] = 0.1
        case "expected .piece, score":
            raw["model"] = {"type": "Unigram", "vocab": [["a", -1.0], ["b"]], "unk_id": 0}
        case "special tokens ends a text":
            raw["added_tokens"] = []
        case "not a tokenizer.json":
            del raw["model"]


@pytest.mark.parametrize(
    "change",
    [
        "model.type is 'Words'",
        "dropout is 0.1",
        "expected .piece, score",
        "special tokens ends a text",
        "not a tokenizer.json",
    ],
)
def test_adopt_refuses_unsupported_vocabularies_with_the_reason(tmp_path: Path, change: str) -> None:
    """Silently other ids, or a crash deep in a library."""
    write(make("gpt2"), tmp_path, "gpt2")
    path = tmp_path / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    _broken(change, raw)
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match=change):
        tokenizer.adopt(tmp_path)


def test_adopt_checks_the_hash(tmp_path: Path) -> None:
    """Other bytes than those reviewed would be used."""
    write(make("gpt2"), tmp_path, "gpt2")
    with pytest.raises(UserError, match="sha256"):
        tokenizer.adopt(tmp_path, "0" * 64)


def test_adopt_hash_covers_all_tokenizer_files(tmp_path: Path) -> None:
    """Lost otherwise: another end token or chat template than was reviewed would be trained and published."""
    write(make("gpt2"), tmp_path, "gpt2")
    alone = hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    with pytest.raises(UserError, match=r"hash of tokenizer\.json alone, and tokenizer_config\.json") as caught:
        tokenizer.adopt(tmp_path, alone)
    whole = str(caught.value).rpartition(" ")[2]
    assert tokenizer.adopt(tmp_path, whole.upper()).method == "folder"
    for name in ("tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        before = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else None
        (tmp_path / name).write_bytes(before + b" " if before else b"{}")
        with pytest.raises(UserError, match=f"{name}.* is [0-9a-f]{{64}}, params.yaml: tokenize.sha256 is {whole}"):
            tokenizer.adopt(tmp_path, whole)
        if before:
            (tmp_path / name).write_bytes(before)
        else:
            (tmp_path / name).unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    assert tokenizer.adopt(tmp_path, alone).end_of_text


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["added_tokens"][0].update(id=10**12),
        lambda raw: raw["added_tokens"][0].update(id=5),
        lambda raw: raw["model"]["merges"].append(["a", "b", "c"]),
        lambda raw: raw.update(pre_tokenizer=[{"type": "ByteLevel"}]),
        lambda raw: raw["model"].update(vocab=[]),
    ],
)
def test_adopt_refuses_malformed_files_with_a_user_error(tmp_path: Path, change: Any) -> None:
    """A traceback, or an embedding of a trillion rows."""
    write(make("gpt2"), tmp_path, "gpt2")
    raw = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    change(raw)
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json: ") as caught:
        tokenizer.adopt(tmp_path)
    assert str(caught.value).isprintable()
