"""The reference of params.yaml for pipeline/config/README.md: every key with sentence, type, value and choices.

Keys come from the typed sections, sentences from the strings below their fields, values from the default profile.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Part
from pipeline.config.search_space import Choices, Range, Space
from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.paths import CODE
from pipeline.reporting.docstrings import field_docstrings, first_sentence, module_docstring, source_file

PART_FOLDERS = {
    **AXES,
    "rule": "merging",
    "sources": "data/sources",
    "format": "data/formats",
    "augment": "data/augment",
    "measures": "evaluation",
    "gates": "gates",
}
"""Field of a section -> the folder in `pipeline` whose files are its choices."""
_KEYED = {"measures": "<measure>", "gates": "<gate>"}
"""Maps whose keys are the variants' names."""
_SHOWN_VALUES = 4
_TYPES = {int: "int", float: "float", bool: "bool", str: "text", Any: "any", NoneType: "null"}
_ABSENT = object()


@dataclass(frozen=True)
class Key:
    """One row of the reference."""

    path: str
    sentence: str
    type: str
    values: list[Any]
    """Its different values in the default profile."""
    examples: list[Any]
    """Values for keys that the default profile does not use."""
    choices: list[str]


@dataclass
class Variants:
    """A folder of variants found in the walk through the sections."""

    paths: list[str] = field(default_factory=list)
    """Where params.yaml names one."""
    settings: dict[str, list[Any]] = field(default_factory=dict)
    """Variant -> its settings in the default profile."""


class Reference:
    """All keys of params.yaml beside a default profile."""

    def __init__(self, default: dict[str, Any]) -> None:
        """Walks through the sections; `default` is the default profile, parsed."""
        self.variants = {folder: Variants() for folder in PART_FOLDERS.values()}
        self.sections = {
            key: list(self._field(Params, name, key, [default])) for name, key in _keys(Params) if key != "search"
        }
        searches = list(default["search"].values())
        ranges = [dimension for search in searches for dimension in search["space"].values()]
        self.sections["search"] = [
            *self._section(get_type_hints(Space)["settings"], "search.<name>", searches),
            *self._section(Range, "search.<name>.space.<path>", [r for r in ranges if "low" in r]),
            *self._section(Choices, "search.<name>.space.<path>", [r for r in ranges if "choices" in r]),
        ]

    def all_keys(self) -> list[Key]:
        """Every key: of the sections, then of the variants."""
        keys = [key for rows in self.sections.values() for key in rows]
        variants = [(folder, name) for folder in self.variants for name in plugins.choices(folder)]
        return keys + [key for folder, name in variants for key in self.of_variant(folder, name)]

    def of_variant(self, folder: str, name: str) -> list[Key]:
        """The keys that one variant adds. Raises UserError for a field without a sentence below it."""
        used = self.variants[folder].settings.get(name, [])
        prefix = {"evaluation": f"measures.{name}", "gates": f"gates.{name}", "data/sources": "sources.<name>"}
        key = next(key for key, variants in PART_FOLDERS.items() if variants == folder)
        keys = list(self._section(plugins.settings_class(folder, name), prefix.get(folder, key), used))
        for row in keys:
            if not row.sentence:
                raise UserError(
                    f"pipeline/{folder}/{name}.py: field {row.path.rpartition('.')[2]} of Settings has no sentence; "
                    'write one as a string below it: """What it sets."""'
                )
        return keys

    def _section(self, cls: type, path: str, found: list[Any], about: str = "") -> Iterator[Key]:
        """The rows of a section; a field without a sentence takes `about`, that of the section."""
        for name, key in _keys(cls):
            if not (issubclass(cls, Part) and name == "name"):
                rows = self._field(cls, name, f"{path}.{key}", found)
                yield from (row if row.sentence else replace(row, sentence=about) for row in rows)

    def _field(self, cls: Any, name: str, path: str, found: list[Any]) -> Iterator[Key]:
        """The rows of one field: its own, and the rows of the section that it holds."""
        info, key = cls.model_fields[name], path.rpartition(".")[2]
        annotation = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        values = _distinct([entry.get(key, _ABSENT) for entry in found if isinstance(entry, dict)])
        inner, suffix = _inner(annotation)
        sentence = field_docstrings(cls).get(name, "")
        if key in _KEYED:
            yield self._variants(PART_FOLDERS[key], f"{path}.{_KEYED[key]}", sentence, _named(values))
            return
        if key in PART_FOLDERS:
            parts = [(part["name"], part) for part in _entries(values, suffix)]
            yield self._variants(PART_FOLDERS[key], path + suffix, sentence if inner is Part else "", parts)
            if inner is Part:
                return
        if inner is None:
            yield Key(path, sentence, _type(annotation), values, list(info.examples or []), _choices(annotation))
            return
        if (sentence and suffix) or suffix == "[]" or get_origin(annotation) in (Union, UnionType):
            yield Key(path, sentence, _type(annotation), [v for v in values if not v], [], [])
        about = sentence or first_sentence(inner.__doc__ or "") + "."
        yield from self._section(inner, path + suffix, _entries(values, suffix), about)

    def _variants(self, folder: str, path: str, sentence: str, used: list[tuple[str, Any]]) -> Key:
        """The row of the key that chooses variants; records the settings that the default profile gives to each."""
        if path not in self.variants[folder].paths:
            self.variants[folder].paths.append(path)
        for name, settings in used:
            self.variants[folder].settings.setdefault(name, []).append(settings)
        kind, key = ("map", path) if path.endswith(tuple(_KEYED.values())) else ("choice", f"{path}.name")
        sentence = sentence or f"The variant: a file in pipeline/{folder}; its settings are beside the name."
        return Key(key, sentence, kind, _distinct([name for name, _ in used]), [], plugins.choices(folder))


def _named(values: list[Any]) -> list[tuple[str, Any]]:
    return [(name, settings) for value in values for name, settings in value.items()]


def params_page(default: dict[str, Any]) -> str:
    """Markdown: a table per section of params.yaml, then one per variant of every folder of variants."""
    reference = Reference(default)
    parts = []
    for section, keys in reference.sections.items():
        parts += [f"## {section}", _intro(section), _table(keys)]
    for folder, variants in reference.variants.items():
        places = " and ".join(f"`{path}`" for path in variants.paths)
        parts += [f"## Variants in pipeline/{folder}", f"Settings at {places}, beside the name."]
        for name in plugins.choices(folder):
            module = f"pipeline.{folder.replace('/', '.')}.{name}"
            sentence = first_sentence(module_docstring(source_file(CODE, module)))
            keys = reference.of_variant(folder, name)
            parts += [f"### {name}", f"{sentence}.", _table(keys) if keys else "No settings."]
    return "\n\n".join(part for part in parts if part)


def _intro(section: str) -> str:
    info = next(info for name, info in Params.model_fields.items() if section in (name, info.alias))
    inner, _ = _inner(info.annotation)
    return " ".join((inner.__doc__ or "").split()) if inner is not None else ""


def _table(keys: list[Key]) -> str:
    lines = ["| key | meaning | type | default profile | choices |", "|---|---|---|---|---|"]
    for key in keys:
        values = ", ".join(f"`{_flow(value)}`" for value in key.values[:_SHOWN_VALUES])
        if len(key.values) > _SHOWN_VALUES:
            values += ", ..."
        if not key.values and key.examples:
            values = f"(example) `{_flow(key.examples[0])}`"
        choices = ", ".join(f"`{choice}`" for choice in key.choices)
        cells = (f"`{key.path}`", key.sentence, key.type, values, choices)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _keys(cls: Any) -> list[tuple[str, str]]:
    """Field name and the key that params.yaml has for it."""
    return [(name, info.alias or name) for name, info in cls.model_fields.items()]


def _distinct(values: list[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value is not _ABSENT and value not in values[:i]]


def _entries(values: list[Any], suffix: str) -> list[Any]:
    """The sections below values of a field that holds one, a map or a list of them."""
    if suffix.startswith(".<"):
        return [entry for value in values if value for entry in value.values()]
    if suffix == "[]":
        return [entry for value in values if value for entry in value]
    return [value for value in values if value]


def _inner(annotation: Any) -> tuple[type | None, str]:
    """The section in an annotation and what its keys add to the path: nothing, `.<name>` of a map, `[]` of a list."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _inner(arguments[0])
    if origin is dict:
        return _inner(arguments[1])[0], ".<name>"
    if origin is list:
        return _inner(arguments[0])[0], "[]"
    if origin in (Union, UnionType):
        return next((_inner(a) for a in arguments if _inner(a)[0] is not None), (None, ""))
    is_section = isinstance(annotation, type) and issubclass(annotation, Section)
    return (annotation if is_section else None), ""


def _type(annotation: Any) -> str:
    """An annotation in words: `int > 0`, `float in [0, 1]`, `text or null`, `map of text to float`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(_type(arguments[0]), [bound for info in arguments[1:] for bound in _constraints(info)])
    if origin is Literal:
        return "choice"
    if origin is dict:
        return f"map of {_type(arguments[0])} to {_type(arguments[1])}"
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin in (Union, UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    return _TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _constraints(info: Any) -> list[Any]:
    """The single constraints in the metadata of `Annotated`."""
    return list(getattr(info, "metadata", None) or [info])


def _bounded(kind: str, constraints: list[Any]) -> str:
    limits = {
        name: getattr(constraint, name)
        for constraint in constraints
        for name in ("gt", "ge", "lt", "le", "min_length", "pattern")
        if getattr(constraint, name, None) is not None
    }
    if {"ge", "le"} <= set(limits):
        kind += f" in [{limits.pop('ge')}, {limits.pop('le')}]"
    signs = {"gt": "> ", "ge": ">= ", "lt": "< ", "le": "<= "}
    bounds = [f"{signs[name]}{limits[name]}" for name in signs if name in limits]
    if limits.get("min_length") == 1:
        bounds.append("not empty")
    if "pattern" in limits:
        bounds.append(f"matching `{limits['pattern']}`")
    return " ".join([kind, *([", ".join(bounds)] if bounds else [])])


def _choices(annotation: Any) -> list[str]:
    """The values of every Literal inside an annotation."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [choice for argument in get_args(annotation) for choice in _choices(argument)]
