"""Labelled texts and documents: the columns of texts and labels."""

from pipeline.data.formats._template import Template, is_template
from pipeline.studies.guess.columns import Column
from pipeline.studies.guess.names import is_code_of
from pipeline.studies.guess.picker import Picker, Roles, is_meta, is_named

_FEW_ROWS = 12
"""Rows up to which a label's name is enough, as its values cannot repeat often."""


def labelled(picker: Picker) -> Roles | None:
    """Columns of a label and its text."""
    wished = picker.wished(picker.wishes.label)
    label = wished or _label(picker)
    if label is None:
        if picker.wishes.kind == "labelled":
            picker.refuse("no column looks like a label")
        return None
    if label.several > 0.5 * label.seen and not label.is_label_sets:
        picker.refuse(
            f"column {label.name!r} has lists of {len(label.members):,} different texts; expected a few labels that "
            "repeat"
        )
    if (template := _template(picker)) is not None:
        return Roles("labelled", {"text": template.text, "label": label.name})
    text = picker.wished(picker.wishes.text) or _text(picker, {label.name})
    if text is None:
        return None
    return Roles("labelled", {"text": text.name, "label": label.name})


def documents(picker: Picker) -> Roles | None:
    """The column of texts without labels; of files with conversations only, these."""
    if (template := _template(picker)) is not None:
        return Roles("documents", {"text": template.text})
    wished = picker.wished(picker.wishes.text)
    talks = [c for c in picker.all.values() if c.is_conversation]
    if wished is None and talks and not picker.texts():
        return Roles("documents", {"messages": talks[0].name})
    if wished is not None and wished.is_conversation:
        return Roles("documents", {"messages": wished.name})
    text = wished or _text(picker, set())
    return None if text is None else Roles("documents", {"text": text.name})


def _template(picker: Picker) -> Template | None:
    """The template that the user sets for the text; None for a column or nothing. Refuses one of unknown columns.

    A shell passes `\\n` as two characters, which are a line break here.
    """
    if picker.wishes.text is None or not is_template(picker.wishes.text):
        return None
    template = Template(picker.wishes.text.replace("\\n", "\n"))
    try:
        unknown = [name for name in template.columns if name not in picker.all]
    except ValueError as error:
        picker.refuse(str(error))
    if unknown:
        picker.refuse(f"no column {unknown[0]!r}")
    return template


def _label(picker: Picker) -> Column | None:
    """The column with the best evidence for a label; of a code and its name, the name."""
    template = _template(picker)
    texts = (picker.wishes.text,) if template is None else template.columns
    pool = {}
    for name, column in picker.all.items():
        if name in texts or name.removesuffix(".0") != name:
            continue
        if (value := _label_evidence(picker, column)) is not None:
            pool[name] = value
    if not pool:
        return _several_labels(picker)
    ordered = sorted(pool, key=lambda name: -pool[name])
    best = ordered[0]
    if pool[best] < 1:
        return None
    twins = [name for name in ordered[1:] if picker.columns.one_to_one(best, name)]
    if picker.all[best].is_numeric or _is_boolean(picker, best):
        named = [name for name in twins if picker.all[name].texts and not picker.all[name].is_numeric]
        best = named[0] if named else best
    rivals = [name for name in ordered if name != best and name not in twins and pool[name] > pool[best] - 0.75]
    rivals = [name for name in rivals if not picker.columns.one_to_one(best, name)]
    if rivals:
        best = picker.ask("which column holds the labels", [best, *rivals])
    return picker.all[best]


def _several_labels(picker: Picker) -> Column | None:
    lists = [c for c in picker.all.values() if c.several > 0.5 * c.seen > 0 and is_named(c, "label") is not None]
    return lists[0] if lists else None


def _label_evidence(picker: Picker, column: Column) -> float | None:
    """Above 1 for a label; None where it cannot be one."""
    by_name = is_named(column, "label")
    whole = by_name is not None and by_name < 1000
    named = by_name is not None or is_named(column, "grade") is not None
    few_rows = named and picker.rows <= _FEW_ROWS and bool(column.values) and column.length <= 40
    single = whole and len(column.values) == 1 and picker.rows > 1 and column.length <= 40
    if not column.is_label(picker.rows) and not few_rows and not single:
        return None
    total = 4.0 if whole else 3.0 if by_name is not None else 0.0
    if not total and (grade := is_named(column, "grade")) is not None:
        total = 2.5 if grade < 1000 else 2.0
    if not total and is_code_of(column.name, "label"):
        total = 2.5
    if not total and is_meta(column):
        return None
    kinds = len(column.values)
    total += 1.0 if kinds <= 10 else 0.5 if kinds <= 20 else 0.0
    if column.is_numeric:
        return total if total >= 2 or _is_code(column) else None
    return total + 1.0


def _is_boolean(picker: Picker, name: str) -> bool:
    return all(isinstance(value, bool) for value in picker.all[name].values)


def _is_code(column: Column) -> bool:
    """Whether numbers of an unnamed column are 0, 1, ... or 1, 2, ..., as classes are numbered."""
    try:
        values = sorted(int(value) for value in column.values)
    except ValueError:
        return False
    return values in ([-1, 1], [-1, 0, 1], [0, 4], [0, 2, 4]) or (
        values[0] in (0, 1) and values == list(range(values[0], values[-1] + 1)) and len(values) <= 10
    )


def _text(picker: Picker, but: set[str]) -> Column | None:
    """The column of the text: by its name, else the longest by far."""
    texts = [c for c in picker.texts() if c.name not in but and not is_meta(c)]
    texts = [c for c in texts if not _is_part(picker, c)]
    if not texts:
        texts = [c for c in picker.all.values() if c.name not in but and c.texts and c.letters >= 0.6 * c.texts]
        texts = [c for c in texts if is_named(c, "text") is not None and not c.is_numeric]
    if not texts:
        return None
    longest = max(texts, key=lambda c: c.length)
    whole = [c for c in texts if (place := is_named(c, "text")) is not None and place < 1000]
    partly = [c for c in texts if is_named(c, "text") is not None]
    for named in (whole, partly):
        if named and (whole or longest.length <= 5 * max(c.length for c in named)):
            return _of_named(picker, named)
    rest = [c for c in texts if c is not longest]
    if all(longest.length >= 1.3 * c.length for c in rest) or all(c.is_label(picker.rows) for c in rest):
        return longest
    return picker.all[picker.ask("which column holds the text", [c.name for c in texts])]


def _of_named(picker: Picker, named: list[Column]) -> Column:
    """Of columns with names of texts the longest; of equally long ones that of the more usual name."""
    longest = max(named, key=lambda c: c.length)
    equal = [c for c in named if longest.length < 1.3 * c.length]
    best = min(equal, key=lambda c: is_named(c, "text") or 0)
    rivals = [c.name for c in equal if c is not best and is_named(c, "text") == is_named(best, "text")]
    return picker.all[picker.ask("which column holds the text", [best.name, *rivals])] if rivals else best


def _is_part(picker: Picker, column: Column) -> bool:
    """Whether the first element of a list is not all of it."""
    whole = picker.all.get(column.name.removesuffix(".0")) if column.name.endswith(".0") else None
    return whole is not None and whole.several > 0


def labels_of(column: Column) -> dict[str, str]:
    """Values of a label column that are no texts -> their names; empty where all are texts, which need no names."""
    values = list(column.values)
    if all(isinstance(value, str) for value in values):
        return {}
    whole = (int(value) if isinstance(value, float) and value.is_integer() else value for value in values)
    names = sorted(str(value).lower() if isinstance(value, bool) else str(value) for value in whole)
    return dict(zip(names, names, strict=True))
