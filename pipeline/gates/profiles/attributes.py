"""Profile table of stated attributes: how many records name each group of people, such as women and men.

A record states a group if one of its texts has one of the group's words as a whole word, letter case folded by the
record's language; it may state several. Names are not looked at: they say little about a person.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.data.language import fold
from pipeline.data.records import TEXTS
from pipeline.data.tables import batches
from pipeline.gates._rules import Frame
from pipeline.integrity import kinds_in

_BATCH = 1024


def profile(attributes: Mapping[str, tuple[Mapping[str, Sequence[str]], float]], raw: Path) -> Frame:
    """Frame `attributes`: records and share by kind, attribute and group; no rows without attributes.

    Args:
        attributes: name -> (group -> its words, least share of each group).
        raw: the folder data/raw.
    """
    frame = Frame(
        ("kind", "attribute", "group"),
        ("records", "stated_share", "min_stated_share"),
        counts={"stated_share": "records"},
    )
    for kind in kinds_in(raw) if attributes else ():
        counts: Counter[tuple[str, str]] = Counter()
        patterns: dict[str, dict[tuple[str, str], re.Pattern[str]]] = {}
        for batch in batches(raw / f"{kind}.parquet", [*TEXTS[kind], "language"], _BATCH):
            for row in batch.to_pylist():
                language = row["language"] or "und"
                if language not in patterns:
                    patterns[language] = _patterns(attributes, language)
                text = fold("\n".join(row[name] or "" for name in TEXTS[kind]), language)
                counts.update(key for key, pattern in patterns[language].items() if pattern.search(text))
        for name, (groups, least) in attributes.items():
            total = sum(counts[name, group] for group in groups)
            for group in groups if total else ():
                n = counts[name, group]
                frame.add(
                    {
                        "kind": kind, "attribute": name, "group": group, "records": n, "stated_share": n / total,
                        "min_stated_share": least,
                    }
                )  # fmt: skip
    return frame


def _patterns(
    attributes: Mapping[str, tuple[Mapping[str, Sequence[str]], float]], language: str
) -> dict[tuple[str, str], re.Pattern[str]]:
    """(attribute, group) -> any of its words, folded by the language."""
    return {
        (name, group): re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(fold(word, language)) for word in words)})(?!\w)")
        for name, (groups, _) in attributes.items()
        for group, words in groups.items()
    }
