"""Judgements in tables: which of two answers to a prompt is better, or whether one answer is good.

    prompt, answer_a, answer_b, choice     columns first, second and choice: preferences, or ratings of form choice
    prompt, answer, thumb                  columns answer and thumb: ratings of form thumb

A choice is `first`, `second` or `tie`, a thumb `up` or `down`; tables write them in many ways. The words below are read
as they are, in English and Turkish, whatever their letter case; any other value is named in the source's `labels`.
"""

import json
import re
import unicodedata
from typing import Any, Final

from pipeline.config.recipe import Kind
from pipeline.data import language
from pipeline.data.records import CONTENT, PROMPT, record_id

CHOICE: Final = ("first", "second", "choice")
"""Columns of two answers and the choice between them."""
THUMB: Final = ("answer", "thumb")
"""Columns of an answer and the judgement of it."""
RATER: Final = "rater"
"""Column of ratings: who judged; pseudonyms, as records keep them."""
UNKNOWN: Final = "unknown"
"""Rater of a table that names none."""
TIE: Final = "tie"
_WORDS = {
    "first": "a 1 first one left ilk birinci sol",
    "second": "b 2 second two right ikinci sag",
    TIE: "tie tied equal both same draw neither none either equally berabere beraberlik esit ayni ikisi fark hicbiri",
    "up": "up good yes like liked true 1 positive correct iyi evet begendim begen olumlu dogru guzel",
    "down": "down bad no dislike disliked false 0 negative wrong kotu hayir begenmedim begenme olumsuz yanlis",
}
_SIGNS = {"👍": "up", "👎": "down", "+": "up", "-": "down", "+1": "up", "-1": "down", "=": TIE}
_OTHERS = """answer response option model output completion candidate text side is better bothbad good bad thumb thumbs
cevap yanit yaniti secenek taraf daha de yok"""
_SIGNED = re.compile(r"[-+−]\s*\d")
_BESIDE = frozenset(_OTHERS.split())
"""Words that may stand beside one of the above: `answer A`, `model_b`, `thumbs up`, `fark yok`, `tie (bothbad)`."""
_KNOWN = {word: meaning for meaning, words in _WORDS.items() for word in words.split() if meaning in ("up", "down")}
_SIDES = {word: meaning for meaning, words in _WORDS.items() for word in words.split() if meaning not in ("up", "down")}
_LETTERS = str.maketrans("ıİşŞğĞçÇöÖüÜâÂ", "iIsSgGcCoOuUaA")


def content(kind: Kind, columns: dict[str, str]) -> tuple[str, ...]:
    """The content columns that a table of a kind has: those of records, or those of a judgement.

    Args:
        kind: of the records.
        columns: the source's mapping, ours -> the file's.
    """
    if kind == "ratings":
        return ("prompt", *(CHOICE if chooses(columns) else THUMB))
    if kind == "preferences" and chooses(columns):
        return ("instruction", "input", *CHOICE)
    return CONTENT[kind]


def chooses(columns: dict[str, str]) -> bool:
    """Whether a mapping names columns of a choice."""
    return not set(columns).isdisjoint(CHOICE)


def meanings(kind: Kind, columns: dict[str, str]) -> tuple[str, ...]:
    """The judgements of a table, to which `labels` may map the file's; none of a table without."""
    judged = content(kind, columns)
    return ("first", "second", TIE) if "choice" in judged else ("up", "down") if "thumb" in judged else ()


def choice_of(value: Any, labels: dict[str, str], columns: dict[str, str]) -> str | None:
    """first, second or tie; None for a value that is none of them.

    Args:
        value: of the file; text, a whole number or null (no judgement).
        labels: the file's value -> ours, before all others.
        columns: the mapping, as a choice may be the name of the chosen answer's column.
    """
    cell = _cell(value)
    if cell is None or labels:
        return labels.get(cell or "")
    by_name = {columns.get(side, side): side for side in ("first", "second")}
    if cell in by_name:
        return by_name[cell]
    if _SIGNS.get(cell) == TIE:
        return TIE
    if _SIGNED.match(cell):  # of -1 and 1 either may be the first answer
        return None
    return _SIDES.get(_bare(cell, _SIDES))


def thumb_of(value: Any, labels: dict[str, str]) -> str | None:
    """up or down; None for a value that is none of them. Arguments as of `choice_of`."""
    cell = _cell(value)
    if cell is None or labels:
        return labels.get(cell or "")
    sign = _SIGNS.get("".join(char for char in cell if unicodedata.category(char) != "Sk"))  # without a skin tone
    return sign if sign in ("up", "down") else _KNOWN.get(_bare(cell, _KNOWN))


def prompt_id(prompt: str, code: str, history: str | None = None) -> str:
    """Hash of a prompt, by which its judgements are split (column `prompt_id`).

    Args:
        prompt: the question, its input after a line feed.
        code: language, ISO 639-1 or und, by whose rules letter case does not count.
        history: JSON of the earlier messages.
    """
    return record_id("documents", language.normal(prompt, code), history=history)


def judged(record: dict[str, Any], kind: Kind, code: str) -> dict[str, Any]:
    """The record of a table's row.

    Args:
        record: checked values of the columns of `content`, the choice or thumb as ours, no tie for preferences; other
            columns stay.
        kind: preferences or ratings.
        code: language of the prompt, or auto: guessed.
    """
    rest = {name: value for name, value in record.items() if name not in (*CHOICE, *THUMB, "prompt", RATER)}
    if kind == "preferences":
        better, worse = ("first", "second") if record["choice"] == "first" else ("second", "first")
        rest |= {"chosen": record[better], "rejected": record[worse]}
        prompt = "\n".join(part for part in (record["instruction"], record["input"]) if part)
    else:
        prompt = record["prompt"]
        sides = ("first", "second") if "choice" in record else ("answer",)
        rest |= {
            "prompt": prompt,
            "answers": json.dumps([record[side] for side in sides], ensure_ascii=False),
            "verdict": f"choice:{_number(record['choice'])}" if "choice" in record else f"thumb:{record['thumb']}",
            "correction": "",
            "model_sha256": "",
            "rater": record.get(RATER) or UNKNOWN,
        }
    code = language.guess(prompt) if code == "auto" else code
    return rest | {PROMPT: prompt_id(prompt, code, rest.get("history"))}


def _number(choice: str) -> str:
    return {"first": "0", "second": "1"}.get(choice, TIE)


def _cell(value: Any) -> str | None:
    """A value as text: true for booleans, whole numbers without a point; None for null and other values."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) else None


def _bare(cell: str, known: dict[str, str]) -> str:
    """The one known word of a short value, in plain letters; empty where there is none, or another word beside it."""
    plain = unicodedata.normalize("NFKD", cell.translate(_LETTERS)).casefold()
    words = re.findall(r"[a-z]+|\d+", plain)
    meant = [word for word in words if word in known]
    others = [word for word in words if word not in known and word not in _BESIDE]
    return meant[0] if meant and not others and len({known[word] for word in meant}) == 1 else ""
