"""Profile table of ratings: shares of raters, contradictions, and raters who vote against all others.

An item is a set of answers to a prompt; a vote is the chosen answer's text, or the thumb of an answer. A rater has one
vote an item, the last. A rater opposes if, on the items where the other raters have a majority, so many votes are
against it that a rater who votes at random would reach that with a probability below 1 % divided by the number of
raters (one-sided binomial test with Bonferroni's correction): a careless rater is at one half and is not found,
accounts that vote against a truth that the others see are. Each such rater is judged on his own, so accounts with a
few votes each are not found.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.records import PROMPT
from pipeline.data.tables import batches
from pipeline.gates._rules import Example, Frame, Tally

ALPHA = 0.01
"""Rate of false alarms over all raters of a data set."""
_BUSIEST = 20
"""The busiest raters are one in so many."""
COLUMNS = (
    "ratings", "raters", "rater_share", "top_share", "self_contradictions", "self_contradiction_share", "compared",
    "against", "against_share", "opposing_raters",
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

    def compared(self) -> Iterator[tuple[str, bool]]:
        """Rater, and whether the vote is against the majority of the other raters, for each vote that has one."""
        for votes in self.last.values():
            counts = Counter(votes.values())
            for rater, value in votes.items():
                others = counts.copy()
                others[value] -= 1
                ranked = others.most_common(2)
                if ranked[0][1] > (ranked[1][1] if len(ranked) > 1 else 0):
                    yield rater, ranked[0][0] != value


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
    judged, against = Counter[str](), Counter[str]()
    for rater, is_against in votes.compared():
        judged[rater] += 1
        against[rater] += is_against
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


def _vote(row: Mapping[str, Any]) -> tuple[Item, str] | None:
    """Item and vote of a rating; None for a tie or a correction."""
    form, _, value = row["verdict"].partition(":")
    answers = json.loads(row["answers"])
    if form == "thumb":
        return (row[PROMPT], form, *answers), value
    if form == "choice" and value != "tie":
        return (row[PROMPT], form, *sorted(answers)), answers[int(value)]
    return None
