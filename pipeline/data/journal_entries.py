"""Fields of the journal's entries, and their check before they are written."""

from datetime import UTC, datetime
from typing import Final

from pipeline.segments import Entry

TIE: Final = "tie"
"""Value of a choice between answers that are equally good."""
NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "request": ("id", "model", "model_sha256", "task", "user", "consent", "answers"),
    "rating": ("id", "request", "rater", "form", "value", "consent"),
    "label": ("request", "label", "by"),
    "erasure": ("user",),
    "export": ("file", "file_sha256"),
}
"""Kind of entry -> the fields without which it is refused."""


def now() -> str:
    """The time in UTC to the millisecond, as `2026-11-29T20:40:00.123Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def problem(entry: Entry) -> str | None:
    """The first fault of an entry's fields; None if there is none."""
    needed = NEEDED.get(entry.get("kind", ""))
    if needed is None:
        return f"the kind is none of {', '.join(NEEDED)}"
    if missing := [field for field in needed if field not in entry]:
        return f"{', '.join(missing)} missing"
    if entry["kind"] != "rating":
        return None
    form, value = entry["form"], entry["value"]
    fits = {
        "choice": value == TIE or (type(value) is int and value >= 0),
        "thumb": value in ("up", "down"),
        "correction": isinstance(value, str),
        "undo": value is None or isinstance(value, str),
    }
    if form not in fits:
        return f"the form {form!r} is none of {', '.join(fits)}"
    return None if fits[form] else f"the value {value!r} is no {form}"
