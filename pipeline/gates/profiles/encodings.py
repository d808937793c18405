"""Mojibake: text that was decoded with the wrong character encoding.

Two rules, both on the characters alone:

- UTF-8 read as a code page of one byte per character (text encoded twice too): runs of characters whose bytes in that
  code page are valid UTF-8 for letters or typographic signs. Other text almost never has that form.
- A Turkish code page read as another: windows-1254 read as 1252 has ð, ý, þ for ğ, ı, ş. These are letters of
  Icelandic, Old English and Czech, so the words decide: decoded back they must have Turkish vowel harmony and syllables
  (Göksel and Kerslake 2005, chapters 1 and 3); other words with such letters, and letters that Turkish does not have,
  count against it.

`python -m tests.bench.mojibake FILE...` counts detections in files, before and after their encoding is broken.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

Span = tuple[int, int]

_C1 = frozenset(map(chr, range(0x80, 0xA0)))  # ISO-8859 has control characters where the code pages have quotes, dashes
_TURKISH = "çğıöşüâîûÇĞİÖŞÜÂÎÛ"
_PUNCTUATION = frozenset("–—…‘’“”«»‹›•·°")  # stands between letters in ordinary text too


def _character(byte: int, code_page: str) -> str:
    """The character of a byte; a byte that the code page does not define is read as in ISO-8859-1."""
    try:
        return bytes([byte]).decode(code_page)
    except UnicodeDecodeError:
        return chr(byte)


def _class(characters: Iterable[str]) -> str:
    """A regular expression of any one of the characters."""
    return f"[{''.join(re.escape(character) for character in sorted(characters))}]"


class _MultiByte(NamedTuple):
    """UTF-8 read as one code page."""

    bytes_of: dict[str, int]
    pair: str
    """Regular expression of the first two characters of any match."""
    pattern: re.Pattern[str]
    between_letters: bool
    """Whether a match counts only beside a Latin letter: elsewhere its characters may be Cyrillic, or draw boxes."""


def _multi_byte(code_page: str, between_letters: bool) -> _MultiByte:
    shown = {byte: _character(byte, code_page) for byte in range(0x80, 0x100)}

    def among(first: int, last: int) -> str:
        return _class({shown[byte] for byte in range(first, last + 1)} | (_C1 if first == 0x80 else set()))

    rest = among(0x80, 0xBF)
    two, three, four = (
        f"{among(0xC2, 0xC5)}{rest}",
        f"{among(0xE2, 0xE2)}{rest}{{2}}",
        f"{among(0xF0, 0xF0)}{rest}{{3}}",
    )
    # Letters of other scripts come in words; one pair alone may be a capital letter before a quotation mark.
    words = f"(?:{among(0xCE, 0xDB)}{rest}){{3,}}|(?:{among(0xE0, 0xED)}{rest}{{2}}){{2,}}"
    mark = f"{among(0xEF, 0xEF)}{re.escape(shown[0xBB])}{re.escape(shown[0xBF])}"
    forms = two if between_letters else "|".join([words, two, three, four, mark])
    leads = among(0xC2, 0xC5) if between_letters else among(0xC2, 0xF0)
    bytes_of = {character: byte for byte, character in shown.items()}
    bytes_of |= {control: ord(control) for control in _C1}
    return _MultiByte(bytes_of, f"{leads}{rest}", re.compile(forms), between_letters)


_UTF8_READ_AS = (
    _multi_byte("cp1252", False),
    _multi_byte("cp1254", False),
    *(_multi_byte(page, True) for page in ("cp1250", "cp1251", "cp437", "cp850", "cp857", "mac_roman", "mac_turkish")),
)


class _Pair(NamedTuple):
    """A Turkish code page read as another one."""

    read_as: str
    letters: dict[int, str]
    """Character as read -> Turkish letter, a table for `str.translate`."""
    marks: frozenset[str]
    """Characters as read that are no Turkish letters and no punctuation."""
    word: re.Pattern[str]
    letters_of_others: bool
    """Whether the marks are small letters of other languages, whose words have to be told apart."""


def _pair(written: str, read_as: str) -> _Pair:
    read = {letter: _character(letter.encode(written)[0], read_as) for letter in _TURKISH if _has(written, letter)}
    marks = frozenset(read.values()) - set(_TURKISH) - _PUNCTUATION
    word = re.compile(f"[A-Za-z{''.join(re.escape(character) for character in sorted(read.values()))}]+")
    return _Pair(
        read_as,
        {ord(character): letter for letter, character in read.items()},
        marks,
        word,
        written == "cp1254" and read_as in ("cp1252", "cp1250"),
    )


def _has(code_page: str, letter: str) -> bool:
    try:
        return len(letter.encode(code_page)) == 1
    except UnicodeEncodeError:
        return False


_PAIRS = tuple(
    _pair(written, read_as)
    for written, read_as in (
        ("cp1254", "cp1252"),
        ("cp1254", "cp1250"),
        ("cp1254", "cp1251"),
        ("cp1254", "cp1253"),
        ("cp1254", "cp437"),
        ("cp1254", "cp850"),
        ("cp1254", "cp857"),
        ("cp1254", "mac_roman"),
        ("cp1254", "mac_turkish"),
        ("mac_turkish", "cp1252"),
        ("mac_turkish", "cp1254"),
        ("cp857", "cp1252"),
        ("cp857", "cp1254"),
        ("iso8859_3", "cp1252"),
    )
)


def _candidate() -> str:
    """RE2 pattern of the texts that `mojibake` may find; wider than its rules, and fast."""
    small = {mark for pair in _PAIRS if pair.letters_of_others for mark in pair.marks}
    others = {mark for pair in _PAIRS if not pair.letters_of_others for mark in pair.marks}
    signs = _class(mark for mark in others if _is_sign(mark))
    capitals = _class(mark for mark in others if not _is_sign(mark) and mark.isupper())
    forms = [reading.pair for reading in _UTF8_READ_AS]
    return "|".join([*forms, _class(small), f"[A-Za-z]{signs}", f"{signs}[A-Za-z]", f"[a-z]{capitals}"])


def _is_sign(character: str) -> bool:
    """Whether a character is no letter of the Latin script."""
    return not character.isalpha() or character > "\u024f"


CANDIDATE = _candidate()


def mojibake(text: str) -> Iterator[Span]:
    """Spans of text that was decoded with the wrong encoding; see the two rules above."""
    for reading in _UTF8_READ_AS:
        yield from _encoded_twice(text, reading)
    for pair in _PAIRS:
        if not pair.marks.isdisjoint(text):
            yield from _turkish_read_as(text, pair)


def _encoded_twice(text: str, reading: _MultiByte) -> Iterator[Span]:
    doubtful: list[Span] = []
    for match in reading.pattern.finditer(text):
        start, end = match.span()
        try:
            decoded = bytes(reading.bytes_of[character] for character in match.group()).decode("utf-8")
        except UnicodeDecodeError:
            continue
        if not all(_is_plausible(ord(character)) for character in decoded):
            continue
        before, after = text[start - 1 : start], text[end : end + 1]
        if reading.between_letters and not _is_between_letters(before, match.group(), after):
            continue
        if end - start == 2 and match.group()[1] in _PUNCTUATION and not after.isalnum():
            doubtful.append((start, end))  # „Ä“ is a quoted letter
            continue
        yield start, end
    if len(doubtful) > 1:
        yield from doubtful


def _is_plausible(code: int) -> bool:
    """Whether a text may have been written with the character: no control character, no unusual symbol."""
    return 0xA0 <= code < 0x2C00 or 0x3000 <= code < 0xE000 or code == 0xFEFF or code >= 0x1F000


def _is_between_letters(before: str, match: str, after: str) -> bool:
    """Whether a Latin letter is beside the match, in a word that is not in capitals throughout (Slovak PÄŤ)."""
    beside = [character for character in before + after if character.isascii() and character.isalpha()]
    return bool(beside) and not (match.isupper() and "".join(beside).isupper())


def _turkish_read_as(text: str, pair: _Pair) -> Iterator[Span]:
    """Spans of the words that are Turkish when they are decoded back, where they outweigh the words that are not."""
    spans: list[Span] = []
    turkish = other = surest = place = 0
    for line in text.splitlines(keepends=True):
        if _fits(line, pair.read_as):
            for match in pair.word.finditer(line):
                word = _stripped(match.group())
                if not _is_marked(word, pair):
                    continue
                weight = _weight(word, pair)
                turkish, other, surest = turkish + max(weight, 0), other + max(-weight, 0), max(surest, weight)
                if weight > 0:
                    spans.append((place + match.start(), place + match.end()))
            other += 2 * len(_FOREIGN.findall(line)) if pair.letters_of_others else 0
        place += len(line)
    if surest == _SURE and turkish > (2 if pair.letters_of_others else 0.5) * other:
        yield from spans


_SURE = 2
_FOREIGN = re.compile("[áéíóúæœøåãõñëïòìùžš]", re.IGNORECASE)
"""Letters of the languages that have ð, ý or þ, and that Turkish lacks."""
_HARMONY = {
    "a": "aı", "ı": "aı", "e": "ei", "i": "ei", "o": "au", "u": "au", "ö": "eü", "ü": "eü",
}  # fmt: skip
"""Vowel -> vowels of the next syllable in a native word."""
_CONSONANTS = "bcçdfgğhjklmnprsştvyz"
_LETTERS = frozenset(_CONSONANTS) | frozenset(_HARMONY)
_UNLIKELY = re.compile(
    f"[aeıioöuü]{{2}}|[{_CONSONANTS}]{{3}}|(?<![aeıioöuü])ğ|ğ$|^[{_CONSONANTS}]{{2}}"
    # All but the clusters that native words end in.
    f"|(?!lk|rk|rt|nt|lt|nç|rş|rp|lp|st|şt|ft|kt|nk|rs|ns|rç|lç|şk|rz|lf|rf|vk)[{_CONSONANTS}]{{2}}$"
)
"""Two vowels or three consonants in a row, a cluster at the beginning, ğ after no vowel or at the end."""
_FREQUENT = frozenset(
    [
        "şey", "şeyi", "yıl", "yılı", "kız", "işe", "işi", "beş", "baş", "dış", "kış", "hız",
        "kırk", "aşk", "taş", "kuş", "yaş", "hoş", "boş", "eş", "diğer", "değil", "eğer", "doğru",
        "şimdi", "teşekkür", "teşekkürler",
    ]
)  # fmt: skip
_TURKISH_LOWER = str.maketrans("Iİ", "ıi")
_CIRCUMFLEXES = str.maketrans("âîû", "aiu")


def _weight(word: str, pair: _Pair) -> int:
    """2: Turkish alone has such words; 1: Turkish, maybe another language; 0: cannot tell; -1: not Turkish."""
    decoded = word.translate(pair.letters)
    if not (decoded.islower() or decoded.isupper() or decoded[1:].islower()):
        return -1
    decoded = decoded.translate(_TURKISH_LOWER).lower().translate(_CIRCUMFLEXES)
    if decoded in _FREQUENT:
        return _SURE
    if not set(decoded) <= _LETTERS or _UNLIKELY.search(decoded) or not _in_harmony(decoded):
        return -1
    if len(decoded) < 4 or _syllables(decoded) < 2:
        return 0
    return _certainty(word, decoded, pair) if pair.letters_of_others else _SURE


def _certainty(word: str, decoded: str, pair: _Pair) -> int:
    """2 where only Turkish has ð, ý and þ: Icelandic words begin with þ, Czech adjectives end in ý or ým."""
    places = [place for place in range(1, len(word)) if word[place] in pair.marks]
    letters = {decoded[place] for place in places}
    later = [
        place
        for place in places
        if decoded[place] == "ı" and _syllables(decoded[:place]) and decoded[place + 1 :] not in ("", "m")
    ]
    if not places:
        return 0
    return _SURE if "ş" in letters or set(decoded) & set("üç") or later or len(letters) > 1 else 1


def _syllables(word: str) -> int:
    return sum(letter in _HARMONY for letter in word)


def _in_harmony(word: str) -> bool:
    """Whether each vowel fits the one before; the o of the ending -yor always does."""
    return all(
        later in _HARMONY[earlier]
        for part in re.split("(?<=[ıiuü]y)(?=or)", word)
        for earlier, later in pairwise(letter for letter in part if letter in _HARMONY)
    )


def _is_marked(word: str, pair: _Pair) -> bool:
    """Whether the word has a mark; Latin letters such as ß and ž are one only as a capital after a small letter."""
    marks = pair.marks & set(word)
    if not marks or pair.letters_of_others:
        return bool(marks)
    return any(
        character in marks and (_is_sign(character) or (character.isupper() and before.islower()))
        for before, character in pairwise(word)
    )


def _stripped(word: str) -> str:
    """The word without signs at its ends, which may be punctuation of the sentence."""
    first, last = 0, len(word)
    while first < last and not word[first].isalpha():
        first += 1
    while first < last and not word[last - 1].isalpha():
        last -= 1
    return word[first:last]


def _fits(line: str, code_page: str) -> bool:
    """Whether the code page has all characters of the line, so that the line may have been read with it."""
    if line.isascii():
        return False
    try:
        line.translate(_WITHOUT_C1).encode(code_page)
    except UnicodeEncodeError:
        return False
    return True


_WITHOUT_C1 = dict.fromkeys(map(ord, _C1))
