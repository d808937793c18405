"""The tokenizer: if these fail, users lose text, train on ids that no other tool reproduces, or let a message
forge a special token."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pipeline import tokenizer as module
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer, pretokenizer, vocabulary
from pipeline.tokenizer.adopted import PROBES
from pipeline.tokenizer.encoders import BytePairs
from pipeline.tokenizer.vocabulary import SPECIALS

_SENTENCE = (
    "ışık gün çiğ köfte İstanbul'da evlerimizden the they're baker in Ankara 1923 12 345 yıl; don't şöyle, "
    'böyle... "peki"? \n\n  def f(x): \t 日本語 👍🏽 e\u0301cole I\'LL'
)
WORDS = _SENTENCE.split(" ")
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
# Where pre-tokenizers part ways: blanks, line ends, contractions, digits, marks, slashes.
TRICKY = st.text(st.sampled_from(" \n\r\t\u00a0\u3000'sSſtTlLdaA1½٣éı\u0301/.!İ中👍"), max_size=40)
TEXT = st.one_of(UNICODE, TRICKY, st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join))


def corpus(seed: int = 0, lines: int = 300) -> list[str]:
    """Lines of mixed Turkish, English, numbers and code."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=12)) + draw.choice(["", "\n", " \n  "]) for _ in range(lines)]


@pytest.fixture(scope="module", params=["gpt2", "cl100k_base", "o200k_base"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Path]:
    """A small vocabulary of each pattern, loaded from its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    module.train(corpus(), 380, request.param).save(folder)
    return Tokenizer.load(folder), folder


def huggingface(folder: Path) -> tokenizers.Tokenizer:
    """The folder as the tokenizers library reads it."""
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@given(TEXT)
@example("\ufffd\x00\r\r\n \u2028")
def test_decode_inverts_encode_for_any_text(trained: tuple[Tokenizer, Path], text: str) -> None:
    """Lost or altered text: whatever a user writes comes back."""
    tokenizer, _ = trained
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=300)
@given(TEXT)
def test_tokenizer_json_gives_equal_ids(trained: tuple[Tokenizer, Path], text: str) -> None:
    """A model would read other ids in transformers or vLLM than it was trained on."""
    tokenizer, folder = trained
    assume(not any(special in text for special in SPECIALS))
    assert huggingface_cached(folder).encode(text, add_special_tokens=False).ids == tokenizer.encode(text)


_CACHE: dict[Path, tokenizers.Tokenizer] = {}


def huggingface_cached(folder: Path) -> tokenizers.Tokenizer:
    """`huggingface`, read once."""
    return _CACHE.setdefault(folder, huggingface(folder))


@pytest.mark.parametrize("special", SPECIALS)
def test_encode_never_gives_special_tokens_for_text(trained: tuple[Tokenizer, Path], special: str) -> None:
    """A message could end the conversation or speak as the assistant."""
    tokenizer, _ = trained
    for text in (special, f"a{special}b", f" {special}\n{special}"):
        assert not set(tokenizer.encode(text)) & set(tokenizer.special.values())
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_train_numbers_special_tokens_after_the_merges(trained: tuple[Tokenizer, Path]) -> None:
    """A template would point at ids that mean something else."""
    tokenizer, _ = trained
    assert tokenizer.vocab_size == 380
    assert tokenizer.special == {text: 374 + i for i, text in enumerate(SPECIALS)}
    assert (tokenizer.end_of_text, tokenizer.pad) == (374, 375)
    assert tokenizer.decode([374, 65, 9999]) == "<|endoftext|>A\ufffd"


def test_decode_inverts_encode_for_turkish_letters(trained: tuple[Tokenizer, Path]) -> None:
    """Turkish users lose their letters."""
    tokenizer, _ = trained
    decomposed = "I\u0307stanbul c\u0327ig\u0306 ko\u0308fte"
    for text in ("İstanbul'da ışıl ışıl çiğ köfte; I İ ı i Ğ Ş Ü Ö Ç â", decomposed):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_encode_batch_equals_encode(trained: tuple[Tokenizer, Path]) -> None:
    """The corpus would be encoded otherwise than a prompt."""
    tokenizer, _ = trained
    texts = [*corpus(3, 20), ""]
    found = tokenizer.encode_batch(texts)
    assert [ids.tolist() for ids in found] == [tokenizer.encode(text) for text in texts]
    assert all(ids.dtype == np.uint32 for ids in found)


def test_transformers_loads_a_saved_folder(trained: tuple[Tokenizer, Path]) -> None:
    """A vocabulary could not be used outside this project; models' folders are tested in test_export.py."""
    from transformers import AutoTokenizer

    tokenizer, folder = trained
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in corpus(5, 20):
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.end_of_text, tokenizer.pad)


def test_load_reads_a_vocabulary_trained_again_in_place(tmp_path: Path) -> None:
    """A stale cache would encode with yesterday's vocabulary."""
    module.train(["abab " * 50], 270, "gpt2").save(tmp_path)
    before = Tokenizer.load(tmp_path).encode("xyxy abab")
    module.train(["xyxy " * 50], 270, "gpt2").save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("xyxy abab") != before


def test_train_gives_equal_bytes_for_equal_texts(tmp_path: Path) -> None:
    """dvc.lock would change without a cause; also after loading and saving."""
    for name in "ab":
        module.train(corpus(), 380, "gpt2").save(tmp_path / name)
    Tokenizer.load(tmp_path / "a").save(tmp_path / "c")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["ranks.tiktoken", "tohum-tokenizer.json", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        content = {(tmp_path / folder / name).read_bytes() for folder in "abc"}
        assert len(content) == 1, name


def test_train_refuses_a_small_vocabulary_and_no_text() -> None:
    """A vocabulary that cannot hold the bytes would fail later, far from its cause."""
    with pytest.raises(UserError, match=r"tokenize\.vocab_size is 261; expected at least 262"):
        module.train(["text"], 261, "gpt2")
    assert module.train(["text"], 262, "gpt2").vocab_size == 262
    with pytest.raises(UserError, match="no text to train on"):
        module.train(["", ""], 300, "gpt2")


@settings(max_examples=100)
@given(st.lists(st.one_of(TRICKY, st.sampled_from(WORDS)), max_size=60).map(" ".join), st.integers(8, 40))
def test_parts_of_long_texts_have_equal_ids(trained: tuple[Tokenizer, Path], text: str, size: int) -> None:
    """A long document would be tokenized otherwise than its sentences: exact wherever a letter precedes a
    blank."""
    tokenizer, _ = trained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretokenizer, "PART", size)
        cut = pretokenizer.parts(text)
    assert "".join(cut) == text
    places = np.cumsum([len(part) for part in cut])[:-1]
    if all(text[at - 1].isalpha() and text[at] in " \n" for at in places):
        assert [i for part in cut for i in tokenizer.encode(part)] == tokenizer.encode(text)


@given(st.lists(st.tuples(st.sampled_from(" \nxé"), st.integers(1, 900))))
def test_short_runs_keep_every_character(runs: list[tuple[str, int]]) -> None:
    """Training would take hours on one long run of blanks, or skip what stands there."""
    text = "".join(letter * n for letter, n in runs)
    found = list(pretokenizer.short_runs(text))
    assert "".join(found) == text
    longest = max((len(run) for part in found for run in re.findall(r"\s+|\S+", part)), default=0)
    assert longest <= pretokenizer.RUN


def test_short_runs_cut_mixed_white_space() -> None:
    """Neither all ASCII nor all beyond it: a quick look at bytes must not take it for short."""
    for run in (" \u00a0" * 500, "\u3000" * 500, "aı" * 500):
        parts = list(pretokenizer.short_runs(f"x {run} y"))
        assert max(map(len, parts)) <= pretokenizer.RUN + 2
        assert "".join(parts) == f"x {run} y"


@pytest.mark.parametrize("text", [" " * 1_100_000 + "a", "ab \n" * 300_000, "\n" * 1_100_000 + "b"])
def test_train_and_encode_accept_very_long_lines(text: str) -> None:
    """One long line in a million would stop the pipeline with a panic (regular expressions end at a
    million)."""
    tokenizer = module.train([text], 300, "cl100k_base")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("expression", [r"\p{L}", r"\p{N}", r"\p{M}", r"\p{Lu}", r"\p{Ll}", r"\s"])
def test_patterns_agree_on_all_letters_in_both_libraries(expression: str) -> None:
    """A letter that one Unicode table lacks would be cut in one library and not in the other."""
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    ranks = {bytes([byte]): byte for byte in range(256)}
    ours = BytePairs(ranks, expression)
    for start in range(0, len(every), 1 << 16):
        text = "".join(every[start : start + (1 << 16)])
        matched = bytes(ours.encode([text])[0].tolist()).decode("utf-8")  # what does not match is left out
        rest = tokenizers.NormalizedString(text)
        rest.replace(tokenizers.Regex(expression), "")
        assert set(text) - set(rest.normalized) == set(matched)


# Vocabularies from elsewhere


def test_from_ranks_keeps_the_files_ids(trained: tuple[Tokenizer, Path]) -> None:
    """The user's vocabulary would be renumbered."""
    tokenizer, folder = trained
    pattern = next(name for name, p in pretokenizer.PATTERNS.items() if p.tiktoken in folder_pattern(folder))
    again = module.from_ranks(folder / "ranks.tiktoken", pattern)
    for text in corpus(9, 10):
        assert again.encode(text) == tokenizer.encode(text)
    with pytest.raises(UserError, match="sha256"):
        module.from_ranks(folder / "ranks.tiktoken", pattern, "0" * 64)


def folder_pattern(folder: Path) -> list[str]:
    """The pattern that the folder names."""
    return [json.loads((folder / "tohum-tokenizer.json").read_text(encoding="utf-8"))["pattern"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"YQ== 0\nnot base64 at all\n", "line 2"),
        (b"YQ== zero\n", "line 1"),
        (b"YQ== 0\nYQ== 1\n", "line 2 repeats"),
        (b"YQ== 0\n", "255 of the 256 single bytes"),
        (b"\x89PNG\r\n", "line 1"),
    ],
)
def test_parse_ranks_refuses_invalid_files(tmp_path: Path, content: bytes, message: str) -> None:
    """A half-downloaded vocabulary would encode some texts and crash on others."""
    (tmp_path / "x.tiktoken").write_bytes(content)
    with pytest.raises(UserError, match=message):
        module.from_ranks(tmp_path / "x.tiktoken", "gpt2")


def test_preset_accepts_published_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file under the wrong name would give ids that no other user of the preset has."""
    (tmp_path / "cl100k_base.tiktoken").write_bytes(b"YQ== 0\n")
    with pytest.raises(UserError, match="is not the published cl100k_base"):
        module.preset("cl100k_base", tmp_path / "cl100k_base.tiktoken", add_specials=False)
    with pytest.raises(UserError, match="no such file"):
        module.preset("gpt2", tmp_path, add_specials=False)

    import tiktoken

    def offline(name: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    with pytest.raises(UserError, match=r"could not be downloaded.*set tokenize\.path"):
        module.preset("o200k_base", add_specials=False)


def test_parse_gpt2_reads_published_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's own two files would not give gpt2's ids (256 bytes in GPT-2's order, then the merges)."""
    letters = vocabulary.byte_letters()
    order = sorted(range(256), key=lambda byte: (ord(letters[byte]) > 255, byte))
    tokens = [letters[byte] for byte in order] + ["Ġt", "Ġth", "Ġthe"]
    encoder = {token: i for i, token in enumerate([*tokens, "<|endoftext|>"])}
    (tmp_path / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nĠ t\nĠt h\nĠth e\n", encoding="utf-8")
    with pytest.raises(UserError, match="not the published gpt2"):
        module.preset("gpt2", tmp_path, add_specials=False)
    monkeypatch.setattr(module, "_require_published", lambda *arguments: None)
    found = module.preset("gpt2", tmp_path, add_specials=False)
    assert found.encode("hello the") == [71, 68, 75, 75, 78, 258]  # GPT-2's own ids of h, e, l, l, o
    assert found.special == {"<|endoftext|>": 50256}
    appended = module.preset("gpt2", tmp_path, add_specials=True)
    assert [appended.special[name] for name in SPECIALS] == [50256, 50257, 50258, 50259, 50260, 50261]
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nĠt h\nĠ t\nĠth e\n", encoding="utf-8")
    with pytest.raises(UserError, match="do not follow"):
        module.preset("gpt2", tmp_path, add_specials=False)


@given(TRICKY)
def test_tokenizer_json_agrees_on_tokens_without_a_merge(text: str) -> None:
    """Published vocabularies have such tokens; found whole in both libraries, never by merging."""
    tokens = [b"aA", b"a1", b"Aa1", b"1a1", b"ss", b"sss", b"aass", b"  ", b"\n\n", b"as", b"a1s", b"1s"]
    ranks = {bytes([byte]): byte for byte in range(256)} | {t: 256 + i for i, t in enumerate(tokens)}
    written = vocabulary.byte_level_json(ranks, "gpt2", {})
    theirs = tokenizers.Tokenizer.from_str(written.decode())
    ours = BytePairs(ranks, pretokenizer.PATTERNS["gpt2"].tiktoken).encode([text])[0].tolist()
    assert theirs.encode(text).ids == ours


# Characters


def test_characters_have_nanogpts_ids(tmp_path: Path) -> None:
    """The Shakespeare benchmark would not be the benchmark."""
    text = "ışık: the quick\nbrown fox 👍"
    tokenizer = module.characters(text)
    tokenizer.save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    letters = sorted(set(text))
    assert tokenizer.encode(text) == [letters.index(letter) for letter in text]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == len(letters) + len(SPECIALS)
    assert huggingface(tmp_path).encode(text).ids == tokenizer.encode(text)
    assert huggingface(tmp_path).decode(tokenizer.encode(text)) == text
    with pytest.raises(UserError, match=r"character 'Z' \(U\+005A\) at position 3"):
        tokenizer.encode("theZ")
    with pytest.raises(UserError, match="no character"):
        module.characters("")


# Damage, cost


def test_load_names_a_damaged_folder(tmp_path: Path) -> None:
    """A traceback instead of what to do."""
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        Tokenizer.load(tmp_path)
    module.train(corpus(), 300, "gpt2").save(tmp_path)
    (tmp_path / "ranks.tiktoken").unlink()
    with pytest.raises(UserError, match="damaged tokenizer"):
        Tokenizer.load(tmp_path)


def test_load_imports_no_heavy_library(trained: tuple[Tokenizer, Path]) -> None:
    """Every stage is a process and pays every import."""
    code = (
        "import sys; from pathlib import Path; from pipeline.tokenizer import Tokenizer; "
        f"Tokenizer.load(Path({str(trained[1])!r})).encode('a'); "
        "print({'torch', 'transformers', 'tokenizers', 'rustbpe', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_probes_contain_special_tokens_and_survive(trained: tuple[Tokenizer, Path]) -> None:
    """The probe texts that adoption relies on must themselves round trip."""
    tokenizer, _ = trained
    for text in PROBES:
        assert tokenizer.decode(tokenizer.encode(text)) == text
