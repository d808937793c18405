"""Every variant in a folder of the package, with the example settings that stand in its own file.

A new file is tested without an entry in any list: tests take their cases from here.
"""

from dataclasses import dataclass
from typing import Any

from pipeline.config import plugins


@dataclass(frozen=True)
class Variant:
    """One file with one choice of settings."""

    folder: str
    name: str
    settings: dict[str, Any]
    varied: str = ""
    """The setting that differs from the first example; empty for the first example itself."""

    def __str__(self) -> str:
        return f"{self.name}, {self.varied}" if self.varied else self.name

    def build(self, *inputs: Any, **changes: Any) -> Any:
        """The variant's `build(settings, *inputs)` with these settings changed."""
        return build(self.folder, self.name, *inputs, **self.settings | changes)


def variants(folder: str) -> list[Variant]:
    """Each file's first example, and one case per further example of a field."""
    cases = []
    for name in plugins.choices(folder):
        first, *others = plugins.examples(folder, name)
        cases.append(Variant(folder, name, first))
        for settings in others:
            (key,) = (key for key in first if settings[key] != first[key])
            cases.append(Variant(folder, name, settings, f"{key}={settings[key]}"))
    return cases


def settings(folder: str, name: str, **changes: Any) -> Any:
    """The typed settings of one file: its first example with these changes."""
    return plugins.settings_class(folder, name)(**plugins.example(folder, name) | changes)


def build(folder: str, name: str, *inputs: Any, **changes: Any) -> Any:
    """`build(settings, *inputs)` of one file, on its first example with these changes."""
    return plugins.load(folder, name).build(settings(folder, name, **changes), *inputs)
