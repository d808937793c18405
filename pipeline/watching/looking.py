"""A look at a served model: its newest requests beside the reference, late labels and ratings, and a verdict.

    quiet      no evidence
    warning    inputs, or the answers to them, are distributed otherwise than in the reference; it may cost nothing
    alarm      accuracy by labels, accepted answers by ratings, or the loss of a text model have become worse

Inputs and quality share the rate of false alarms equally where both can be tested; evidence of quality alone asks for
a retraining.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline import config
from pipeline.errors import UserError
from pipeline.paths import OBSERVATIONS, WATCH
from pipeline.seeds import seed_for
from pipeline.watching import drift, quality, reference, spending
from pipeline.watching.champion import Champion, folder_of
from pipeline.watching.drift import Statistic
from pipeline.watching.evidence import Evidence, of_journal
from pipeline.watching.observations import Observation, Vocabulary, read, timestamp
from pipeline.watching.quality import Judged, Missing, Quality
from pipeline.watching.reference import Reference
from pipeline.watching.state import State, locked
from pipeline.watching.vocabulary import folded_words

WINDOW = 500
"""Requests of a look."""
_OLDEST = timedelta(days=90)
_NEW = 5  # a look needs a fifth of its window anew: it would spend the rate on the same requests
_NEW_JUDGED = 20  # or so many labels or ratings
Verdict = Literal["quiet", "warning", "alarm"]


@dataclass(frozen=True)
class Look:
    """The result of a look."""

    model: str
    model_sha256: str
    number: int
    """Of the look, from 1."""
    time: str
    verdict: Verdict
    evidence: tuple[Literal["input", "quality"], ...]
    """Significant in this look."""
    episode: str | None
    """Id of the episode of the verdict; None while quiet."""
    new: bool
    """Whether the episode was not announced yet (`announced`)."""
    fresh: bool
    """Whether this call has tested; else too little is new, and the last look is returned."""
    requests: int
    """Requests of the window."""
    from_time: str
    until_time: str
    reference: dict[str, Any]
    """source, observations, right, judged."""
    level: float
    """Error rate that the look has spent."""
    statistics: tuple[Statistic, ...]
    """Of inputs and answers."""
    quality: tuple[Quality, ...]
    missing: tuple[Missing, ...]
    """Measures of quality without enough evidence."""

    def plain(self) -> dict[str, Any]:
        """The look as JSON."""
        return asdict(self)

    @classmethod
    def of_plain(cls, content: Mapping[str, Any], **changes: Any) -> "Look":
        """The look of `plain`, with changed fields."""
        parts = {"statistics": Statistic, "quality": Quality, "missing": Missing}
        read = {name: tuple(kind(**row) for row in content[name]) for name, kind in parts.items()}
        return cls(**{**content, **read, "evidence": tuple(content["evidence"]), **changes})


def look(model: str, *, window: int = WINDOW, evidence: Evidence | None = None, now: datetime | None = None) -> Look:
    """Looks at a model's newest requests and writes the state of its watch.

    Args:
        model: name of the served model.
        window: requests to compare with the reference, at least 30.
        evidence: None: of the journal in the working folder.
        now: the time; None: the present.

    Raises:
        UserError: no request of this model was observed, its folder is not here, or a damaged file.
    """
    if window < drift.FEWEST:
        raise UserError(f"--window is {window}; expected at least {drift.FEWEST} requests")
    moment, folder = now or datetime.now(UTC), WATCH / model
    since = timestamp(moment - _OLDEST)
    if next(read(OBSERVATIONS, model, since), None) is None:  # before a folder is made of a mistyped name
        raise UserError(
            f"{OBSERVATIONS}: no request to {model} of the last 90 days; serve it (tohum serve {model}), or name "
            f"one of: {', '.join(sorted({one.model for one in read(OBSERVATIONS)})) or 'none yet'}"
        )
    with locked(folder):
        observed = list(read(OBSERVATIONS, model, since))
        state = State.read(folder)
        sha256 = _watched(state, observed)
        observed = [one for one in observed if (one.model_sha256 or "") == sha256]
        known = of_journal() if evidence is None else evidence
        judged = {
            "labels": quality.labelled(observed, known.labels, known.answers),
            "ratings": quality.rated(observed, known.ratings),
        }
        if not _has_news(state, sha256, observed, judged, window):
            return _last(state, model, len(observed))
        champion = Champion(folder_of(model, sha256), config.load().compute)
        base = _reference(folder, champion, sha256, observed, window)
        return _looked(state, base, champion, (observed, known, judged), (model, window, moment, folder))


def announced(model: str, episode: str | None) -> None:
    """Notes that people or a flow were told of an episode: later looks do not report it as new."""
    if episode is None:
        return
    with locked(WATCH / model):
        state = State.read(WATCH / model)
        for one in state.episodes:
            one.announced = one.announced or one.id == episode
        state.write(WATCH / model)


def accept(model: str, *, window: int = WINDOW) -> int:
    """Makes the newest requests the reference of inputs, as the normal state from now on; ends an open warning.

    The reviewed accuracy stays, so that worse answers still alarm.

    Returns:
        The number of requests.

    Raises:
        UserError: the watch has no reference of this model yet, or there are too few requests.
    """
    folder, moment = WATCH / model, datetime.now(UTC)
    if next(read(OBSERVATIONS, model), None) is None:
        raise UserError(f"{OBSERVATIONS}: no request to {model}; serve it (tohum serve {model})")
    with locked(folder):
        state = State.read(folder)
        base = Reference.read(folder, state.model_sha256)
        observed = [one for one in read(OBSERVATIONS, model) if (one.model_sha256 or "") == state.model_sha256][
            -window:
        ]
        if base is None or len(observed) < reference.FEWEST:
            raise UserError(
                f"{model}: {len(observed)} requests since the model is served, {reference.FEWEST} are needed; look at "
                f"it first (tohum watch {model})"
            )
        replace(base, source="requests", observations=tuple(observed)).write(folder)
        for episode in state.episodes:
            if episode.kind == "warning":
                episode.ended = episode.ended or timestamp(moment)
        state.seen = observed[-1].time
        state.write(folder)
    return len(observed)


def _watched(state: State, observed: Sequence[Observation]) -> str:
    """Hash of the model to look at: of the newest request, but the last look's while it still answers.

    Another version may be served beside it; were the watch to change at each of its requests, every look would begin a
    new period with a new rate of false alarms, and end its episodes.
    """
    newest = [one.model_sha256 or "" for one in observed[-drift.FEWEST :]]
    return state.model_sha256 if state.model_sha256 and state.model_sha256 in newest else newest[-1]


def _has_news(
    state: State, sha256: str, observed: Sequence[Observation], judged: Mapping[str, Sequence[Judged]], window: int
) -> bool:
    """Whether enough requests, labels or ratings are new since the last look."""
    if state.model_sha256 != sha256:
        return len(observed) >= drift.FEWEST
    fresh = sum(one.time > state.seen for one in observed)
    more = any(len(found) - state.judged.get(name, 0) >= _NEW_JUDGED for name, found in judged.items())
    return more or fresh >= max(drift.FEWEST, window // _NEW)


def _last(state: State, model: str, observed: int) -> Look:
    """The last look again, with its episode as it is now."""
    if not state.history or state.history[-1]["model_sha256"] != state.model_sha256 or not state.model_sha256:
        raise UserError(
            f"{model}: {observed} requests were observed since it is served; a look needs {drift.FEWEST}: wait for more"
        )
    verdict, episode = _standing(state)
    return Look.of_plain(
        state.history[-1], verdict=verdict, episode=episode and episode.id, fresh=False,
        new=episode is not None and not episode.announced,
    )  # fmt: skip


def _standing(state: State) -> tuple[Verdict, Any]:
    """The verdict and its open episode."""
    for kind in ("alarm", "warning"):
        if episode := state.open_episode(kind):
            return episode.kind, episode
    return "quiet", None


def _reference(
    folder: Path, champion: Champion, sha256: str, observed: Sequence[Observation], window: int
) -> Reference:
    """The kept reference, or a new one: of the project's records, else of the first requests.

    Raises:
        UserError: neither has enough.
    """
    base = Reference.read(folder, sha256)
    if base is None:
        base = reference.of_records(champion, sha256)
        if base is None:
            if len(observed) < window + reference.FEWEST:
                raise UserError(
                    f"{champion.folder.name}: the project has fewer than {reference.FEWEST} held-out records, so its "
                    f"first {window} requests become the reference; {len(observed)} of {window + reference.FEWEST} are "
                    "there: wait for more, or run the watch in the project that trained the model"
                )
            base = Reference(sha256, "requests", tuple(observed[:window]), Vocabulary(()))
        base.write(folder)
    return base


def _looked(
    state: State,
    base: Reference,
    champion: Champion,
    found: tuple[Sequence[Observation], Evidence, Mapping[str, Sequence[Judged]]],
    asked: tuple[str, int, datetime, Path],
) -> Look:
    """Tests, advances the episodes and writes the state."""
    observed, known, judged = found
    model, window, moment, folder = asked
    sha256 = base.model_sha256
    level = spending.level(state.begin(sha256, moment))
    generator = np.random.default_rng(seed_for(1, "watch", sha256, state.looks))
    # of a reference of requests, those that it was made of are no later requests
    own = {(one.time, one.request) for one in base.observations} if base.source == "requests" else set()
    newest = [one for one in observed if (one.time, one.request) not in own][-window:]
    measured = completed(newest, known.texts, champion, base.vocabulary)
    of_quality = [
        quality.of_labels(judged["labels"], base, window),
        quality.of_ratings(judged["ratings"], window),
        quality.of_loss(measured, base, level / 6, generator) if champion.generates else Missing("loss", 0, 0),
    ]
    there = [one for one in of_quality if isinstance(one, Quality)]
    part = level / 2 if there else level
    names = [name for name in (*drift.NUMBERS, *drift.CATEGORIES) if name != "nats_per_token"]
    inputs = drift.compare(base.observations, measured, part, generator, names)
    decided = quality.decided(there, part)
    worse = [one.name for one in decided if one.worse]
    drifted = list(dict.fromkeys(one.name for one in inputs.statistics if one.drifted))
    state.advance("warning", list(drifted), inputs.p_value if inputs.statistics else None, moment)
    state.advance("alarm", list(worse), min((one.p_value for one in decided), default=None), moment)
    verdict, episode = _standing(state)
    result = Look(
        model=model, model_sha256=sha256, number=state.looks, time=timestamp(moment), verdict=verdict,
        evidence=(*(("input",) if drifted else ()), *(("quality",) if worse else ())),
        episode=episode and episode.id, new=episode is not None and not episode.announced, fresh=True,
        requests=len(measured), from_time=measured[0].time if measured else "",
        until_time=measured[-1].time if measured else "",
        reference={"source": base.source, "observations": len(base.observations), "right": base.right,
                   "judged": base.judged},
        level=level, statistics=inputs.statistics, quality=tuple(decided),
        missing=tuple(one for one in of_quality if isinstance(one, Missing)),
    )  # fmt: skip
    state.seen = max(state.seen, observed[-1].time)
    state.judged = {name: len(rows) for name, rows in judged.items()}
    state.history.append(result.plain())
    state.write(folder)
    return result


def completed(
    window: Sequence[Observation], texts: Mapping[str, str], champion: Champion, vocabulary: Vocabulary
) -> list[Observation]:
    """The observations with loss, distance and unknown words of the consented ones, whose texts the journal has."""
    made = list(window)
    there = [i for i, one in enumerate(window) if one.request in texts]
    if not there:
        return made
    asked = [texts[window[i].request] for i in there]
    nats = champion.nats(asked) if champion.generates else [None] * len(asked)
    centred = vocabulary.centre is not None
    vectors: Iterable[Any] = champion.embeddings(asked) if centred else [None] * len(asked)
    for i, text, loss, vector in zip(there, asked, nats, vectors, strict=True):
        one = window[i]
        known: dict[str, Any] = {
            "nats_per_token": loss,
            "distance": None if vector is None else vocabulary.distance(vector),
            "unknown_words": vocabulary.unknown(folded_words(text)) if vocabulary.words else None,
        }
        made[i] = replace(one, **{key: value for key, value in known.items() if getattr(one, key) is None})
    return made
