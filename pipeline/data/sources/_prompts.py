"""Prompt templates by language, from a YAML file of this project or of the user."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError

ANY = "any"
"""Key of the template for languages without one of their own."""


@dataclass(frozen=True)
class Templates:
    """Templates by language."""

    by_language: dict[str, str]
    slot: str
    """Name of the place for a record's text, in braces in every template."""
    sha256: str
    """Of the file."""

    def filled(self, code: str, text: str, **values: str | int) -> str:
        """The template of the language `code`, or `any`, with `text` in its slot and the values in theirs."""
        template = self.by_language.get(code) or self.by_language[ANY]
        for name, value in values.items():
            template = template.replace(f"{{{name}}}", str(value))
        before, _, after = template.partition(f"{{{self.slot}}}")
        return f"{before}{text}{after}".strip()


def read(path: Path, slot: str, where: str) -> Templates:
    """The templates of a file.

    Args:
        path: a YAML file: language (ISO 639-1) or `any` -> template.
        slot: the name that every template holds in braces, once.
        where: the setting that names the file, in errors.

    Raises:
        UserError: no such file, no mapping of languages to texts, no template `any`, or one without the slot.
    """
    templates = _mapping(path, where)
    if not all(isinstance(text, str) for text in templates.values()):
        raise UserError(f"{path}: expected languages with a template each, such as `en: |` and its text below")
    if ANY not in templates:
        raise UserError(f"{path}: has {', '.join(templates)}; expected `{ANY}` too, for other languages")
    for language, text in templates.items():
        _require_slot(path, language, text, slot)
    return Templates(templates, slot, hashlib.sha256(path.read_bytes()).hexdigest())


def read_lists(path: Path, slot: str, where: str) -> dict[str, list[str]]:
    """Language -> its templates; arguments and errors as of `read`, but for `any`, which is no language here."""
    templates = _mapping(path, where)
    for language, texts in templates.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{path}: {language} is {texts!r:.60}; expected a list of templates with {{{slot}}}")
        for text in texts:
            _require_slot(path, language, text, slot)
    return templates


def _mapping(path: Path, where: str) -> dict[str, Any]:
    """A YAML file of languages."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; correct {where}, or write null for the project's own templates")
    try:
        templates = yaml.safe_load(path.read_bytes().decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML in UTF-8: {error}") from None
    if not isinstance(templates, dict) or not all(isinstance(language, str) for language in templates):
        raise UserError(f"{path}: expected languages (ISO 639-1) with their templates, such as `en: |`")
    return templates


def _require_slot(path: Path, language: str, text: str, slot: str) -> None:
    if (times := text.count(f"{{{slot}}}")) != 1:
        raise UserError(f"{path}: template {text!r:.60} of {language} holds {{{slot}}} {times} times; expected once")
