"""TF-IDF with logistic or ridge regression: the baselines that a fine-tuned classifier or regression should beat.

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

RIDGE_STRENGTHS = (0.1, 1.0, 10.0)
"""Regularisation strengths of the ridge regression that are tried; the best on validation is kept."""


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


class SetsBaseline(NamedTuple):
    """Label sets that simple multi-label classifiers give to some texts."""

    labels: list[list[str]]
    """Labels of each text by TF-IDF with a logistic regression a label."""
    majority: list[str]
    """Most frequent label set of the training texts."""
    strength: float
    """Inverse regularisation strength that was kept; 0 where there was nothing to fit."""


class NumbersBaseline(NamedTuple):
    """Numbers that simple regressions give to some texts."""

    values: list[float]
    """Number of each text by TF-IDF with ridge regression."""
    mean: float
    """Mean of the training targets: the answer of a regression that reads no text."""
    strength: float
    """Regularisation strength that was kept; 0 where there was nothing to fit."""


def fit_sets(
    train: tuple[list[str], list[list[str]]], validation: tuple[list[str], list[list[str]]], texts: Sequence[str]
) -> SetsBaseline:
    """Trains TF-IDF with one-vs-rest logistic regression and labels `texts`; deterministic.

    The most frequent label set is given to all where no training text has a word of two letters or a label.

    Args:
        train: texts with their labels, at least one.
        validation: decides the regularisation by micro-averaged F1; empty: the first strength.
        texts: held-out texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    counts = Counter(tuple(sorted(labels)) for labels in train[1])
    order: list[tuple[int, tuple[str, ...]]] = sorted((-n, chosen) for chosen, n in counts.items())
    majority = list(order[0][1])
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    names = sorted({label for labels in train[1] for label in labels})
    try:
        if not names:
            raise ValueError("no label")
        train_features = features.fit_transform(train[0])
    except ValueError:  # no word in any text
        return SetsBaseline([majority] * len(texts), majority, 0.0)
    binary = MultiLabelBinarizer(classes=names)
    targets_NC = binary.fit_transform(train[1])
    known = [[label for label in labels if label in set(names)] for labels in validation[1]]
    best: tuple[float, float, list[object]] | None = None
    for strength in STRENGTHS:
        # a label that every training text has, or none, has no regression: it is answered as in training
        models: list[object] = [
            LogisticRegression(C=strength, max_iter=1000, random_state=0).fit(train_features, column)
            if 0 < column.sum() < len(column)
            else int(column[0])
            for column in targets_NC.T
        ]
        score = -strength
        if validation[0]:
            guesses_NC = _sets(models, features.transform(validation[0]))
            score = f1_score(binary.transform(known), guesses_NC, average="micro", zero_division=0)
        if best is None or (score, strength) > best[:2]:
            best = score, strength, models
    assert best is not None
    chosen_NC = _sets(best[2], features.transform(texts)) if texts else []
    return SetsBaseline(
        [[label for label, on in zip(names, row, strict=True) if on] for row in chosen_NC], majority, best[1]
    )


def _sets(models: Sequence[object], features: object) -> list[list[int]]:
    """Rows of 0 and 1: whether each label's model answers yes."""
    rows = features.shape[0]  # type: ignore[attr-defined]  # a sparse matrix of scipy, which has no stub
    columns = [
        [model] * rows if isinstance(model, int) else model.predict(features).tolist()  # type: ignore[attr-defined]  # scikit-learn's
        for model in models
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def fit_numbers(
    train: tuple[list[str], list[float]], validation: tuple[list[str], list[float]], texts: Sequence[str]
) -> NumbersBaseline:
    """Trains TF-IDF with ridge regression and gives `texts` numbers; deterministic.

    The mean of the training targets is given to all where no training text has a word of two letters.

    Args:
        train: texts with their numbers, at least one.
        validation: decides the regularisation by squared error; empty: the first strength.
        texts: held-out texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    mean = math.fsum(train[1]) / len(train[1])
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        train_features = features.fit_transform(train[0])
    except ValueError:  # no word in any text
        return NumbersBaseline([mean] * len(texts), mean, 0.0)
    fitted = []
    for strength in RIDGE_STRENGTHS:
        model = Ridge(alpha=strength, solver="lsqr", tol=1e-8).fit(train_features, train[1])
        error = 0.0
        if validation[0]:
            guesses = model.predict(features.transform(validation[0])).tolist()
            error = math.fsum((guess - truth) ** 2 for guess, truth in zip(guesses, validation[1], strict=True))
        fitted.append((error, strength, model))
    _, strength, best = min(fitted, key=lambda entry: entry[:2])
    values = [float(value) for value in best.predict(features.transform(texts))] if texts else []
    return NumbersBaseline(values, mean, strength)


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


class BesideRidge(NamedTuple):
    """A regression model and the baseline on the same held-out records; the fields are metrics of `regression`."""

    rmse: float
    baseline_rmse: float
    mean_rmse: float
    """Error of the mean of the training targets."""
    examples: float
    """Held-out records."""
    model_closer: float
    """Records on which the model is closer to the true number."""
    baseline_closer: float
    """Records on which the baseline is closer."""

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> "BesideRidge | None":
        """The two from a model's metrics; None where the baseline was not measured or a metric is not finite."""
        values = [metrics.get(name, math.nan) for name in cls._fields]
        return cls(*values) if all(map(math.isfinite, values)) else None

    @property
    def chance_of_no_gain(self) -> float:
        """One-sided p-value of the sign test: how often a model no better would be closer so often."""
        return mcnemar(int(self.model_closer), int(self.baseline_closer))

    @property
    def verdict(self) -> Verdict:
        """Whether the model is better than the baseline, worse, or it cannot be told."""
        return mcnemar_verdict(int(self.model_closer), int(self.baseline_closer))

    @property
    def sentence(self) -> str:
        """The two errors, the records on which each is closer, and the conclusion."""
        conclusion = {
            "better": "the model is better",
            "worse": "the baseline is better: do not fine-tune for this",
            "cannot tell": "cannot tell which is better, and the baseline is cheaper",
        }[self.verdict]
        return (
            f"root mean squared error {self.rmse:.4g}, and {self.baseline_rmse:.4g} of TF-IDF with ridge regression on "
            f"the same {self.examples:,.0f} held-out records ({self.mean_rmse:.4g} of the mean for all); the model is "
            f"closer on {self.model_closer:.0f} and the baseline on {self.baseline_closer:.0f}: {conclusion}"
        )


def beside(metrics: Mapping[str, float]) -> BesideBaseline | BesideRidge | None:
    """A model and its baseline from the model's metrics; None where no baseline was measured."""
    return BesideBaseline.of(metrics) or BesideRidge.of(metrics)
