r"""How text is cut before byte pairs are merged: named patterns, their Hugging Face form, very long texts.

A pattern has two spellings that give the same pieces: one for tiktoken and rustbpe (possessive quantifiers,
so no backtracking) and one for tokenizer.json, whose regular expressions are Oniguruma's (there `{1,3}+`
repeats and `$` is a line end). Both libraries agree on every code point in \p{L}, \p{N}, \p{M}, \p{Lu}, ...,
\s (all 1,112,064 compared). Sources: the patterns published in tiktoken (tiktoken_ext/openai_public.py) and
GPT-2 (Radford et al. 2019). cl100k_base is written here with `\s*[\r\n]` before `\s++$`: pieces as first
published, also where white space ends a text.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple


class Pattern(NamedTuple):
    """One pre-tokenizer in both spellings; equal pieces."""

    tiktoken: str
    huggingface: str


_O200K_TAIL = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _O200K_TAIL,
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _O200K_TAIL,
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_GPT2_CLASSIC = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

PATTERNS: dict[str, Pattern] = {
    "gpt2": Pattern(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s", _GPT2_CLASSIC),
    "cl100k_base": Pattern(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
        r"\s*[\r\n]|\s++$|\s+(?!\S)|\s",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "o200k_base": Pattern(_O200K, _O200K),
}
# `Digits` cuts every digit off before GPT-2's pattern sees the rest, so white space before a digit stands at
# an end.
_DIGITS_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++|\p{N}| ?[^\s\p{L}\p{N}]++|\s+(?![^\s\p{N}])|\s+"

RUN = 256
"""Characters of a run without (or of nothing but) white space that a trainer reads in one go."""
_LONG_RUN = re.compile(rf"\s{{{RUN}}}|\S{{{RUN}}}")
# Bytes that may stand in a run of blanks, and in one of anything else: 1, the others 0. Those of a character beyond
# ASCII may stand in both.
_ASCII_BLANKS = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
_BLANKS = bytes(byte in _ASCII_BLANKS or byte >= 0x80 for byte in range(256))
_LETTERS = bytes(byte not in _ASCII_BLANKS for byte in range(256))
_NEEDLE = b"\1" * RUN
PART = 1 << 18
"""Characters of a text that a pre-tokenizer reads in one go; its regular expression gives up at about a
million."""


def parts(text: str) -> list[str]:
    r"""The text in parts of at most `PART` characters that pre-tokenize as the whole text does.

    Each cut stands between a letter and the white space after it, where every pattern here ends a piece
    whatever comes next and starts one whatever came before, so the ids are those of the uncut text. Only when
    `PART` / 2 characters hold no such place (a run of a hundred thousand blanks, digits or unspaced letters)
    is the cut made anywhere, and ids may differ there from those of an uncut text, though never the text they
    decode to.
    """
    found = []
    start = 0
    while len(text) - start > PART:
        cut = _cut(text, start + PART // 2, start + PART)
        found.append(text[start:cut])
        start = cut
    return [*found, text[start:]] if found else [text]


def short_runs(text: str) -> Iterator[str]:
    """The text in parts for a trainer: cut inside runs of blanks, or of anything else, of `RUN` characters.

    The trainer's time grows with the square of a periodic run (4 s of CPU at 4,000 blanks, hours at a
    million), and a run teaches nothing that its first `RUN` characters do not; no text is left out.
    """
    utf8 = text.encode()
    if _NEEDLE not in utf8.translate(_BLANKS) and _NEEDLE not in utf8.translate(_LETTERS):
        yield text  # the expression needs 75 ns a character, this 3
        return
    start = 0
    for run in _LONG_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def huggingface_form(name: str) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json for one of `PATTERNS`."""
    if name == "gpt2":
        return _byte_level(use_regex=True)  # GPT-2's own pattern is built into ByteLevel
    expression = {"Regex": PATTERNS[name].huggingface}
    split = {"type": "Split", "pattern": expression, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


def recognize(form: Any) -> str | None:
    """The tiktoken pattern for the `pre_tokenizer` of a byte-level tokenizer.json; None: no such pattern is
    known.

    Understands GPT-2 (ByteLevel), Llama 3 and Qwen (Split by an expression, ByteLevel) and SmolLM2 (Digits,
    ByteLevel).
    """
    match flat(form):
        case [{"type": "ByteLevel", "use_regex": True}]:
            return PATTERNS["gpt2"].tiktoken
        case [
            {"type": "Split", "pattern": {"Regex": str(written)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False},
        ]:
            return next((p.tiktoken for p in PATTERNS.values() if p.huggingface == written), written)
        case [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}]:
            return _DIGITS_GPT2
    return None


def flat(form: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, sequences opened; ByteLevel's `use_regex` is spelled out (it is true if
    absent)."""
    if not form:
        return []
    if form.get("type") == "Sequence":
        return [step for inner in form.get("pretokenizers", []) for step in flat(inner)]
    return [{"use_regex": True, **form} if form.get("type") == "ByteLevel" else dict(form)]


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _cut(text: str, low: int, high: int) -> int:
    """The last place in (low, high] between a letter and a blank or line feed; `high` if there is none."""
    place = high
    while (place := max(text.rfind(" ", low, place), text.rfind("\n", low, place))) > low:
        if text[place - 1].isalpha():
            return place
    return high
