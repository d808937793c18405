"""A probabilistic grammar with three interpreters: sampling, exact scoring and enumeration of texts.

A grammar is a tree (or an acyclic graph with shared nodes) of four combinators:

- `Text(value)`: a literal;
- `Choice(options, weights)`: one of several nodes;
- `Sequence(parts)`: concatenation;
- `Let(values, body, weights)`: draws a latent value, then derives `body(value)`; the text may not show the value.

`sample` draws a derivation. `log2p` is log2 of the sum over *all* derivations of a text (latents and ambiguities are
summed out), by a chart parser from left to right with memoisation per choice and position (Stolcke 1995, "An efficient
probabilistic context-free parsing algorithm that computes prefix probabilities", section 4, without prefixes; here
restricted to acyclic grammars). `enumerate_texts` lists all texts of a tiny grammar; it shares no code with the parser
and is the oracle in its tests.
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
"""End positions of a node's derivations from one start, distinct, each with its log2 probability."""
Memo = dict[tuple[int, int], Ends]

# Prefix lengths by which a choice selects options: few enough to try all, enough to tell templates apart.
_CUTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_MAX_LEADS = 256
# A lead of this length is not extended by the next part.
_LONG_LEAD = 6
_SLOT = re.compile(r"\{([\w.]+)\}")


class Node:
    """A node of a grammar; immutable, compared by identity."""

    def sample(self, rng: random.Random, out: list[str]) -> None:
        """Appends the pieces of one random derivation to `out`."""
        raise NotImplementedError

    def ends(self, text: str, start: int, memo: Memo) -> Ends:
        """End positions of all derivations that begin at `start`; `memo` is kept for one text."""
        raise NotImplementedError

    def texts(self) -> dict[str, float]:
        """All texts of this node with their probabilities."""
        raise NotImplementedError

    def leads(self) -> frozenset[tuple[str, bool]]:
        """Leads: every derivation begins with one of these strings; the flag tells whether it ends there."""
        raise NotImplementedError


class Text(Node):
    """A literal string; may be empty."""

    def __init__(self, value: str) -> None:
        self.value = value

    def sample(self, _rng: random.Random, out: list[str]) -> None:
        """See Node."""
        out.append(self.value)

    def ends(self, text: str, start: int, _memo: Memo) -> Ends:
        """See Node."""
        return [(start + len(self.value), 0.0)] if text.startswith(self.value, start) else []

    def texts(self) -> dict[str, float]:
        """See Node."""
        return {self.value: 1.0}

    def leads(self) -> frozenset[tuple[str, bool]]:
        """See Node."""
        return frozenset({(self.value, True)})


class Choice(Node):
    """One of `options`, by `weights` (positive, any sum; None: equal)."""

    def __init__(self, options: Iterable[Node | str], weights: Iterable[float] | None = None) -> None:
        self.options = tuple(node(option) for option in options)
        sizes = tuple(weights) if weights is not None else (1.0,) * len(self.options)
        assert len(sizes) == len(self.options) > 0, "a choice needs one weight per option"
        assert min(sizes) > 0, "a choice needs positive weights"
        total = math.fsum(sizes)
        self.shares = tuple(weight / total for weight in sizes)
        self._upto = tuple(accumulate(self.shares))
        self._log2 = tuple(math.log2(share) for share in self.shares)
        self._table: list[tuple[int, dict[str, list[int]]]] | None = None
        self._leads: frozenset[tuple[str, bool]] | None = None
        self._literal = self._literal_table()

    def _literal_table(self) -> list[tuple[int, dict[str, float]]] | None:
        """Length -> text -> log2 probability, where all options are literals, which need no parser; else None."""
        table: dict[int, dict[str, float]] = {}
        for option, log2 in zip(self.options, self._log2, strict=True):
            if not isinstance(option, Text):
                return None
            row = table.setdefault(len(option.value), {})
            row[option.value] = _add(row[option.value], log2) if option.value in row else log2
        return sorted(table.items())

    def sample(self, rng: random.Random, out: list[str]) -> None:
        """See Node."""
        # min: the last partial sum may round to just below 1
        index = min(bisect_right(self._upto, rng.random()), len(self.options) - 1)
        self.options[index].sample(rng, out)

    def ends(self, text: str, start: int, memo: Memo) -> Ends:
        """See Node."""
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
        """Indices of the options with a lead that the text has at `start`, each once."""
        if self._table is None:
            self._table = self._dispatch()
        matching: dict[int, None] = {}
        for cut, row in self._table:
            for index in row.get(text[start : start + cut], ()):
                matching[index] = None
        return matching

    def _dispatch(self) -> list[tuple[int, dict[str, list[int]]]]:
        table: dict[int, dict[str, list[int]]] = {}
        for index, option in enumerate(self.options):
            for lead, _ in sorted(option.leads()):
                cut = _CUTS[bisect_right(_CUTS, len(lead)) - 1]
                table.setdefault(cut, {}).setdefault(lead[:cut], []).append(index)
        return sorted(table.items())

    def texts(self) -> dict[str, float]:
        """See Node."""
        texts: dict[str, float] = {}
        for option, share in zip(self.options, self.shares, strict=True):
            for text, p in option.texts().items():
                texts[text] = texts.get(text, 0.0) + share * p
        return texts

    def leads(self) -> frozenset[tuple[str, bool]]:
        """See Node."""
        if self._leads is None:
            union = frozenset[tuple[str, bool]]().union(*(option.leads() for option in self.options))
            if len(union) > _MAX_LEADS:
                union = frozenset((lead[:2], False) for lead, _ in union)
            self._leads = union if len(union) <= _MAX_LEADS else frozenset({("", False)})
        return self._leads


class Let(Choice):
    """Draws one of `values` by `weights` and derives `body(value)`: a latent variable of the text."""

    def __init__(
        self, values: Many[V], body: Callable[[V], Node | str], weights: Iterable[float] | None = None
    ) -> None:
        super().__init__([body(value) for value in values], weights)


class Sequence(Node):
    """Concatenation of its parts."""

    def __init__(self, parts: Iterable[Node | str]) -> None:
        self.parts = tuple(node(part) for part in parts)
        self._leads: frozenset[tuple[str, bool]] | None = None

    def sample(self, rng: random.Random, out: list[str]) -> None:
        """See Node."""
        for part in self.parts:
            part.sample(rng, out)

    def ends(self, text: str, start: int, memo: Memo) -> Ends:
        """See Node."""
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
        """See Node."""
        texts = {"": 1.0}
        for part in self.parts:
            longer: dict[str, float] = {}
            for text, p in texts.items():
                for more, q in part.texts().items():
                    longer[text + more] = longer.get(text + more, 0.0) + p * q
            texts = longer
        return texts

    def leads(self) -> frozenset[tuple[str, bool]]:
        """See Node."""
        if self._leads is None:
            self._leads = self._joined_leads()
        return self._leads

    def _joined_leads(self) -> frozenset[tuple[str, bool]]:
        leads = {("", True)}
        for part in self.parts:
            whole = [lead for lead, complete in leads if complete and len(lead) < _LONG_LEAD]
            more = part.leads() if whole else frozenset()
            if not whole or len(whole) * len(more) + len(leads) > _MAX_LEADS:
                return frozenset((lead, False) for lead, _ in leads)
            kept = {(lead, False) for lead, complete in leads if not complete or len(lead) >= _LONG_LEAD}
            leads = kept | {(lead + next_, complete) for lead in whole for next_, complete in more}
        return frozenset(leads)


def node(value: Node | str) -> Node:
    """The node itself; a string as a literal."""
    return Text(value) if isinstance(value, str) else value


def repeat(part: Node | str, counts: Mapping[int, float]) -> Node:
    """`part` repeated; the number of times is a latent drawn from `counts` (number of times -> weight).

    Built from the longest tail backwards, so that the parser visits each repetition once, not once per length.
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
    """A template such as `"{n} red {things}"` as a sequence; each occurrence of a slot is drawn independently."""
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
    """A template cut before its first slot named `prefix` or `prefix.*`: the place to bind a latent.

    The text before does not depend on the latent, so late binding leaves the distribution unchanged and lets the parser
    decide the value by the very next characters.
    """
    match = re.search(r"\{" + re.escape(prefix) + r"[.}]", text)
    return (text[: match.start()], text[match.start() :]) if match else (text, "")


def sample(root: Node, rng: random.Random) -> str:
    """A random text."""
    out: list[str] = []
    root.sample(rng, out)
    return "".join(out)


def log2p(root: Node, text: str) -> float:
    """log2 of a text's probability, summed over all derivations; -inf for a text outside the grammar."""
    return next((log2 for end, log2 in root.ends(text, 0, {}) if end == len(text)), -math.inf)


def enumerate_texts(root: Node) -> dict[str, float]:
    """All texts with their probabilities; for tiny grammars."""
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
