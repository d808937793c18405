"""Rendering of HTML pages: templates of pipeline/reporting/pages, with all their words from one table of a language.

Each page is one file: styles and pictures are inline, nothing is loaded from elsewhere, and it has no script.
"""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.reporting.wording import Words

TEMPLATES = Path(__file__).parent / "pages"


def page(template: str, words: Words, **values: Any) -> str:
    """A page as HTML.

    Args:
        template: file name in pipeline/reporting/pages.
        words: of the page; a template has `t(key, ...)`, `count(key, n, ...)` and the number formats as globals.
        values: variables of the template.
    """
    return _environment().get_template(template).render(
        language=words.language, words=words, t=words, count=words.count, number=words.number, general=words.general,
        signed=words.signed, integer=words.integer, percent=words.percent, interval=words.interval, **values,
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = lambda value, words: figure(value, words)
    return environment


def figure(value: float, words: Words) -> str:
    """A metric in a table: whole numbers without digits after the decimal sign, others with four."""
    return words.integer(value) if value == round(value) and abs(value) > 1 else words.number(value)
