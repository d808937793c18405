"""TF-IDF with logistic regression: the baseline that a fine-tuned classifier should beat.

Features are words and pairs of words, weighted by TF-IDF with sublinear term frequency. It costs seconds of CPU where
a fine-tuned model costs minutes, and on short texts it is often as accurate.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.significance import Verdict, mcnemar, mcnemar_verdict

STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse regularisation strengths that are tried; the best on validation is kept."""


class LabelledTexts(NamedTuple):
    """Texts with their labels."""

    texts: list[str]
    labels: list[str]


class Baseline(NamedTuple):
    """Labels that simple classifiers give to some texts."""

    labels: list[str]
    """Label of each text by TF-IDF with logistic regression."""
    majority: str
    """Most frequent training label: the answer of a classifier that reads no text."""
    strength: float
    """Inverse regularisation strength that was kept; 0 where there was nothing to fit."""


def fit(train: LabelledTexts, validation: LabelledTexts, texts: Sequence[str]) -> Baseline:
    """Trains the baseline and labels `texts`; deterministic.

    The most frequent label is given to all where the training texts have one label only or no word of two letters.

    Args:
        train: at least one text.
        validation: decides the regularisation; empty: the first strength.
        texts: held-out texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    counts = Counter(train.labels)
    majority = min(counts, key=lambda label: (-counts[label], label))
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        if len(counts) < 2:
            raise ValueError("one label")
        train_features = features.fit_transform(train.texts)
    except ValueError:  # no word in any text
        return Baseline([majority] * len(texts), majority, 0.0)
    fitted = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000, random_state=0).fit(train_features, train.labels)
        score = model.score(features.transform(validation.texts), validation.labels) if validation.texts else -strength
        fitted.append((score, strength, model))
    _, strength, best = max(fitted, key=lambda entry: entry[:2])
    labels = [str(label) for label in best.predict(features.transform(texts))] if texts else []
    return Baseline(labels, majority, strength)


class BesideBaseline(NamedTuple):
    """A classifier and the baseline on the same held-out records; the fields are metrics of `classification`."""

    accuracy: float
    baseline_accuracy: float
    majority_accuracy: float
    """Accuracy of the most frequent training label."""
    examples: float
    """Held-out records."""
    only_model_right: float
    """Records that the classifier alone labels right."""
    only_baseline_right: float
    """Records that the baseline alone labels right."""

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> "BesideBaseline | None":
        """The two from a model's metrics; None where the baseline was not measured or a metric is not finite."""
        values = [metrics.get(name, math.nan) for name in cls._fields]
        return cls(*values) if all(map(math.isfinite, values)) else None

    @property
    def chance_of_no_gain(self) -> float:
        """One-sided p-value of McNemar's exact test: how often a classifier no better would win so clearly."""
        return mcnemar(int(self.only_model_right), int(self.only_baseline_right))

    @property
    def verdict(self) -> Verdict:
        """Whether the classifier is better than the baseline, worse, or it cannot be told."""
        return mcnemar_verdict(int(self.only_model_right), int(self.only_baseline_right))

    @property
    def outcome(self) -> str:
        """The verdict about the baseline in one or two words."""
        return {"better": "beaten", "worse": "not beaten", "cannot tell": "cannot tell"}[self.verdict]

    @property
    def sentence(self) -> str:
        """The two accuracies, the records that tell them apart, and the conclusion."""
        conclusion = {
            "better": "the model is better",
            "worse": "the baseline is better: do not fine-tune for this",
            "cannot tell": "cannot tell which is better, and the baseline is cheaper",
        }[self.verdict]
        return (
            f"accuracy {self.accuracy:.3f}, and {self.baseline_accuracy:.3f} of TF-IDF with logistic regression on the "
            f"same {self.examples:,.0f} held-out records; the model alone is right on {self.only_model_right:.0f} and "
            f"the baseline alone on {self.only_baseline_right:.0f}: {conclusion}"
        )
