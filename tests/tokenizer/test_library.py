"""Vocabularies other than a complete byte-level BPE: ids are the library's, and no text becomes a special token."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline import tokenizer
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.encoders import UnencodableError
from pipeline.tokenizer.utf8 import Utf8
from tests.tokenizer import foreign

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.text(st.sampled_from(" \n\r\t\u00a0\u2581'sSſtlLdaA1½٣éı\u0301/.!İ中👍##"), max_size=40),
    st.lists(st.sampled_from([*foreign.WORDS, "  ", "\u2581\u2581", "<0x41>"]), max_size=15).map(" ".join),
)


@pytest.fixture(scope="module", params=foreign.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def both(kind: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """The vocabulary adopted, saved and loaded again; and as the tokenizers library reads it, without its limits."""
    folder = foreign.write(kind, tmp_path_factory.mktemp(kind) / "theirs")
    tokenizer.adopt(folder).save(folder.parent / "ours")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    return Tokenizer.load(folder.parent / "ours"), theirs


@settings(max_examples=150)
@given(TEXT)
def test_adopt_gives_the_ids_of_the_library(both: tuple[Tokenizer, tokenizers.Tokenizer], text: str) -> None:
    """Open weights would see other tokens than those they learned."""
    ours, theirs = both
    assume(not any(special.lower() in text.lower() for special in ours.special))
    try:
        ids = ours.encode(text)
    except UnencodableError:
        assert not ours.lossless or any(byte in foreign.MISSING for byte in text.encode())
        return
    assert ids == theirs.encode(text, add_special_tokens=False).ids
    assert [*ours.text_prefix, *ids, *ours.text_suffix] == theirs.encode(text).ids
    assert ids == ours.encode_batch(["a", text])[1].tolist()
    if ours.lossless:
        assert ours.decode(ids) == text
    else:
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


@settings(max_examples=100)
@given(st.data())
def test_encode_gives_no_special_token(both: tuple[Tokenizer, tokenizers.Tokenizer], data: st.DataObject) -> None:
    """A message could forge the end of a turn; unknown text is the only way to the token of unknown text."""
    ours, _ = both
    names = st.sampled_from([*ours.special, "\U0010fffd" * 101, "\U0010fffd" * 101 + "1", "a", " ", "ışık"])
    text = "".join(data.draw(st.lists(names, min_size=1, max_size=6)))
    try:
        ids = set(ours.encode(text))
    except UnencodableError:
        assert "\U0010fffd" in text
        return
    assert not ids & (set(ours.special.values()) - {ours.unknown})
    assert ours.unknown != ours.end_of_text


def test_adopt_reads_the_tokens_around_a_text(kind: str, both: tuple[Tokenizer, tokenizers.Tokenizer]) -> None:
    """An encoder would read texts without the tokens that its head stands on."""
    ours, _ = both
    before, after = foreign.AROUND.get(kind, ([], []))
    assert ours.text_prefix == tuple(ours.special[name] for name in before)
    assert ours.text_suffix == tuple(ours.special[name] for name in after)


def test_adopt_says_which_vocabularies_are_lossless(kind: str, both: tuple[Tokenizer, tokenizers.Tokenizer]) -> None:
    """The tokens gate would ask a round trip of a vocabulary that lowers its text."""
    assert both[0].lossless == (kind in foreign.LOSSLESS)


def test_encode_refuses_a_text_that_needs_a_missing_byte(tmp_path: Path) -> None:
    """tiktoken panics there, and the tokenizers library drops the byte."""
    ours = tokenizer.adopt(foreign.write("missing_bytes", tmp_path))
    with pytest.raises(
        UnencodableError, match=r"byte 0xe0 of character 'अ' \(U\+0905\) at position 2 of the text has no token"
    ):
        ours.encode("ı अ")
    with pytest.raises(UnencodableError, match="byte 0x00"):
        ours.encode_batch(["a", "b\x00"])
    import pyarrow as pa

    with pytest.raises(UnencodableError, match="byte 0x01"):
        ours.encode_utf8(Utf8.column(pa.array(["a", "b\x01"])))
    assert ours.decode(ours.encode("ışık")) == "ışık"


def test_encode_refuses_a_missing_byte_by_the_library_too(tmp_path: Path) -> None:
    """A token that holds a missing byte keeps tiktoken out; the library would drop the byte elsewhere."""
    folder = foreign.write("missing_bytes", tmp_path)
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    raw["model"]["vocab"]["aà"] = 300  # à is the letter of byte 0xE0
    raw["model"]["ignore_merges"] = True
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    ours = tokenizer.adopt(folder)
    facts = json.loads((_saved(ours, tmp_path / "ours") / "tohum-tokenizer.json").read_text(encoding="utf-8"))
    assert facts["engine"] == "tokenizers"
    with pytest.raises(UnencodableError, match="byte 0xe0 of character 'अ'"):
        ours.encode("ı अ")
    assert ours.encode("ışık") == tokenizer.adopt(foreign.write("missing_bytes", tmp_path / "b")).encode("ışık")


def test_adopt_takes_roles_from_special_tokens_map(tmp_path: Path) -> None:
    """A folder without roles in tokenizer_config.json would be refused."""
    folder = foreign.write("wordpiece", tmp_path)
    (folder / "tokenizer_config.json").replace(folder / "special_tokens_map.json")
    ours = tokenizer.adopt(folder)
    assert (ours.end_of_text, ours.pad) == (ours.special["[SEP]"], ours.special["[PAD]"])


def test_adopt_hides_tokens_that_only_the_settings_name(tmp_path: Path) -> None:
    """transformers matches such a token in text, so a message could forge it there."""
    folder = foreign.write("wordlevel", tmp_path)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "additional_special_tokens": ["gün"]}), encoding="utf-8"
    )
    ours = tokenizer.adopt(folder)
    assert "gün" in ours.special
    assert ours.encode("ışık gün") == [ours.encode("ışık")[0], ours.unknown]


def test_adopt_gives_no_text_the_end_of_text_token(tmp_path: Path) -> None:
    """A model whose unknown token is its end-of-text token would read the end of a text in the middle of one."""
    folder = foreign.write("clip", tmp_path)
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    raw["model"]["unk_token"] = "<|endoftext|>"
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    ours = tokenizer.adopt(folder)
    assert ours.unknown is None
    with pytest.raises(UnencodableError, match="character '中'"):
        ours.encode("a中")


@pytest.mark.parametrize(
    ("kind", "normalizer", "token", "message"),
    [
        (
            "clip",
            None,
            "k",
            r"has from its token [0-9]+ on .* \(model BPE, pre_tokenizer Whitespace, normalizer Sequence\)",
        ),
        ("wordlevel", "<|endoftext|> ", None, "every text has one of its special tokens .*normalizer Prepend"),
    ],
)
def test_adopt_refuses_other_ids_and_names_the_parts(
    tmp_path: Path, kind: str, normalizer: str | None, token: str | None, message: str
) -> None:
    """A vocabulary that needs its control tokens inside of words would be adopted with other ids."""
    folder = foreign.write(kind, tmp_path)
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if normalizer is not None:
        raw["normalizer"] = {"type": "Prepend", "prepend": normalizer}
    if token is not None:
        flags = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        raw["added_tokens"].append({"id": raw["model"]["vocab"][token], "content": token, **flags})
        raw["added_tokens"].sort(key=lambda entry: entry["id"])
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        tokenizer.adopt(folder)


def _saved(vocabulary: Tokenizer, folder: Path) -> Path:
    vocabulary.save(folder)
    return folder
