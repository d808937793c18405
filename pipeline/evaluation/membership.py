"""Membership inference: whether a record's loss tells that the model was trained on it.

Members are training records, non-members held-out ones of the same source; the split is a hash of the content, so both
are random halves of one population. Attackers, none of which is trained: the loss (Yeom et al. 2018), the mean log
probability of the k % least likely tokens (Min-K%, Shi et al. 2024), and the loss a byte of the zlib-compressed text
(Carlini et al. 2021, section 5.1). AUC 0.5 is chance; the true positive rate at 1 % false positives says how many
records an attacker is sure of (Carlini et al. 2022), chance is 1 %.

If a classifier of words that has never seen the model tells the halves apart, the halves differ (they are split by time
or by their source, or only one of them has planted texts), and an attacker's success says nothing about the model
(Das et al. 2024, "Blind Baselines Beat Membership Inference Attacks"): the figures are then left out, and
`membership_refused` is 1.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pipeline.config.section import Positive, Section, Share
from pipeline.data.shards import shuffled
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, by_record
from pipeline.inference.record_texts import Choice, RecordText, record_texts
from pipeline.inference.token_nats import cut, token_nats
from pipeline.outcomes import Outcomes
from pipeline.seeds import seed_for
from pipeline.significance import wilson

Floats = npt.NDArray[np.float64]
FALSE_POSITIVES = 0.01
"""False positive rate at which the true positive rate is read."""
FOLDS = 5
_DIFFER = 3.0
# Standard errors above 0.5 at which the word classifier's AUC counts as telling the halves apart: by chance 0.13 %.
_Z = 1.959963984540054


class Settings(Section):
    """Records, attackers and batch size."""

    kind: Literal["documents", "instructions"] = Field(examples=["documents", "instructions"])
    """Record kind: the loss of whole documents, or of the answers of instructions after their questions."""
    split: Literal["validation", "test"] = Field(examples=["test"])
    """Held-out split, whose records are the non-members."""
    source: str | None = Field(examples=[None])
    """Only records of this source of `download.sources`; its records must be split by hash. null: of all."""
    records: Positive = Field(examples=[3])
    """Most records of each half, drawn at random."""
    least_likely: Share = Field(examples=[0.2])
    """Share of the tokens that Min-K% reads."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch."""
    seed: int = Field(examples=[1])
    """Seed of the draw and of the word classifier's folds."""


class Auc(NamedTuple):
    """Area under the ROC curve with its 95 % interval."""

    value: float
    low: float
    high: float
    by_member: Floats
    """For each member the share of non-members with a lower score; their mean is the area."""

    @property
    def error(self) -> float:
        """Standard error."""
        return (self.high - self.low) / (2 * _Z)


def measure(settings: Settings, subject: Subject) -> Measured:
    """membership_auc with _low and _high and membership_tpr with its interval (the loss attacker, true positives at 1 %
    false positives), the same for attackers _min_k and _zlib, membership_words_auc (the word classifier), members and
    non-members, membership_refused; details: the reason where it is refused.

    Raises:
        UserError: a half has no record.
    """
    task = subject.answering("membership") if settings.kind == "instructions" else None
    choice = Choice(settings.kind, settings.source, settings.records, settings.seed)
    members, others = (
        record_texts(subject.samples, split, choice, subject.tokenizer, task) for split in ("train", settings.split)
    )
    words = words_auc([one.text for one in members], [one.text for one in others], settings.seed)
    differ = words.value > 0.5 + _DIFFER * words.error
    metrics = {
        "membership_words_auc": words.value,
        "membership_refused": float(differ),
        "members": float(len(members)),
        "non_members": float(len(others)),
    }
    if differ:
        return Measured(
            metrics,
            {
                "refused": f"a classifier of words tells training from {settings.split} records with an AUC of "
                f"{words.value:.3f} (95 % interval {words.low:.3f} to {words.high:.3f}): the halves differ, and the "
                "figures would measure that; name a source whose records the hash splits (membership.source)"
            },
        )
    by_attacker = attacks(settings, subject, members, others)
    for name, (inside, outside) in by_attacker.items():
        suffix = "" if name == "loss" else f"_{name}"
        area, rate = auc(inside, outside), true_positives(inside, outside)
        low, high = wilson(rate, len(inside))
        metrics |= {
            f"membership_auc{suffix}": area.value,
            f"membership_auc{suffix}_low": area.low,
            f"membership_auc{suffix}_high": area.high,
            f"membership_tpr{suffix}": rate,
            f"membership_tpr{suffix}_low": low,
            f"membership_tpr{suffix}_high": high,
        }
    placed = list(auc(*by_attacker["loss"]).by_member)
    outcomes = Outcomes("membership_auc", [one.record for one in members], placed)
    return Measured(metrics, {"by_record": by_record(placed)}, (outcomes,))


def attacks(
    settings: Settings, subject: Subject, members: Sequence[RecordText], others: Sequence[RecordText]
) -> dict[str, tuple[Floats, Floats]]:
    """Attacker -> scores of the members and of the non-members; a higher score says member."""
    both = [*members, *others]
    nats = token_nats(subject.model, [one.ids for one in both], settings.batch_size, subject.compute)
    room = subject.model.room()
    scores: dict[str, list[float]] = {"loss": [], "min_k": [], "zlib": []}
    for one, losses in zip(both, nats, strict=True):
        if not len(losses):
            losses = np.zeros(1)
        if not np.isfinite(losses).all():
            raise UserError(f"{subject.name}: the loss of record {one.record['id']} is not finite; the model is broken")
        least = np.sort(losses)[-max(1, math.ceil(settings.least_likely * len(losses))) :]
        read = subject.tokenizer.decode(list(cut(one.ids, room).scored)).encode("utf-8", "surrogatepass")
        scores["loss"].append(-float(losses.mean()))
        scores["min_k"].append(-float(least.mean()))
        scores["zlib"].append(-float(losses.sum()) / len(zlib.compress(read, 9)))
    n = len(members)
    return {name: (np.array(values[:n]), np.array(values[n:])) for name, values in scores.items()}


def auc(inside: Floats, outside: Floats) -> Auc:
    """Area under the ROC curve of scores of members and non-members, ties half, with DeLong's 95 % interval.

    DeLong, DeLong, Clarke-Pearson 1988, equations 3 to 6: the variance is that of the placements. With no or all pairs
    in order it would be zero; the interval is then Wilson's for as many records.
    """
    by_member, by_other = _placements(inside, outside), 1 - _placements(outside, inside)
    value = float(by_member.mean())
    if min(len(inside), len(outside)) < 2 or value in (0.0, 1.0):
        low, high = wilson(value, min(len(inside), len(outside)))
    else:
        error = math.sqrt(by_member.var(ddof=1) / len(inside) + by_other.var(ddof=1) / len(outside))
        low, high = max(0.0, value - _Z * error), min(1.0, value + _Z * error)
    return Auc(value, low, high, by_member)


def _placements(scores: Floats, among: Floats) -> Floats:
    """For each score the share of `among` below it, equal ones counted half."""
    ordered = np.sort(among)
    below, up_to = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")
    placed: Floats = (below + up_to) / (2 * len(ordered))
    return placed


def true_positives(inside: Floats, outside: Floats) -> float:
    """Share of members whose score is above that of all but 1 % of the non-members (rounded down)."""
    allowed = int(FALSE_POSITIVES * len(outside) + 1e-9)
    threshold = np.sort(outside)[-(allowed + 1)]
    return float((inside > threshold).mean())


def words_auc(members: Sequence[str], others: Sequence[str], seed: int) -> Auc:
    """AUC of TF-IDF with logistic regression that tells members from non-members by their words, out of fold.

    It has not seen the model: on random halves it scores 0.5. Too few texts for the folds, or no word in any of them,
    count as 0.5.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = [*members, *others], np.repeat([1, 0], [len(members), len(others)])
    scores = np.zeros(len(texts))
    folds = np.empty(len(texts), np.int64)
    folds[shuffled(len(texts), np.arange(len(texts)), seed_for(seed, "folds"))] = np.arange(len(texts)) % FOLDS
    try:
        features = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    except ValueError:  # no word of two letters in any text
        return auc(scores[: len(members)], scores[len(members) :])
    for fold in range(FOLDS):
        held, used = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(held) and len(set(labels[used])) == 2:
            model = LogisticRegression(max_iter=1000, random_state=0).fit(features[used], labels[used])
            # the intercept is the share of members in the other folds, which is lower where this fold has more
            scores[held] = model.decision_function(features[held]) - model.intercept_[0]
    return auc(scores[: len(members)], scores[len(members) :])
