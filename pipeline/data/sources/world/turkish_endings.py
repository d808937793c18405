"""Turkish case endings for the embedded world: of names by rule, of its common nouns from a list.

Endings of names follow vowel harmony and consonant assimilation (Göksel & Kerslake 2005, *Turkish: A
Comprehensive Grammar*, chapters 3 and 6); forms of common nouns, whose stem may change, are written out.
"""

_FORMS: dict[str, dict[str, str]] = {
    "kedi": {"acc": "kediyi", "poss": "kedisi"},
    "köpek": {"acc": "köpeği", "poss": "köpeği"},
    "papağan": {"acc": "papağanı", "poss": "papağanı"},
    "tavşan": {"acc": "tavşanı", "poss": "tavşanı"},
    "keçi": {"acc": "keçiyi", "poss": "keçisi"},
    "kaplumbağa": {"acc": "kaplumbağayı", "poss": "kaplumbağası"},
    "at": {"acc": "atı", "poss": "atı"},
    "ördek": {"acc": "ördeği", "poss": "ördeği"},
    "çorba": {"acc": "çorbayı"},
    "pilav": {"acc": "pilavı"},
    "balık": {"acc": "balığı"},
    "mercimek": {"acc": "mercimeği"},
    "fasulye": {"acc": "fasulyeyi"},
    "makarna": {"acc": "makarnayı"},
    "peynir": {"acc": "peyniri"},
    "bal": {"acc": "balı"},
}


def suffixes(word: str) -> dict[str, str]:
    """Case forms of a name, after an apostrophe, or of a listed common noun; "" is the word itself.

    Keys: gen (-in), dat (-e), abl (-den), loc (-de), ins (-le), and for common nouns acc (-i), poss (-i,
    theirs).
    """
    forms = {"": word} | _FORMS.get(word, {})
    if not word[0].isupper():
        return forms
    lower = word.replace("I", "ı").replace("İ", "i").lower()
    vowel = [letter for letter in lower if letter in "aeıioöuü"][-1]
    open_, close = (
        ("a" if vowel in "aıou" else "e"),
        {"a": "ı", "ı": "ı", "o": "u", "u": "u", "e": "i", "i": "i", "ö": "ü", "ü": "ü"}[vowel],
    )
    ends_open = lower[-1] in "aeıioöuü"
    d = "t" if lower[-1] in "çfhkpsştx" else "d"
    endings = {
        "gen": ("n" if ends_open else "") + close + "n",
        "dat": ("y" if ends_open else "") + open_,
        "abl": d + open_ + "n",
        "loc": d + open_,
        "ins": ("y" if ends_open else "") + "l" + open_,
    }
    return forms | {case: f"{word}'{ending}" for case, ending in endings.items()}
