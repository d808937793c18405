"""Prompt templates by language, from a YAML file of this project or of the user."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

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

    def filled(self, language: str, text: str, **values: str | int) -> str:
        """The template of a language, or `any`, with `text` in its slot and the values in theirs; other braces stay."""
        template = self.by_language.get(language) or self.by_language[ANY]
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
    if not path.is_file():
        raise UserError(f"{path}: no such file; correct {where}, or write null for the project's own templates")
    content = path.read_bytes()
    try:
        templates = yaml.safe_load(content.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML in UTF-8: {error}") from None
    if not isinstance(templates, dict) or not all(isinstance(text, str) for text in [*templates, *templates.values()]):
        raise UserError(f"{path}: expected languages with a template each, such as `en: |` and its text below")
    if ANY not in templates:
        raise UserError(f"{path}: has {', '.join(templates)}; expected `{ANY}` too, for other languages")
    for language, text in templates.items():
        if text.count(f"{{{slot}}}") != 1:
            found = text.count(f"{{{slot}}}")
            raise UserError(f"{path}: template {language} holds {{{slot}}} {found} times; expected once")
    return Templates(templates, slot, hashlib.sha256(content).hexdigest())
