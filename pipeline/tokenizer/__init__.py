"""Tokenizers: a trained byte-level BPE, published vocabularies, adopted ones, and characters.

    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode("ışık")        # user text is never encoded to a special token
    tokenizer.decode(ids) == "ışık"
    ids.append(tokenizer.end_of_text)     # only code places special tokens

The encoder has no special tokens, so no text can be encoded to one. A saved folder holds ranks.tiktoken, tokenizer.json
and tokenizer_config.json (equal ids in transformers, but for special tokens written in user text, which that format
matches), and tohum-tokenizer.json, the facts that `load` needs beside the ranks.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipeline import files, foreign
from pipeline.errors import UserError
from pipeline.tokenizer import adopted, extension, trainer, vocabulary
from pipeline.tokenizer.adopted import FILES
from pipeline.tokenizer.chat_template import ChatTemplate, without_first_blank
from pipeline.tokenizer.checks import MOST_IDS
from pipeline.tokenizer.encoders import BytePairs, Characters, Encoder, Ids
from pipeline.tokenizer.library import Library
from pipeline.tokenizer.pretokenizer import PATTERNS
from pipeline.tokenizer.utf8 import Utf8
from pipeline.tokenizer.vocabulary import END_OF_TEXT, PAD, SPECIALS

OURS, RANKS, TOKENIZER, SETTINGS = "tohum-tokenizer.json", "ranks.tiktoken", *FILES[:2]
VOCABULARY = (OURS, RANKS, *FILES)
"""Files of a vocabulary's folder; which of them are there depends on its method."""
_UNKNOWN = "\ufffd".encode()  # the text of an id without a token
Preset = Literal["gpt2", "cl100k_base", "o200k_base"]

# sha256 of the published files, as tiktoken_ext/openai_public.py gives them; special tokens likewise.
PUBLISHED = {
    "gpt2": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
PUBLISHED_GPT2 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
_PUBLISHED_SPECIALS = {
    "gpt2": {END_OF_TEXT: 50256},
    "cl100k_base": {
        END_OF_TEXT: 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    },
    "o200k_base": {END_OF_TEXT: 199999, "<|endofprompt|>": 200018},
}


class Tokenizer:
    """A vocabulary.

    Attributes:
        special: control tokens, text -> id.
        end_of_text, pad: ids.
        text_prefix, text_suffix: ids that an adopted vocabulary's post-processor puts before and after one text: BERT
            ([CLS],) and ([SEP],), T5 () and (</s>,), Gemma (<bos>,) and (); of our own vocabularies () and ().
        lossless: whether decode(encode(text)) == text; not with normalizers, WordPiece, Unigram.
        parts: of each id that `extend` added, the old ids that it is made of.
        sums_bytes: whether the decoded text is the sum of the tokens' bytes; else the vocabulary has its own decoder.
        refuses: whether there are texts that it cannot encode.
        unknown: id of text that has no token; None where there is no such text, or it cannot be encoded.
        vocab_size: largest id + 1.
        method: as in params.yaml.
    """

    def __init__(self, encoder: Encoder, facts: Mapping[str, Any], content: Mapping[str, bytes]) -> None:
        """`facts`: the content of tohum-tokenizer.json; `content`: name -> bytes of the folder's files."""
        self._encoder = encoder
        self._files = dict(content)
        self.method: str = facts["method"]
        self.special: dict[str, int] = dict(facts["special"])
        self.end_of_text: int = self.special[facts["end_of_text"]]
        self.pad: int = self.special[facts["pad"]]
        self.text_prefix: tuple[int, ...] = tuple(facts.get("text_prefix", ()))
        self.text_suffix: tuple[int, ...] = tuple(facts.get("text_suffix", ()))
        self.lossless: bool = encoder.lossless
        self.refuses: bool = encoder.refuses
        self.unknown: int | None = encoder.unknown
        self.parts: dict[int, tuple[int, ...]] = {
            facts["extended_from"] + at: tuple(map(int, ids.split())) for at, ids in enumerate(facts.get("parts", ()))
        }
        self.sums_bytes: bool = encoder.sums_bytes
        self._table = encoder.table() | {number: text.encode("utf-8") for text, number in self.special.items()}
        self.vocab_size: int = max(self._table) + 1

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Reads a folder that `save` wrote (a model folder has the same files), or adopts another one.

        Raises:
            UserError: no vocabulary, an unreadable one, or one that cannot encode every text.
        """
        folder = Path(folder)
        if not os.path.lexists(folder / OURS):
            return adopt(folder)
        paths = [folder / name for name in VOCABULARY if os.path.lexists(folder / name)]
        content = {path.name: foreign.read_bytes(foreign.regular(path, folder)) for path in paths}
        try:
            facts = foreign.require_object(foreign.parsed(content[OURS], folder / OURS), folder / OURS)
            for token, number in facts["special"].items():
                foreign.whole(number, f"{folder / OURS}: special: the id of {foreign.shown(token)}", MOST_IDS - 1, 0)
            return cls(_encoder(facts, content, folder), facts, content)
        except UserError:
            raise
        except Exception as error:  # the libraries raise bare Exceptions for invalid files
            raise UserError(f"{folder}: a damaged tokenizer ({error!r:.200}); run: dvc repro tokenize") from None

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """The chat template of the folder that was adopted or loaded; None where it has none."""
        return ChatTemplate.of_files(self._files)

    def save(self, folder: Path) -> None:
        """Writes the files of the vocabulary into `folder`; equal vocabularies give equal bytes."""
        for name, data in self._files.items():
            with files.replacing(Path(folder) / name) as temporary:
                temporary.write_bytes(data)

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text; a special token's name in it stays text.

        Raises:
            UnencodableError: a byte or character that the vocabulary has no token for, not even an unknown one.
        """
        ids: list[int] = self._encoder.encode([text])[0].tolist()
        return ids

    def encode_after_special(self, text: str) -> list[int]:
        """`encode` of a text that follows a special token: some vocabularies put a blank before a whole text only."""
        ids: list[int] = self._encoder_after_special.encode([text])[0].tolist()
        return ids

    @cached_property
    def _encoder_after_special(self) -> Encoder:
        data = without_first_blank(self._files[TOKENIZER]) if isinstance(self._encoder, Library) else None
        return self._encoder if data is None else Library(data, self.special, [self.end_of_text])

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text, in parallel threads; uint32 [n_tokens] each."""
        return self._encoder.encode(texts)

    def encode_utf8(self, texts: Utf8) -> list[Ids]:
        """`encode_batch` of UTF-8 texts, the fastest for a corpus, a few hundred texts at a time."""
        return self._encoder.encode_utf8(texts)

    def library_ids(self, text: str) -> list[int]:
        """Ids that the tokenizers library gives by the folder's tokenizer.json, special tokens in the text matched."""
        return list(self._library.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _library(self) -> Any:
        return adopted.as_published(self._files[TOKENIZER])

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The decoded bytes; U+FFFD for an id without a token, its name for a special token."""
        ids = [int(number) for number in ids]
        if not self.sums_bytes:
            return self._encoder.decode(ids).encode("utf-8")
        return b"".join(self._table.get(number, _UNKNOWN) for number in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The decoded text; bytes that are no UTF-8 (a letter cut in two) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


def train(texts: Iterable[str], vocab_size: int, pattern: str, scratch: Path | None = None) -> Tokenizer:
    """Byte-level BPE learned from texts (deterministic), the six special tokens after the merges.

    Args:
        texts: read once, as a stream.
        vocab_size: ids in all: 256 bytes, merges, special tokens; texts with too few distinct pairs give fewer.
        pattern: gpt2, cl100k_base or o200k_base.
        scratch: folder for a temporary copy of the texts; None: the system's.

    Raises:
        UserError: a vocabulary below 262 ids, or no text.
    """
    least = 256 + len(SPECIALS)
    if vocab_size < least:
        raise UserError(
            f"params.yaml: tokenize.vocab_size is {vocab_size}; expected at least {least}: 256 bytes, "
            f"{len(SPECIALS)} special tokens, and the merges to learn"
        )
    ranks = trainer.learn(texts, vocab_size - len(SPECIALS), pattern, scratch)
    return _byte_pairs("train", ranks, pattern, {}, add_specials=True)


def preset(name: Preset, path: Path | None = None, sha256: str | None = None, *, add_specials: bool) -> Tokenizer:
    """A published vocabulary with its own ids: from a file (`path`), else downloaded by tiktoken.

    Args:
        name: of the vocabulary.
        path: its ranks file, or for gpt2 a folder with encoder.json and vocab.bpe; checked against the published
            hashes.
        sha256: of that file (of vocab.bpe in a folder), where params.yaml pins it.
        add_specials: whether to append the missing ones of our six special tokens after its last id.

    Raises:
        UserError: no network and no path, or a file that is another vocabulary.
    """
    ranks = _downloaded(name) if path is None else _published(name, Path(path), sha256)
    return _byte_pairs(name, ranks, name, _PUBLISHED_SPECIALS[name], add_specials=add_specials)


def from_ranks(path: Path, pattern: str, sha256: str | None = None) -> Tokenizer:
    """A tiktoken ranks file of the user's with one of the named patterns; special tokens follow the last rank.

    Raises:
        UserError: unreadable, another hash, a byte without a token.
    """
    ranks = vocabulary.parse_ranks(adopted.read_checked(Path(path), sha256), str(path))
    return _byte_pairs("ranks", ranks, pattern, {}, add_specials=True)


def characters(alphabet: Iterable[str]) -> Tokenizer:
    """One id per distinct character, sorted by code point as in nanoGPT, then the six special tokens.

    `encode` raises UserError for any other character. The folder has no ranks.tiktoken.
    """
    letters = "".join(sorted(set(alphabet)))
    if not letters:
        raise UserError("tokenize: the documents have no character; add documents with text under download.sources")
    special = _appended({}, len(letters))
    content = {TOKENIZER: vocabulary.characters_json(letters, special)}
    facts = {"method": "characters", "engine": "characters", "alphabet": letters, "special": special}
    return _made(Characters(letters), facts, content)


def adopt(folder: Path, sha256: str | None = None, *, add_specials: bool = False) -> Tokenizer:
    """The vocabulary of a Hugging Face folder (GPT-2, Llama, Qwen, BERT, T5, Gemma...), with equal ids.

    Encoded by tiktoken where equal ids are proved and tested, else by the tokenizers library. The files are
    kept unchanged. Added tokens (special ones, or control words like `<think>`) are never matched in user text.

    Args:
        folder: holds tokenizer.json, perhaps tokenizer_config.json.
        sha256: of tokenizer.json, or where the folder has more of `FILES`, of all of them (foreign.pin).
        add_specials: whether to append the missing ones of our six special tokens (the model's embedding must then
            grow).

    Raises:
        UserError: no such file, an unreadable one, dropout, no end-of-text token, or other ids than the library's.
    """
    taken = adopted.read(Path(folder), sha256)
    content = dict(taken.content)
    special = dict(taken.special)
    if add_specials:
        special = _appended(special, taken.vocab_size)
        content[TOKENIZER] = adopted.with_tokens(content[TOKENIZER], special)
    return _of_adopted(taken, special, content, {})


def _of_adopted(
    taken: adopted.Adopted, special: Mapping[str, int], content: dict[str, bytes], more: Mapping[str, Any]
) -> Tokenizer:
    """A tokenizer of adopted files; `more`: further facts."""
    facts: dict[str, Any] = {"method": "folder", "special": dict(special), "end_of_text": taken.end_of_text, **more}
    facts["pad"] = PAD if PAD in special else taken.pad
    around = {"text_prefix": list(taken.text_prefix), "text_suffix": list(taken.text_suffix)}
    facts |= {name: ids for name, ids in around.items() if ids}
    if taken.ranks is None:
        facts["engine"] = "tokenizers"
        return _made(_encoder(facts, content, Path()), facts, content)
    content[RANKS] = vocabulary.dump_ranks(taken.ranks)
    facts |= {"engine": "tiktoken", "pattern": taken.pattern, "normalizer": taken.normalizer}
    return _made(BytePairs(taken.ranks, str(taken.pattern), taken.normalizer), facts, content)


def extend(folder: Path, sha256: str | None, size: int, texts: Iterable[str]) -> Tokenizer:
    """The adopted vocabulary of a folder with merges for other text after its own (pipeline.tokenizer.extension).

    Args:
        folder: as of `adopt`; a byte-level BPE.
        sha256: as of `adopt`.
        size: ids in all, more than the folder's vocabulary has; texts with too few distinct pairs give fewer.
        texts: read once, as a stream.

    Raises:
        UserError: as `adopt`; another model than byte-level BPE; no room for new ids; no text.
    """
    base = adopt(folder, sha256)
    path = folder / TOKENIZER
    content = {name: data for name, data in base._files.items() if name in FILES}
    model = json.loads(content[TOKENIZER])["model"]
    if not base.sums_bytes:
        raise UserError(
            f"{path}: its model {model.get('type')} is no byte-level BPE, and tokenize.method extend adds merges; set "
            "tokenize.method to folder, or start from a model with a byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM2)"
        )
    if size <= base.vocab_size:
        raise UserError(
            f"params.yaml: tokenize.vocab_size is {size}, and {path} has {base.vocab_size} ids already; expected more: "
            "the old and the new ones"
        )
    made = extension.extend(content[TOKENIZER], base.special, base.vocab_size, size, texts)
    taken = adopted.of_content(content | {TOKENIZER: made.data}, str(path))
    parts = {"extended_from": base.vocab_size, "parts": [" ".join(map(str, ids)) for ids in made.parts]}
    return _of_adopted(taken, taken.special, dict(taken.content), parts)


def _byte_pairs(
    method: str, ranks: Mapping[bytes, int], pattern: str, special: Mapping[str, int], *, add_specials: bool
) -> Tokenizer:
    if add_specials:
        special = _appended(special, max([*ranks.values(), *special.values()]) + 1)
    written = vocabulary.byte_level_json(ranks, pattern, special)
    content = {TOKENIZER: written, RANKS: vocabulary.dump_ranks(ranks)}
    expression = PATTERNS[pattern].tiktoken
    facts = {
        "method": method,
        "engine": "tiktoken",
        "pattern": expression,
        "normalizer": None,
        "special": dict(special),
    }
    return _made(BytePairs(ranks, expression), facts, content)


def _made(encoder: Encoder, facts: Mapping[str, Any], content: Mapping[str, bytes]) -> Tokenizer:
    """A new tokenizer, with the files that follow from the facts."""
    end = facts.get("end_of_text", END_OF_TEXT)
    complete = {"end_of_text": end, "pad": PAD if PAD in facts["special"] else end, **facts}
    settings = vocabulary.to_json(vocabulary.settings_json(complete["special"], end))
    return Tokenizer(encoder, complete, {SETTINGS: settings, **content, OURS: vocabulary.to_json(complete)})


def _appended(special: Mapping[str, int], start: int) -> dict[str, int]:
    """`special` with the missing ones of our six special tokens, numbered from `start` on."""
    missing = [token for token in SPECIALS if token not in special]
    return {**special, **{token: start + i for i, token in enumerate(missing)}}


def _encoder(facts: Mapping[str, Any], content: Mapping[str, bytes], folder: Path) -> Encoder:
    match facts["engine"]:
        case "characters":
            return Characters(facts["alphabet"])
        case "tokenizers":
            special: Mapping[str, int] = facts["special"]
            return Library(content[TOKENIZER], special, [special[facts["end_of_text"]]])
        case "tiktoken":
            complete = facts["method"] != "folder"
            ranks = vocabulary.parse_ranks(content[RANKS], str(folder / RANKS), complete=complete)
            return BytePairs(ranks, facts["pattern"], facts["normalizer"])
    raise UserError(
        f"{folder / OURS}: engine is {facts['engine']!r}; one of: characters, tokenizers, tiktoken; "
        "run: dvc repro tokenize"
    )


def _published(name: Preset, path: Path, sha256: str | None) -> dict[bytes, int]:
    if name == "gpt2" and path.is_dir():
        pinned = {"encoder.json": None, "vocab.bpe": sha256}
        data = {file: adopted.read_checked(path / file, pin) for file, pin in pinned.items()}
        for file, expected in PUBLISHED_GPT2.items():
            _require_published(name, path / file, data[file], expected)
        return vocabulary.parse_gpt2(data["encoder.json"], data["vocab.bpe"], str(path))
    ranks = adopted.read_checked(path, sha256)
    _require_published(name, path, ranks, PUBLISHED[name])
    return vocabulary.parse_ranks(ranks, str(path))


def _require_published(name: str, path: Path, data: bytes, expected: str) -> None:
    if (actual := adopted.sha256_hex(data)) != expected:
        raise UserError(
            f"{path}: sha256 {actual} is not the published {name} ({expected}); for another vocabulary use "
            "tokenize.method ranks with its pattern"
        )


def _downloaded(name: str) -> dict[bytes, int]:
    import tiktoken

    try:
        return dict(tiktoken.get_encoding(name)._mergeable_ranks)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise UserError(
            f"tokenize.method {name}: the vocabulary could not be downloaded ({type(error).__name__}); set "
            "tokenize.path to its file (a tiktoken ranks file, or OpenAI's encoder.json and vocab.bpe folder)"
        ) from None
