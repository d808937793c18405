"""Ratings that stand: later ones of the same rater, request and form supersede, an undo takes back."""

from collections.abc import Iterable

from pipeline.segments import Entry


def standing(entries: Iterable[Entry]) -> list[Entry]:
    """The ratings that stand, in order: a later one of the same rater, request and form supersedes, an undo takes back.

    The value of an undo is the form or the id of a rating of the same rater and request; null: the latest one that
    stands. An id that was appended twice (sent again after an answer was lost) counts once.
    """
    last: dict[tuple[str, str, str], Entry] = {}
    seen: set[str] = set()
    for entry in entries:
        if entry["kind"] != "rating" or entry["id"] in seen:
            continue
        seen.add(entry["id"])
        whose = (entry["rater"], entry["request"])
        if entry["form"] != "undo":
            last.pop((*whose, entry["form"]), None)
            last[(*whose, entry["form"])] = entry
            continue
        given = [slot for slot in last if slot[:2] == whose]
        if (value := entry["value"]) is not None:
            given = [slot for slot in given if value in (slot[2], last[slot]["id"])]
        if given:
            del last[given[-1]]
    return list(last.values())


def superseded(entries: Iterable[Entry]) -> set[str]:
    """Ids of the ratings that no longer stand: superseded or taken back."""
    held = [entry for entry in entries if entry["kind"] == "rating" and entry["form"] != "undo"]
    return {entry["id"] for entry in held} - {entry["id"] for entry in standing(entries)}
