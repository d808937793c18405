"""The baseline beside a classifier: without it a classifier below a linear model looks like a success."""

from typing import Any

import pytest

from pipeline.baseline import STRENGTHS, BesideBaseline, LabelledTexts, fit

TRAIN = LabelledTexts(["ödül kazandın", "akşama gel", "bedava ödül", "yarın gel"] * 5, ["spam", "ham"] * 10)


def metrics(**changes: float) -> dict[str, float]:
    """Metrics of a classifier that is right on 50 of 53 records, and its baseline on 52."""
    fields = {"accuracy": 50 / 53, "baseline_accuracy": 52 / 53, "majority_accuracy": 0.5, "examples": 53.0}
    return fields | {"only_model_right": 1.0, "only_baseline_right": 3.0} | changes


def test_fit_labels_texts_by_their_words() -> None:
    baseline = fit(TRAIN, LabelledTexts(["ödül"], ["spam"]), ["bir ödül", "gel", "yarın akşama"])
    assert baseline.labels == ["spam", "ham", "ham"]
    assert baseline.strength in STRENGTHS


@pytest.mark.parametrize("train", [
    LabelledTexts(["ödül", "gel"], ["ham", "ham"]),
    LabelledTexts(["a", "b", "?"], ["spam", "ham", "ham"]),
], ids=["one label", "no words"])  # fmt: skip
def test_fit_gives_the_most_frequent_label_when_nothing_can_be_learned(train: LabelledTexts) -> None:
    baseline = fit(train, LabelledTexts([], []), ["ödül", "gel"])
    assert (baseline.labels, baseline.majority, baseline.strength) == (["ham", "ham"], "ham", 0.0)


def test_fit_takes_the_first_label_when_several_are_most_frequent() -> None:
    assert fit(TRAIN, LabelledTexts([], []), []).majority == "ham"


@pytest.mark.parametrize(("changes", "verdict", "words"), [
    ({}, "cannot tell", "the baseline alone on 3: cannot tell which is better, and the baseline is cheaper"),
    ({"only_baseline_right": 9.0}, "worse", "the baseline is better: do not fine-tune for this"),
    ({"only_model_right": 12.0}, "better", "the model is better"),
])  # fmt: skip
def test_beside_baseline_says_which_is_better(changes: dict[str, float], verdict: str, words: str) -> None:
    beside = BesideBaseline.of(metrics(**changes))
    assert beside is not None
    assert beside.verdict == verdict
    assert beside.sentence.startswith("accuracy 0.943, and 0.981 of TF-IDF with logistic regression on the same 53")
    assert beside.sentence.endswith(words)


@pytest.mark.parametrize("broken", [{"baseline_accuracy": float("nan")}, None])
def test_beside_baseline_is_none_when_it_was_not_measured(broken: dict[str, Any] | None) -> None:
    assert BesideBaseline.of({"accuracy": 0.9, "examples": 10.0} if broken is None else metrics(**broken)) is None
