"""A weighted grammar with three interpreters: sample a text, score a text exactly, enumerate every text.

A grammar is a tree (or a shared, acyclic graph) of four combinators:

- `Text(value)`: a literal;
- `Choice(options, weights)`: one of several nodes;
- `Sequence(parts)`: one node after the other;
- `Let(values, body, weights)`: draws a latent value, then derives `body(value)`; the text need not show the
  value.

`sample` draws a derivation. `log2p` is log2 of the sum over *all* derivations of a text: latents are summed
out, ambiguity counts every way, by a parser that goes from left to right and remembers what each choice can
cover from each position (chart parsing restricted to acyclic grammars; Stolcke 1995, "An efficient
probabilistic context-free parsing algorithm that computes prefix probabilities", section 4, without
prefixes). `enumerate_texts` spells a tiny grammar out: it shares no code with the parser and is the oracle in
its tests.
"""

import math
import random
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Many
from itertools import accumulate
from typing import TypeVar

V = TypeVar("V")

Ends = list[tuple[int, float]]
"""Where a node can end when it starts at one position, each with its log2 probability; ends are distinct."""
Memo = dict[tuple[int, int], Ends]

# Prefix lengths a choice dispatches on: few enough to try all, fine enough to tell templates apart.
_CUTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_MAX_LEADS = 256
# A lead this long tells enough; it is not continued into the next part.
_LONG_LEAD = 6
_SLOT = re.compile(r"\{([\w.]+)\}")


class Node:
    """A part of a grammar. Nodes are compared by identity and never change."""

    def sample(self, rng: random.Random, out: list[str]) -> None:
        """Appends the pieces of one random derivation to `out`."""
        raise NotImplementedError

    def ends(self, text: str, start: int, memo: Memo) -> Ends:
        """All positions where a derivation that starts at `start` can end."""
        raise NotImplementedError

    def texts(self) -> dict[str, float]:
        """Every text of this node with its probability."""
        raise NotImplementedError

    def leads(self) -> frozenset[tuple[str, bool]]:
        """Strings of which every derivation begins with one; the flag says whether it is the whole
        derivation.
        """
        raise NotImplementedError


class Text(Node):
    """A literal string; may be empty."""

    def __init__(self, value: str) -> None:
        self.value = value

    def sample(self, rng: random.Random, out: list[str]) -> None:
        out.append(self.value)

    def ends(self, text: str, start: int, memo: Memo) -> Ends:
        return [(start + len(self.value), 0.0)] if text.startswith(self.value, start) else []

    def texts(self) -> dict[str, float]:
        return {self.value: 1.0}

    def leads(self) -> frozenset[tuple[str, bool]]:
        return frozenset({(self.value, True)})


class Choice(Node):
    """One of `options`, by `weights` (positive, any sum; None: equal)."""

    def __init__(self, options: Iterable[Node | str], weights: Iterable[float] | None = None) -> None:
        self.options = tuple(node(option) for option in options)
        given = tuple(weights) if weights is not None else (1.0,) * len(self.options)
        assert len(given) == len(self.options) > 0, "a choice needs one weight per option"
        assert min(given) > 0, "a choice needs positive weights"
        total = math.fsum(given)
        self.shares = tuple(weight / total for weight in given)
        self._upto = tuple(accumulate(self.shares))
        self._log2 = tuple(math.log2(share) for share in self.shares)
        self._table: list[tuple[int, dict[str, list[int]]]] | None = None
        self._leads: frozenset[tuple[str, bool]] | None = None
        self._literal = self._literal_table()

    def _literal_table(self) -> list[tuple[int, dict[str, float]]] | None:
        """Where every option is a literal: length -> text -> log2 probability; no option is then parsed at
        all.
        """
        table: dict[int, dict[str, float]] = {}
        for option, log2 in zip(self.options, self._log2, strict=True):
            if not isinstance(option, Text):
                return None
            row = table.setdefault(len(option.value), {})
            row[option.value] = _add(row[option.value], log2) if option.value in row else log2
        return sorted(table.items())

    def sample(self, rng: random.Random, out: list[str]) -> None:
        # min: the last partial sum may round to just below 1
        index = min(bisect_right(self._upto, rng.random()), len(self.options) - 1)
        self.options[index].sample(rng, out)

    def ends(self, text: str, start: int, memo: Memo) -> Ends:
        if self._literal is not None:
            return [(start + n, row[piece]) for n, row in self._literal if (piece := text[start : start + n]) in row]
        key = (id(self), start)
        if (known := memo.get(key)) is not None:
            return known
        ways = [
            (end, log2 + self._log2[index])
            for index in self._candidates(text, start)
            for end, log2 in self.options[index].ends(text, start, memo)
        ]
        memo[key] = merged = _merged(ways)
        return merged

    def _candidates(self, text: str, start: int) -> Iterable[int]:
        """Options whose leading literals agree with the text; each once, though several leads may agree."""
        if self._table is None:
            self._table = self._dispatch()
        found: dict[int, None] = {}
        for cut, row in self._table:
            for index in row.get(text[start : start + cut], ()):
                found[index] = None
        return found

    def _dispatch(self) -> list[tuple[int, dict[str, list[int]]]]:
        table: dict[int, dict[str, list[int]]] = {}
        for index, option in enumerate(self.options):
            for lead, _ in sorted(option.leads()):
                cut = _CUTS[bisect_right(_CUTS, len(lead)) - 1]
                table.setdefault(cut, {}).setdefault(lead[:cut], []).append(index)
        return sorted(table.items())

    def texts(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for option, share in zip(self.options, self.shares, strict=True):
            for text, p in option.texts().items():
                found[text] = found.get(text, 0.0) + share * p
        return found

    def leads(self) -> frozenset[tuple[str, bool]]:
        if self._leads is None:
            union = frozenset[tuple[str, bool]]().union(*(option.leads() for option in self.options))
            if len(union) > _MAX_LEADS:
                union = frozenset((lead[:2], False) for lead, _ in union)
            self._leads = union if len(union) <= _MAX_LEADS else frozenset({("", False)})
        return self._leads


class Let(Choice):
    """Draws one of `values` by `weights` and derives `body(value)`: a latent that the body sees and the text
    may hide.
    """

    def __init__(
        self, values: Many[V], body: Callable[[V], Node | str], weights: Iterable[float] | None = None
    ) -> None:
        super().__init__([body(value) for value in values], weights)


class Sequence(Node):
    """Its parts, one after the other."""

    def __init__(self, parts: Iterable[Node | str]) -> None:
        self.parts = tuple(node(part) for part in parts)
        self._leads: frozenset[tuple[str, bool]] | None = None

    def sample(self, rng: random.Random, out: list[str]) -> None:
        for part in self.parts:
            part.sample(rng, out)

    def ends(self, text: str, start: int, memo: Memo) -> Ends:
        ways: Ends = [(start, 0.0)]
        for part in self.parts:
            if len(ways) == 1:
                at, log2 = ways[0]
                ways = [(end, log2 + more) for end, more in part.ends(text, at, memo)]
            else:
                ways = _merged([(end, log2 + more) for at, log2 in ways for end, more in part.ends(text, at, memo)])
            if not ways:
                break
        return ways

    def texts(self) -> dict[str, float]:
        found = {"": 1.0}
        for part in self.parts:
            longer: dict[str, float] = {}
            for text, p in found.items():
                for more, q in part.texts().items():
                    longer[text + more] = longer.get(text + more, 0.0) + p * q
            found = longer
        return found

    def leads(self) -> frozenset[tuple[str, bool]]:
        if self._leads is None:
            self._leads = self._joined_leads()
        return self._leads

    def _joined_leads(self) -> frozenset[tuple[str, bool]]:
        found = {("", True)}
        for part in self.parts:
            whole = [lead for lead, complete in found if complete and len(lead) < _LONG_LEAD]
            more = part.leads() if whole else frozenset()
            if not whole or len(whole) * len(more) + len(found) > _MAX_LEADS:
                return frozenset((lead, False) for lead, _ in found)
            kept = {(lead, False) for lead, complete in found if not complete or len(lead) >= _LONG_LEAD}
            found = kept | {(lead + next_, complete) for lead in whole for next_, complete in more}
        return frozenset(found)


def node(value: Node | str) -> Node:
    """A node as it is, a string as a literal."""
    return Text(value) if isinstance(value, str) else value


def repeat(part: Node | str, counts: Mapping[int, float]) -> Node:
    """`part` as many times as a draw from `counts` (number of times -> weight) says; the number is a latent.

    Built from the longest tail backwards, so that the parser visits each repetition once, not once per
    length.
    """
    weights = {count: weight for count, weight in counts.items() if weight > 0}
    tail: Node = Text("")
    for done in range(max(weights) - 1, -1, -1):
        longer = Sequence([part, tail])
        here = weights.get(done, 0.0)
        later = math.fsum(weight for count, weight in weights.items() if count > done)
        tail = Choice(["", longer], [here, later]) if here else longer
    return tail


def template(text: str, slots: Mapping[str, Node | str]) -> Node:
    """`"{n} red {things}"` as a sequence of literals and slots; each mention of a slot is a draw of its
    own.
    """
    pieces = _SLOT.split(text)
    parts: list[Node | str] = []
    for index, piece in enumerate(pieces):
        value = slots[piece] if index % 2 else piece
        if isinstance(value, str) and parts and isinstance(parts[-1], str):
            parts[-1] += value  # neighbouring literals become one, so that leads are long and parsing is short
        elif value != "":
            parts.append(value)
    return node(parts[0]) if len(parts) == 1 else Sequence(parts)


def first_mention(text: str, prefix: str) -> tuple[str, str]:
    """Cuts a template before its first slot named `prefix` or `prefix.*`; a latent bound there is bound no
    earlier.

    What stands before does not depend on the latent, so binding it late leaves the distribution unchanged and
    lets the parser tell the value from the very next characters.
    """
    found = re.search(r"\{" + re.escape(prefix) + r"[.}]", text)
    return (text[: found.start()], text[found.start() :]) if found else (text, "")


def sample(root: Node, rng: random.Random) -> str:
    """One text, drawn with its probability."""
    out: list[str] = []
    root.sample(rng, out)
    return "".join(out)


def log2p(root: Node, text: str) -> float:
    """log2 of the text's probability, summed over all derivations; -inf for a text outside the grammar."""
    return next((log2 for end, log2 in root.ends(text, 0, {}) if end == len(text)), -math.inf)


def enumerate_texts(root: Node) -> dict[str, float]:
    """Every text with its probability; for tiny grammars."""
    return root.texts()


def _merged(ways: Ends) -> Ends:
    if len(ways) < 2:
        return ways
    best: dict[int, float] = {}
    for end, log2 in ways:
        best[end] = _add(best[end], log2) if end in best else log2
    return list(best.items())


def _add(a: float, b: float) -> float:
    """log2(2**a + 2**b)."""
    high, low = (a, b) if a >= b else (b, a)
    return high + math.log2(1.0 + 2.0 ** (low - high))
