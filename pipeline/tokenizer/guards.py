"""Guards that keep a conversation's texts from spelling special tokens in a rendered chat template.

A guard is a character that no text of the conversation has. It is put into every name of a special token that a text
spells, and where a text begins or ends with a part of one, which the template's own text could complete. The template
then renders as it would without, the names that are left are its own, and the guards are taken out again.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class Names:
    """Search for the names of markers in a text."""

    def __init__(self, names: Sequence[str]) -> None:
        self.pattern = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True)))) if names else None
        self.names = list(names)
        self.beginnings = {name[:length] for name in names for length in range(1, len(name))}
        self.ends = {name[length:] for name in names for length in range(1, len(name))}
        self.longest = max(map(len, names), default=0)

    def occurrences(self, text: str) -> list[tuple[str, int, int]]:
        """Name, begin and end of each, leftmost first."""
        if self.pattern is None:
            return []
        return [(match[0], match.start(), match.end()) for match in self.pattern.finditer(text)]

    def guards(self, text: str) -> set[int]:
        """Places in a text where a guard keeps it from spelling a marker, alone or with what stands around it."""
        places = set()
        if self.pattern is not None and self.pattern.search(text):
            places |= {at + 1 for name in self.names if name in text for at in _starts(text, name)}
        begin, end = len(text) - len(text.lstrip()), len(text.rstrip())
        for length in range(1, self.longest):
            # templates trim texts, so both the whole and the trimmed text may meet the template's own
            places |= {at - length + 1 for at in {end, len(text)} if text[max(at - length, 0) : at] in self.beginnings}
            places |= {at + length - 1 for at in {begin, 0} if text[at : at + length] in self.ends}
        return {place for place in places if 0 <= place <= len(text)}


def _starts(text: str, name: str) -> Iterator[int]:
    """Every place at which a name begins in a text, overlapping ones too."""
    at = text.find(name)
    while at >= 0:
        yield at
        at = text.find(name, at + 1)


class Guard:
    """A character that no text of a conversation has, put into names of markers that its texts spell."""

    def __init__(self, names: Names, texts: Sequence[str]) -> None:
        self.names = names
        used = set().union(*texts)
        self.letter = next(letter for letter in map(chr, range(0xE000, 0x10FFFE)) if letter not in used)

    def value(self, value: Any) -> Any:
        """The value with guards in its texts."""
        if isinstance(value, str):
            return self._guarded(value)
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list | tuple) else value

    def without_guards(self, text: str) -> str:
        """The text as it was."""
        return text.replace(self.letter, "")

    def _guarded(self, text: str) -> str:
        for place in sorted(self.names.guards(text), reverse=True):
            text = text[:place] + self.letter + text[place:]
        return text


def texts(value: Any) -> list[str]:
    """Every text in a nested value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in texts(item)]
    return [text for item in value for text in texts(item)] if isinstance(value, list | tuple) else []
