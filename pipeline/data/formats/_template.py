"""Column templates: several columns of a row as one text, as `"{title}\\n\\n{body}"`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


def is_template(name: str) -> bool:
    """Whether the value of a column mapping is a template rather than a column's name."""
    return "{" in name or "}" in name


@dataclass(frozen=True)
class Template:
    """A text with columns in braces; doubled braces are braces of the text."""

    text: str

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Its columns in their order, each once. Raises ValueError where it names none, or a brace stands alone."""
        names = tuple(dict.fromkeys(name for _, columns in self._lines for name in columns))
        if not names:
            raise ValueError(f"{self.text!r} names no column; expected one in braces at least, as {{title}}")
        return names

    def filled(self, cells: Mapping[str, str]) -> str:
        """The text of one row; empty where all of its columns are missing.

        A cell is missing where it is empty or white space. A line all of whose columns are missing is left out with the
        blank lines after it; blank lines at both ends are left out.
        """
        if not any(cells[name].strip() for name in self.columns):
            return ""
        lines: list[str] = []
        is_omitted = False
        for literals, columns in self._lines:
            values = [cells[name] for name in columns]
            if columns and not any(map(str.strip, values)):
                is_omitted = True
                continue
            line = "".join(literal + value for literal, value in zip_longest(literals, values, fillvalue=""))
            if is_omitted and not line.strip():
                continue
            is_omitted = False
            lines.append(line)
        return "\n".join(lines).strip("\n")

    @cached_property
    def _lines(self) -> list[tuple[list[str], list[str]]]:
        """Literal texts of each line, and the columns between them: one column fewer than literals."""
        return [self._parsed(line) for line in self.text.split("\n")]

    def _parsed(self, line: str) -> tuple[list[str], list[str]]:
        literals, columns, at = [""], list[str](), 0
        for match in _PIECE.finditer(line):
            literals[-1] += line[at : match.start()]
            at = match.end()
            if match[1] is not None:
                columns.append(match[1])
                literals.append("")
            elif len(match[0]) == 2:
                literals[-1] += match[0][0]
            else:
                raise ValueError(
                    f"{self.text!r} has a single {match[0]}; expected a column in braces, as {{title}}, or "
                    f"{match[0] * 2} for a brace of the text"
                )
        literals[-1] += line[at:]
        return literals, columns
