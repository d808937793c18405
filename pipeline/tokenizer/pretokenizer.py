r"""Pre-tokenization: named patterns, their Hugging Face form, and cuts of very long texts.

A pattern has two spellings that give equal pieces: one for tiktoken and rustbpe (possessive quantifiers, so no
backtracking) and one for tokenizer.json, whose regular expressions are Oniguruma's (there `{1,3}+` repeats and `$` is a
line end). Both libraries agree on every code point in \p{L}, \p{N}, \p{M}, \p{Lu}, ..., \s (all 1,112,064 compared).
Sources: the patterns published in tiktoken (tiktoken_ext/openai_public.py) and GPT-2 (Radford et al. 2019). cl100k_base
is written here with `\s*[\r\n]` before `\s++$`, for pieces as first published also where a text ends in white space.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple


class Pattern(NamedTuple):
    """A pre-tokenizer in both spellings."""

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
# `Digits` splits digits off before GPT-2's pattern is applied, so white space before a digit is at the end of a text.
DIGITS_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++|\p{N}| ?[^\s\p{L}\p{N}]++|\s+(?![^\s\p{N}])|\s+"
"""The tiktoken spelling of `Digits` before GPT-2's pattern, as SmolLM2 has it."""

RUN = 256
"""Most characters of a run of white space, or of a run without any, in a trainer's text."""
_LONG_RUN = re.compile(rf"\s{{{RUN}}}|\S{{{RUN}}}")
# 1 for bytes that may occur in a run of white space, and in a run of other characters; bytes of characters beyond
# ASCII may occur in both.
_ASCII_BLANKS = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
_BLANKS = bytes(byte in _ASCII_BLANKS or byte >= 0x80 for byte in range(256))
_LETTERS = bytes(byte not in _ASCII_BLANKS for byte in range(256))
_NEEDLE = b"\1" * RUN
PART = 1 << 18
"""Maximum number of characters of a text for a pre-tokenizer, whose regular expression fails at about a million."""


def parts(text: str) -> list[str]:
    r"""The text in parts of at most `PART` characters that pre-tokenize as the whole text does.

    Each cut is between a letter and the white space after it, where every pattern here ends a piece in any context, so
    the ids equal the uncut text's. Only where `PART` / 2 characters have no such place (a run of a hundred
    thousand blanks, digits or unspaced letters) is the cut arbitrary, and ids may differ there from those of the uncut
    text, though not the decoded text.
    """
    before = []
    start = 0
    while len(text) - start > PART:
        cut = _cut(text, start + PART // 2, start + PART)
        before.append(text[start:cut])
        start = cut
    return [*before, text[start:]] if before else [text]


def short_runs(text: str) -> Iterator[str]:
    """The text in parts for a trainer, cut after every `RUN` characters of a run of white space or of others.

    The trainer's time is quadratic in the length of a periodic run (4 s of CPU at 4,000 blanks, hours at a million),
    and a run has no pairs that its first `RUN` characters do not have; no text is left out.
    """
    utf8 = text.encode()
    if _NEEDLE not in utf8.translate(_BLANKS) and _NEEDLE not in utf8.translate(_LETTERS):
        yield text  # the regular expression takes 75 ns per character, this test 3
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
    """The tiktoken pattern for the `pre_tokenizer` of a byte-level tokenizer.json; None where none is known.

    Supports GPT-2 (ByteLevel), Llama 3 and Qwen (Split by an expression, ByteLevel) and SmolLM2 (Digits,
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
            return DIGITS_GPT2
    return None


def flat(form: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, sequences flattened, with the default `use_regex` of ByteLevel, true."""
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
