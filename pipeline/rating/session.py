"""A round of ratings: prompts in their order, a pair and a decision each, until enough are rated."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.inference.answers import Sampling
from pipeline.rating.deciding import Decider, Decision
from pipeline.rating.pairs import Judged, Model, Pair
from pipeline.rating.prompts import Asked
from pipeline.rating.ratings_file import RatingsFile


@dataclass(frozen=True)
class Settings:
    """Of a round."""

    count: int
    """Ratings, those of earlier sessions included."""
    sampling: Sampling
    seed: int
    judged: frozenset[Judged] = frozenset()
    """Pairs that were judged already."""


@dataclass(frozen=True)
class Outcome:
    """The state of a round when a session ends."""

    rated: int
    choices: int
    ties: int
    corrections: int
    skipped: int
    """Of this session; they are asked again in the next one."""
    equal: int
    """Prompts of this session whose answers were all equal, broken or judged before, or had no room."""
    ended: str
    """complete, quit, or prompts (no further prompt is left)."""


class Session:
    """One sitting; `run` it once."""

    def __init__(
        self, model: Model, prompts: tuple[Asked, ...], file: RatingsFile, decider: Decider, settings: Settings
    ) -> None:
        self._model, self._file, self._decider, self._settings = model, file, decider, settings
        self._prompts = prompts
        self._ids = [file.request_id(asked, settings.seed) for asked in prompts]
        places = {identity: place for place, identity in enumerate(self._ids)}
        self._given = [places[identity] for identity in file.ratings if identity in places]
        """Places of decisions in their order, the latest last: what `undo` takes back."""
        self._skipped: set[int] = set()
        self._equal: set[int] = set()
        self._drawn: dict[int, Pair | None] = {}

    def run(self) -> Outcome:
        """Asks until `count` prompts are rated, the person quits, or no prompt is left.

        Raises:
            UserError: a rating that cannot be kept, or a function that fails; the ratings before it are kept.
        """
        count = self._settings.count
        while len(self._file.ratings) < count:
            place = next(self._open(), None)
            if place is None:
                return self._outcome("prompts")
            pair = self._pair(place)
            if pair is None:
                self._equal.add(place)
                continue
            if (ended := self._decided(place, pair)) is not None:
                return ended
        return self._outcome("complete")

    def _decided(self, place: int, pair: Pair) -> Outcome | None:
        """Takes the decision on a pair; the outcome where it ends the session."""
        decision = self._decider.decide(pair, len(self._file.ratings) + 1, self._settings.count)
        if decision.action == "quit":
            return self._outcome("quit")
        if decision.action == "undo":
            self._undo()
            return None
        self._given.append(place)
        if decision.action == "skip":
            self._skipped.add(place)
        else:
            self._rate(place, pair, decision)
        return None

    def _rate(self, place: int, pair: Pair, decision: Decision) -> None:
        assert decision.value is not None
        self._file.add(self._ids[place], pair, decision.action, decision.value)

    def _undo(self) -> None:
        """Takes the latest decision back, of an earlier session too; its prompt is the next one."""
        if not self._given:
            return
        place = self._given.pop()
        if place in self._skipped:
            self._skipped.remove(place)
        else:
            self._file.take_back(self._ids[place])

    def _open(self) -> Iterator[int]:
        """Places of prompts without a decision, in order."""
        for place, identity in enumerate(self._ids):
            if identity not in self._file.ratings and place not in self._skipped and place not in self._equal:
                yield place

    def _pair(self, place: int) -> Pair | None:
        """The pair of a prompt; draws those of the next open prompts with it."""
        if place not in self._drawn:
            self._drawn.clear()
            missing = self._settings.count - len(self._file.ratings)
            ahead = max(1, min(self._decider.ahead, missing))
            places = [place]
            for other in self._open():
                if len(places) >= ahead:
                    break
                if other > place:
                    places.append(other)
            settings = self._settings
            asked = [self._prompts[one] for one in places]
            pairs = self._model.draw(asked, settings.sampling, settings.seed, settings.judged)
            self._drawn = dict(zip(places, pairs, strict=True))
        return self._drawn[place]

    def _outcome(self, ended: str) -> Outcome:
        ratings = list(self._file.ratings.values())
        choices = [rating["value"] for rating in ratings if rating["form"] == "choice"]
        ties = sum(value == "tie" for value in choices)
        corrections = sum(rating["form"] == "correction" for rating in ratings)
        return Outcome(
            len(ratings), len(choices) - ties, ties, corrections, len(self._skipped), len(self._equal), ended
        )
