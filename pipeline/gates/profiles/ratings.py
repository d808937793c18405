"""Profile table of ratings: shares of raters, contradictions, and raters who vote against all others.

An item is a set of answers to a prompt; a vote is the chosen answer's text, or the thumb of an answer. A rater has one
vote an item, the last. A rater opposes if, on the items where the other raters have a majority, so many votes are
against it that a rater who votes at random would reach that with a probability below 1 % divided by the number of
raters (one-sided binomial test with Bonferroni's correction): a careless rater is at one half and is not found,
accounts that vote against a truth that the others see are. Accounts with fewer votes each are found as a group: those
that are mostly against the others on one half of the items are judged together, an item once, on the other half, whose
votes had no part in choosing them (probability below 1 %, half of it for each half).
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipeline.data.records import PROMPT
from pipeline.data.tables import batches
from pipeline.gates._rules import Example, Frame, Tally

ALPHA = 0.01
"""Rate of false alarms over all raters of a data set."""
_FEWEST = 5
"""Votes of one half of the items from which on a rater may be of a group."""
_BUSIEST = 20
"""The busiest raters are one in so many."""
COLUMNS = (
    "ratings", "raters", "rater_share", "top_share", "self_contradictions", "self_contradiction_share", "compared",
    "against", "against_share", "opposing_raters", "opposing_group",
)  # fmt: skip
Item = tuple[str, ...]


@dataclass
class _Votes:
    """The votes of a data set."""

    given: Counter[str] = field(default_factory=Counter)
    """Rater -> ratings of any form."""
    last: dict[Item, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Item -> rater -> vote."""
    contradictions: Tally = field(default_factory=Tally)
    """Votes that differ from an earlier one of the same rater on the same item."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a rating."""
        self.given[row["rater"]] += 1
        if (vote := _vote(row)) is None:
            return
        item, value = vote
        before = self.last[item].get(row["rater"])
        if before is not None and before != value:
            self.contradictions.add(
                Example(row["id"], row["origin"], f"{row['verdict']}, the rater's other vote differs")
            )
        self.last[item][row["rater"]] = value

    def compared(self, half: int | None = None) -> Iterator[tuple[str, bool]]:
        """Rater, and whether the vote is against the majority of the other raters, for each vote that has one.

        Args:
            half: items of one half only, 0 or 1.
        """
        for item, votes in self.last.items():
            counts = Counter(votes.values())
            for rater, value in votes.items() if half in (None, _half(item)) else ():
                others = counts.copy()
                others[value] -= 1
                if (majority := _majority(others)) is not None:
                    yield rater, majority != value

    def group(self) -> set[str]:
        """Raters who together vote against the others more often than chance; empty where there is no such group."""
        found: set[str] = set()
        for half in (0, 1):
            judged, against = _counted(self.compared(half))
            group = {rater for rater, n in judged.items() if n >= _FEWEST and against[rater] > n / 2}
            sides = list(self._sides(group, 1 - half))
            if sides and at_least_by_chance(sum(sides), len(sides)) < ALPHA / 2:
                found |= group
        return found

    def _sides(self, group: set[str], half: int) -> Iterator[bool]:
        """Whether the majority of a group differs from that of all others, for each item of a half where both have
        one.
        """
        for item, votes in self.last.items():
            if _half(item) == half:
                ours = _majority(Counter(value for rater, value in votes.items() if rater in group))
                theirs = _majority(Counter(value for rater, value in votes.items() if rater not in group))
                if ours is not None and theirs is not None:
                    yield ours != theirs


def profile(share_from_raters: int, raw: Path) -> Frame:
    """Frame `ratings`, a row where data/raw has ratings.

    Args:
        share_from_raters: raters from which on shares are judged; with fewer they are 0, as one person may rate alone.
        raw: the folder data/raw.
    """
    counts = {"self_contradiction_share": "self_contradictions", "against_share": "against"}
    frame = Frame(("kind",), COLUMNS, counts=counts)
    if not (path := raw / "ratings.parquet").is_file():
        return frame
    votes = _Votes()
    for batch in batches(path, ["id", "origin", "prompt", "answers", "verdict", "rater", PROMPT]):
        for row in batch.to_pylist():
            votes.add(row)
    ratings, raters = sum(votes.given.values()), len(votes.given)
    shares = [n / ratings for _, n in votes.given.most_common(max(1, raters // _BUSIEST))]
    judged, against = _counted(votes.compared())
    n_compared, n_against = sum(judged.values()), sum(against.values())
    n_votes = sum(len(of) for of in votes.last.values()) + votes.contradictions.count
    frame.add(
        {
            "kind": "ratings",
            "ratings": ratings,
            "raters": raters,
            "rater_share": shares[0] if shares and raters >= share_from_raters else 0.0,
            "top_share": sum(shares) if raters >= max(share_from_raters, _BUSIEST) else 0.0,
            "self_contradictions": votes.contradictions,
            "self_contradiction_share": votes.contradictions.count / n_votes if n_votes else 0.0,
            "compared": n_compared,
            "against": n_against,
            "against_share": n_against / n_compared if n_compared else 0.0,
            "opposing_raters": _opposing(judged, against),
            "opposing_group": _grouped(votes.group(), judged, against),
        }
    )
    return frame


def at_least_by_chance(against: int, judged: int) -> float:
    """Probability of at least so many votes against the majority where every vote is a coin's (binomial, 1/2)."""
    logs = [
        math.lgamma(judged + 1) - math.lgamma(k + 1) - math.lgamma(judged - k + 1) - judged * math.log(2)
        for k in range(against, judged + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def _opposing(judged: Counter[str], against: Counter[str]) -> Tally:
    """The raters who vote against the others too often for chance."""
    tally = Tally()
    for rater, n in sorted(judged.items(), key=lambda one: (-against[one[0]], one[0])):
        if at_least_by_chance(against[rater], n) < ALPHA / len(judged):
            words = f"{against[rater]} of {n} votes are against the majority of the other raters"
            tally.add(Example(rater, "rater", words))
    return tally


def _grouped(group: set[str], judged: Counter[str], against: Counter[str]) -> Tally:
    tally = Tally()
    for rater in sorted(group, key=lambda one: (-against[one] / judged[one], one)):
        words = f"{against[rater]} of {judged[rater]} votes are against; one of a group, may be careless only"
        tally.add(Example(rater, "rater", words))
    return tally


def _counted(compared: Iterator[tuple[str, bool]]) -> tuple[Counter[str], Counter[str]]:
    """Votes of each rater, and those against the others."""
    judged, against = Counter[str](), Counter[str]()
    for rater, is_against in compared:
        judged[rater] += 1
        against[rater] += is_against
    return judged, against


def _majority(counts: Counter[str]) -> str | None:
    """The vote that most have given; None where there is none or two are equal."""
    ranked = counts.most_common(2)
    return ranked[0][0] if ranked and ranked[0][1] > (ranked[1][1] if len(ranked) > 1 else 0) else None


def _half(item: Item) -> int:
    return blake2b("\0".join(item).encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] & 1


def _vote(row: Mapping[str, Any]) -> tuple[Item, str] | None:
    """Item and vote of a rating; None for a tie or a correction."""
    form, _, value = row["verdict"].partition(":")
    answers = json.loads(row["answers"])
    if form == "thumb":
        return (row[PROMPT], form, *answers), value
    if form == "choice" and value != "tie":
        return (row[PROMPT], form, *sorted(answers)), answers[int(value)]
    return None
