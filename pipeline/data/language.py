"""What a text is in its language: normal form, words, exact match, and a cheap guess of the language
itself.

`normal` is the form under which two texts are the same text (deduplication, contamination, exact match):
letters composed (NFC), case removed as the language removes it (Turkish and Azerbaijani: I -> ı, İ -> i;
everyone else: full Unicode case folding), white space folded to single spaces. Sources: Unicode Standard
Annex 15 (normalization), Unicode SpecialCasing.txt (tr, az), Unicode Standard section 3.13 (case folding).
"""

import re
import unicodedata

_DOTTED = frozenset({"tr", "az"})  # languages that tell dotted from dotless i
# Combining marks of living scripts (accents, vowel signs) continue a word, though \w does not know them.
_MARKS = "".join(chr(c) for c in range(0x300, 0x3100) if unicodedata.category(chr(c)).startswith("M"))
WORD = rf"\w+(?:(?:[{_MARKS}]+|['’](?=\w))\w*)*"
"""A word, as a regular expression: letters, digits, combining marks, an apostrophe between two of them."""
_WORD = re.compile(WORD)
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")

_TURKISH_ONLY = frozenset("ğış")
_TURKISH_WORDS = """
    ve bir bu da de ki için ile çok ama gibi daha ne o ben sen biz siz değil var yok mi mı mu mü her
    sonra kadar olan olarak en şu hem ya veya ise diye göre nasıl neden nerede kim hangi bana sana
    ona beni seni onu şey evet hayır lütfen artık bile hiç çünkü önce şimdi bugün yarın dedi oldu
    olur değildi vardı
"""
_ENGLISH_WORDS = """
    the a an and of to in is it that was he she for on are with as his her they be at this have from
    or had by not but what all were we when your can said there use each which do how their if will
    up about out many then them these so some would him has who where why you i my me our us no yes
    does did
"""
_FUNCTION_WORDS = {
    "tr": frozenset(_TURKISH_WORDS.split()),
    "en": frozenset(_ENGLISH_WORDS.split()),
}
_LETTERS_SEEN = 2000  # characters of a text that decide; a longer text is not read to its end


def fold(text: str, language: str) -> str:
    """The text without case, as `language` (ISO 639-1) folds it, letters composed; white space stays.

    Folding can decompose a letter and composing can make another, so both run until nothing changes.
    """
    before, after = None, unicodedata.normalize("NFC", text)
    while after != before:
        before = after
        cased = before.replace("I", "ı").replace("İ", "i") if language in _DOTTED else before
        after = unicodedata.normalize("NFC", cased.casefold())
    return after


def normal(text: str, language: str) -> str:
    """The normal form: `fold`, outer white space gone, inner white space runs one space each. Idempotent."""
    return " ".join(fold(text, language).split())


def words(text: str) -> list[str]:
    """The words of a text in order, as `WORD` says."""
    return _WORD.findall(text)


def exact_match(answer: str, expected: str, language: str) -> bool:
    """Whether two answers are one: equal normal forms, punctuation at either end ignored.

    An answer that is nothing but punctuation matches only itself.
    """
    return _bare(answer, language) == _bare(expected, language)


def guess(text: str) -> str:
    """`tr`, `en`, or `und` when the text is short, mixed or something else. Deterministic, no model.

    Counts function words of either language and, for Turkish, letters that English never uses. A winner
    needs two signs, one in twelve words, and twice the signs of the other.
    """
    found = words(fold(text[:_LETTERS_SEEN], "tr"))
    if not found:
        return "und"
    score = {language: sum(word in known for word in found) for language, known in _FUNCTION_WORDS.items()}
    # Folding as Turkish makes I -> ı, so the English pronoun and capitals come back as dotless letters.
    score["en"] += sum(word == "ı" for word in found)
    lower = text[:_LETTERS_SEEN].replace("I", "i").lower()
    score["tr"] += sum(not _TURKISH_ONLY.isdisjoint(word) for word in words(lower))
    best, other = ("tr", "en") if score["tr"] > score["en"] else ("en", "tr")
    signs = score[best]
    clear = signs >= 2 and signs * 12 >= len(found) and signs >= 2 * score[other]
    return best if clear else "und"


def _bare(text: str, language: str) -> str:
    form = normal(text, language)
    return _EDGES.sub("", form) or form
