"""The ledger of a source: every row that came in was kept, left out by the mixture weight, or rejected with a
reason.

Readers call `accept` and `reject`; the collector counts what it wrote and checks that the two agree, so no
row can be lost without a line that says which, where and why.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.config.recipe import Kind

_HELD = 4096  # rejections held in memory before they go to the sink
_DETAIL = 300


@dataclass(frozen=True, slots=True)
class Rejection:
    """One row that was not kept: `line` is 1-based (a row number where the format has no lines), null if
    unknown."""

    source: str
    kind: Kind
    file: str
    line: int | None
    reason: str
    detail: str


@dataclass
class Ledger:
    """Counts of one source; rejections go to `sink` in the order they were found, a few thousand at a
    time."""

    source: str
    sink: Callable[[list[Rejection]], None] = lambda rejections: None
    accepted: Counter[Kind] = field(default_factory=Counter)
    reasons: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    _held: list[Rejection] = field(default_factory=list)

    def accept(self, kind: Kind, n: int = 1) -> None:
        """The reader hands on `n` rows of this kind."""
        self.accepted[kind] += n

    def reject(self, kind: Kind, file: str, line: int | None, reason: str, detail: str = "") -> None:
        """One row is not handed on; `reason` is a short code, `detail` says what was found and expected."""
        self.reasons[kind, reason] += 1
        self._held.append(Rejection(self.source, kind, file, line, reason, detail[:_DETAIL]))
        if len(self._held) >= _HELD:
            self.flush()

    def rejected(self, kind: Kind) -> int:
        """How many rows of this kind were rejected."""
        return sum(n for (of, _), n in self.reasons.items() if of == kind)

    def flush(self) -> None:
        """Passes what is held to the sink."""
        if self._held:
            self.sink(self._held)
            self._held = []
