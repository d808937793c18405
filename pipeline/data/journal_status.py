"""What a journal holds, in numbers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import segments
from pipeline.data.journal_rewriting import exported_until
from pipeline.rated import standing
from pipeline.segments import Damage


@dataclass(frozen=True)
class Status:
    """Counts of one journal; no text of anyone."""

    requests: int
    consents: dict[str, int]
    """Requests by consent; `none` without."""
    users: int
    ratings: dict[str, int]
    """Ratings that stand, by form."""
    superseded: int
    """Ratings that a later one replaced or an undo took back."""
    not_exported: int
    """Ratings after the last export."""
    labels: int
    erasures: int
    oldest: str | None
    """Time of the first entry."""
    latest: str | None
    last_export: str | None
    """File of the last export."""
    files: int
    bytes: int
    damaged: tuple[str, ...]
    """Damaged lines, each in a sentence."""
    last: int
    """Number of the last entry."""


def status(folder: Path) -> Status:
    """Reads a whole journal once."""
    damaged: list[Damage] = []
    kinds: Counter[str] = Counter()
    consents: Counter[str] = Counter()
    users: set[str] = set()
    ratings: list[dict[str, Any]] = []
    first = last = last_export = None
    rated: list[int] = []
    exported = number = 0
    for entry in segments.read(folder, on_damage=damaged.append):
        kinds[entry["kind"]] += 1
        first, last, number = first or entry["time"], entry["time"], entry["n"]
        if entry["kind"] == "request":
            consents[entry["consent"] or "none"] += 1
            users.add(entry["user"])
        elif entry["kind"] == "rating":
            ratings.append({name: entry[name] for name in ("kind", "id", "request", "rater", "form", "value")})
            rated.append(number)
        elif entry["kind"] == "export":
            last_export, exported = entry["file"], max(exported, exported_until(entry))
    stand = standing(ratings)
    given = sum(one["form"] != "undo" for one in {one["id"]: one for one in ratings}.values())
    found = segments.segments(folder)
    return Status(
        requests=kinds["request"],
        consents=dict(sorted(consents.items())),
        users=len(users),
        ratings=dict(sorted(Counter(one["form"] for one in stand).items())),
        superseded=given - len(stand),
        not_exported=sum(one > exported for one in rated),
        labels=kinds["label"],
        erasures=kinds["erasure"],
        oldest=first,
        latest=last,
        last_export=last_export,
        files=len(found),
        bytes=sum(segment.path.stat().st_size for segment in found),
        damaged=tuple(map(str, damaged)),
        last=number,
    )
