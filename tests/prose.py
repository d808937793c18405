"""The language of a page: its texts apart from data and code, and English words in them."""

import re
import string
from html.parser import HTMLParser

# Words of grammar that no Turkish sentence has, as whole words.
ENGLISH_WORDS = re.compile(
    r"\b(the|of|and|with|is|are|was|were|not|to|for|by|from|its|it|that|this|than|which|where|nothing|each|all|no|an?)\b",
    re.IGNORECASE,
)


def fields(text: str) -> set[str]:
    """Names of the fields of a template."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


class Prose(HTMLParser):
    """The text of a page that is in its language: without data, styles, code and records (translate="no")."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "link"):
            outside = dict(attributes).get("translate") == "no" or tag in ("style", "code", "pre")
            self.open.append((tag, outside))
        self.texts += [value for name, value in attributes if name == "aria-label" and value]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Nothing: an empty element has no text."""

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if data.strip() and not any(outside for _, outside in self.open):
            self.texts.append(data.strip())


def prose(page: str) -> list[str]:
    """The texts of a page, `aria-label` included."""
    parser = Prose()
    parser.feed(page)
    return parser.texts


def english(page: str) -> list[str]:
    """The texts of a page in which an English word stands. Names and commands are no words."""
    names = re.compile(r"`[^`]*`|[\w.-]*[_./-][\w./-]*(['’]\w+)?")
    return [text for text in prose(page) if ENGLISH_WORDS.search(names.sub(" ", text))]
