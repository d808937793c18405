"""Row log of a source: accepted rows are counted, rejected rows logged with file, line and reason.

Readers call `accept` and `reject`; the collector counts the rows that it wrote and compares, so no row can be lost
without an entry.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.recipe import Kind

_HELD = 4096  # rejected rows held in memory before they go to the sink
_DETAIL = 300  # characters of a detail


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One rejected row: `line` is 1-based (a row number where the format has no lines), null if unknown."""

    source: str
    kind: Kind
    file: str
    line: int | None
    reason: str
    detail: str


@dataclass
class RowLog:
    """Row counts of one source; rejected rows go to `sink` in order, a few thousand at a time."""

    source: str
    sink: Callable[[list[RejectedRow]], None] = lambda _: None
    accepted: Counter[Kind] = field(default_factory=Counter)
    reasons: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    """Rejected rows per kind and reason."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Facts that are known once the source was read, added to its entry of provenance.json."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the source for the person who started the stage."""
    _held: list[RejectedRow] = field(default_factory=list)

    def accept(self, kind: Kind, n: int = 1) -> None:
        """Counts `n` rows of this kind that the reader passes on."""
        self.accepted[kind] += n

    def reject(self, kind: Kind, file: str, line: int | None, reason: str, detail: str = "") -> None:
        """Logs a row that the reader drops.

        Args:
            kind: the record kind that the row should have been.
            file: as `origin` calls it.
            line: 1-based, null if unknown.
            reason: a short code, such as null or too_large.
            detail: value found and value expected.
        """
        self.reasons[kind, reason] += 1
        self._held.append(RejectedRow(self.source, kind, file, line, reason, detail[:_DETAIL]))
        if len(self._held) >= _HELD:
            self.flush()

    def rejected(self, kind: Kind) -> int:
        """Number of rejected rows of this kind."""
        return sum(n for (row_kind, _), n in self.reasons.items() if row_kind == kind)

    def flush(self) -> None:
        """Passes the rows in memory to the sink."""
        if self._held:
            self.sink(self._held)
            self._held = []
