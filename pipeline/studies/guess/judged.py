"""Ratings in tables: the columns of two answers and the choice between them, or of an answer and a thumb."""

import re
from collections.abc import Callable
from typing import Any

from pipeline.data import judgements
from pipeline.studies.guess.columns import Column
from pipeline.studies.guess.names import NAMES, plain
from pipeline.studies.guess.picker import Picker, Roles, is_meta, says

_SIDES = (
    ("a", "b"), ("1", "2"), ("0", "1"), ("first", "second"), ("left", "right"), ("ilk", "ikinci"),
    ("birinci", "ikinci"), ("sol", "sag"),
)  # fmt: skip
"""Words in which the names of the two answers' columns differ, in plain letters."""
_ANSWERS = (*NAMES["output"], "option", "model", "candidate", "generation", "text", "secenek", "metin")
_CHOICE_NAMES = """choice chosen preference preferred winner better best vote verdict judgement judgment label result
rating tercih secim secilen kazanan iyi oy karar sonuc etiket"""
_CHOICES = frozenset(_CHOICE_NAMES.split())
_THUMB_NAMES = """thumb thumbs feedback rating vote like liked good helpful verdict judgement judgment begeni begendi oy
degerlendirme geri puan yararli iyi"""
_THUMBS = frozenset(_THUMB_NAMES.split())
_ENOUGH = 0.95
"""Share of the judged rows whose value is understood."""
Read = Callable[[Any], str | None]


def choices(picker: Picker) -> Roles | None:
    """Columns of two answers whose names differ in a side (A and B, 1 and 2), and of the choice between them."""
    pair = _pair(picker)
    if pair is None:
        return None
    first, second = (column.name for column in pair)
    mapping = {"first": first, "second": second}
    used = {first, second}
    prompt = picker.wished(picker.wishes.text) or picker.best("instruction", says, used) or _only_text(picker, used)
    if prompt is None:
        return None
    used.add(prompt.name)
    found = _judgement(
        picker, used, _CHOICES, {"0": "first", "1": "second"}, lambda value: judgements.choice_of(value, {}, mapping)
    )
    if found is None:
        return None
    choice, labels = found
    context = picker.best("input", says, {*used, choice.name}, most=1000)
    columns = {"instruction": prompt.name} | ({"input": context.name} if context is not None else {})
    ties = sum(n for value, n in choice.values.items() if judgements.choice_of(value, labels, mapping) == "tie")
    told = (f"{ties:,} ties are left out: neither answer is preferred",) if ties else ()
    return Roles("preferences", columns | mapping | {"choice": choice.name}, told, labels)


def thumbs(picker: Picker) -> Roles | None:
    """Columns of a prompt, an answer and a judgement of it."""
    answer = picker.best("output", says)
    question = picker.wished(picker.wishes.text) or (
        picker.best("instruction", says, {answer.name}) if answer is not None else None
    )
    if answer is None or question is None or question.is_conversation or answer.is_conversation:
        return None
    used = {answer.name, question.name}
    found = _judgement(picker, used, _THUMBS, {}, lambda value: judgements.thumb_of(value, {}))
    if found is None:
        verdicts = [c for c in picker.all.values() if plain(c.name) == "label" and _is_boolean(c)]
        if not verdicts:
            return None
        found = verdicts[0], {}
    thumb = found[0]
    rater = next(
        (c.name for c in picker.all.values() if plain(c.name) in ("rater", "annotator", "degerlendiren")), None
    )
    columns = {"prompt": question.name, "answer": answer.name, "thumb": thumb.name}
    return Roles("ratings", columns | ({"rater": rater} if rater is not None else {}))


def _pair(picker: Picker) -> tuple[Column, Column] | None:
    """Two columns of texts whose names are equal but for the side; of several pairs that of the longest texts."""
    named: dict[tuple[str, str], Column] = {}
    for column in picker.all.values():
        parts = re.findall(r"[^\W\d_]+|\d+", plain(column.name)) if says(column) else []
        for part in {word for sides in _SIDES for word in sides}.intersection(parts):
            rest = [word for word in parts if word != part]
            if len(rest) == len(parts) - 1 and all(word.startswith(_ANSWERS) for word in rest):
                named[" ".join(rest), part] = column
    pairs = [
        (column, named[rest, second])
        for (rest, part), column in named.items()
        for first, second in _SIDES
        if part == first and (rest, second) in named
    ]
    return max(pairs, key=lambda pair: pair[0].length, default=None)


def _judgement(
    picker: Picker, used: set[str], names: frozenset[str], digits: dict[str, str], read: Read
) -> tuple[Column, dict[str, str]] | None:
    """The column of judgements, and labels where its values are digits from 0.

    A column counts by its name, and only if nearly all of its values are understood; of a choice also one of another
    name, if it is the only such column and its values are words.
    """
    wished = picker.wished(picker.wishes.label)
    named, others = [], []
    for column in [wished] if wished is not None else picker.all.values():
        if column.name in used or not column.values or column.several:
            continue
        labels = _from_zero(column, digits)
        total = sum(column.values.values())
        known = sum(n for value, n in column.values.items() if (str(value) in labels or read(value) is not None))
        if known < _ENOUGH * total:
            continue
        words = plain(column.name).split()
        if (
            wished is not None
            or any(word.startswith(name) for word in words for name in names if len(name) > 2)
            or (set(words) & set(names))
        ):
            named.append((column, labels))
        elif digits and not labels and not column.is_numeric and not is_meta(column):
            others.append((column, labels))
    if len(named) > 1:
        chosen = picker.ask("which column holds the judgements", [column.name for column, _ in named])
        return next(pair for pair in named if pair[0].name == chosen)
    return named[0] if named else others[0] if len(others) == 1 else None


def _from_zero(column: Column, digits: dict[str, str]) -> dict[str, str]:
    """`digits` for a column of 0 and 1, in which 1 would be the first answer of 1 and 2; else empty."""
    values = {str(value) for value in column.values}
    return digits if "0" in values and values <= set(digits) else {}


def _only_text(picker: Picker, but: set[str]) -> Column | None:
    texts = [column for column in picker.texts() if column.name not in but and not is_meta(column)]
    longest = [column for column in texts if not column.is_label(picker.rows)]
    return longest[0] if len(longest) == 1 else None


def _is_boolean(column: Column) -> bool:
    return bool(column.values) and all(isinstance(value, bool) for value in column.values)
