"""Language-dependent text functions: normal form, words, exact match, and language detection.

Two texts with equal `normal` forms count as one text (deduplication, contamination, exact match): letters composed
(NFC), case folded by the language's rules (Turkish and Azerbaijani: I -> ı, İ -> i; others: full Unicode case folding),
white space collapsed. Sources: Unicode Standard Annex 15 (normalization), Unicode SpecialCasing.txt (tr, az), Unicode
Standard section 3.13 (case folding).
"""

import re
import unicodedata

_DOTTED = frozenset({"tr", "az"})  # languages with dotted and dotless i
# Combining marks of living scripts (accents, vowel signs) continue a word, though \w does not match them.
_MARKS = "".join(chr(c) for c in range(0x300, 0x3100) if unicodedata.category(chr(c)).startswith("M"))
WORD = rf"\w+(?:(?:[{_MARKS}]+|['’](?=\w))\w*)*"
"""Regular expression of a word: letters, digits, combining marks, an apostrophe between two of them."""
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
FUNCTION_WORDS = {
    "tr": frozenset(_TURKISH_WORDS.split()),
    "en": frozenset(_ENGLISH_WORDS.split()),
}
_LETTERS_SEEN = 2000  # characters of a text that `guess` reads


def fold(text: str, language: str) -> str:
    """The text case-folded by the rules of `language` (ISO 639-1) and in NFC; white space stays.

    Folding can decompose a letter and composing can make another, so both run until nothing changes.
    """
    before, after = None, unicodedata.normalize("NFC", text)
    while after != before:
        before = after
        cased = before.replace("I", "ı").replace("İ", "i") if language in _DOTTED else before
        after = unicodedata.normalize("NFC", cased.casefold())
    return after


def normal(text: str, language: str) -> str:
    """The normal form: `fold`, stripped, white space runs collapsed to single spaces. Idempotent."""
    return " ".join(fold(text, language).split())


def words(text: str) -> list[str]:
    """The words of a text (matches of `WORD`), in order."""
    return _WORD.findall(text)


def exact_match(answer: str, expected: str, language: str) -> bool:
    """Whether two answers have equal normal forms, punctuation at either end ignored.

    An answer of punctuation only matches only itself.
    """
    return _bare(answer, language) == _bare(expected, language)


def guess(text: str) -> str:
    """The language of a text: `tr`, `en`, or `und` for a short, mixed or other text. Deterministic, no model.

    The score of a language is the number of its function words, for Turkish also of words with letters that English
    does not have. The best score must be at least two, a twelfth of the words, and twice the other.
    """
    text_words = words(fold(text[:_LETTERS_SEEN], "tr"))
    if not text_words:
        return "und"
    score = {language: sum(word in known for word in text_words) for language, known in FUNCTION_WORDS.items()}
    # Turkish folding maps I to ı, so the English pronoun is the word ı here.
    score["en"] += sum(word == "ı" for word in text_words)
    lower = text[:_LETTERS_SEEN].replace("I", "i").lower()
    score["tr"] += sum(not _TURKISH_ONLY.isdisjoint(word) for word in words(lower))
    best, other = ("tr", "en") if score["tr"] > score["en"] else ("en", "tr")
    clear = score[best] >= 2 and score[best] * 12 >= len(text_words) and score[best] >= 2 * score[other]
    return best if clear else "und"


def _bare(text: str, language: str) -> str:
    form = normal(text, language)
    return _EDGES.sub("", form) or form
