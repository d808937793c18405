"""Adds the user's data to a project: files to inputs/, a source to download.sources of params.yaml."""

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import config, files
from pipeline.errors import UserError
from pipeline.paths import INPUTS

if TYPE_CHECKING:
    from pipeline.studies.guess import Guess

PARAMS = Path("params.yaml")


def write_source(guessed: "Guess") -> str:
    """Copies the data to inputs/, adds its source to params.yaml; returns a sentence on both.

    Raises:
        UserError: see `insert`; or inputs/ holds another file of this name.
    """
    assert guessed.inputs is not None
    stem = Path(guessed.inputs.shown.rstrip("/*")).name.split(".")[0].lower()
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "own"
    guessed.inputs.copy_to(INPUTS)
    insert(name, guessed.entry(INPUTS / "file"))
    return f"{PARAMS}: added download.sources.{name}; write its licence and consent there"


def insert(name: str, entry: dict[str, Any], path: Path = PARAMS) -> None:
    """Adds a source behind the others; every other byte of params.yaml stays.

    Raises:
        UserError: a source of this name is there, sources are not written as a block, or the result is not valid.
    """
    text = path.read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    if name in raw["download"]["sources"]:
        raise UserError(f"{path}: download.sources.{name} is there already; rename or remove it")
    sources = _value(_value(yaml.compose(text, yaml.SafeLoader), "download"), "sources")
    if not isinstance(sources, yaml.MappingNode) or sources.flow_style or not sources.value:
        raise UserError(f"{path}: download.sources is not written as a block; add there:\n{_text(name, entry)}")
    column = sources.value[0][0].start_mark.column
    last = sources.value[-1][1]
    while isinstance(last, yaml.MappingNode | yaml.SequenceNode) and not last.flow_style:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    end = text.find("\n", last.end_mark.index)
    end = len(text) if end < 0 else end + 1
    new = text[:end] + textwrap.indent(_text(name, entry), " " * column) + text[end:]
    raw["download"]["sources"][name] = entry
    if yaml.safe_load(new) != raw:
        raise UserError(f"{path}: download.sources cannot be added to; add there:\n{_text(name, entry)}")
    config.check(raw, path.name)
    files.write_text(path, new)


def _value(node: Any, key: str) -> Any:
    return next((value for name, value in node.value if name.value == key), None)


def _text(name: str, entry: dict[str, Any]) -> str:
    return yaml.safe_dump({name: entry}, allow_unicode=True, sort_keys=False, default_flow_style=None, width=110)
