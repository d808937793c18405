"""The baseline beside a classifier: without it a classifier below a linear model looks like a success."""

from typing import Any

import pytest

from pipeline.baseline import (
    RIDGE_STRENGTHS,
    STRENGTHS,
    BesideBaseline,
    LabelledTexts,
    beside,
    fit,
    fit_numbers,
    fit_sets,
)

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


def test_fit_sets_agrees_with_scikit_learns_one_vs_rest_classifier() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    texts = [f"{word} {other} haberi" for word in ("ev", "iş", "okul") for other in ("kira", "maaş", "sınav")] * 3
    labels = [[word for word in ("ev", "iş", "maaş") if word in text] for text in texts]
    baseline = fit_sets((texts, labels), ([], []), texts)
    features, binary = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), MultiLabelBinarizer()
    theirs = OneVsRestClassifier(LogisticRegression(C=STRENGTHS[0], max_iter=1000, random_state=0))
    theirs.fit(features.fit_transform(texts), binary.fit_transform(labels))
    expected = binary.inverse_transform(theirs.predict(features.transform(texts)))
    assert [sorted(chosen) for chosen in baseline.labels] == [sorted(chosen) for chosen in expected]
    assert baseline.strength == STRENGTHS[0]


def test_fit_sets_answers_with_the_most_frequent_set_when_there_is_no_word_or_no_label() -> None:
    assert fit_sets((["1", "2", "3"], [["a"], ["a"], []]), ([], []), ["4"]).labels == [["a"]]
    assert fit_sets((["bir söz", "iki söz"], [[], []]), ([], []), ["üç söz"]).labels == [[]]


def test_fit_sets_gives_every_text_a_label_that_all_training_texts_have() -> None:
    baseline = fit_sets((["ev kira", "iş maaş"], [["a", "b"], ["a"]]), (["ev kira"], [["a", "b", "new"]]), ["ev kira"])
    assert "a" in baseline.labels[0]


def test_fit_numbers_agrees_with_scikit_learns_ridge_and_takes_the_best_strength_on_validation() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    scale = {"kötü": 1.0, "orta": 3.0, "iyi": 5.0}
    texts = [f"{word} bir {other}" for word in scale for other in ("film", "kitap", "oyun", "gün")]
    targets = [scale[text.split()[0]] for text in texts]
    held_out = ["iyi bir gün", "kötü bir oyun"]
    baseline = fit_numbers((texts, targets), (texts, targets), held_out)
    assert baseline.strength == min(RIDGE_STRENGTHS)  # the training texts themselves are fitted best by the weakest
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = Ridge(alpha=baseline.strength).fit(features.fit_transform(texts), targets)
    assert baseline.values == pytest.approx(model.predict(features.transform(held_out)).tolist(), abs=1e-4)
    assert baseline.mean == pytest.approx(3.0)
    assert fit_numbers((["1", "2"], [1.0, 4.0]), ([], []), ["3"]).values == [2.5]


@pytest.mark.parametrize(
    ("closer", "words"),
    [((40, 5), "the model is better"), ((5, 40), "do not fine-tune"), ((5, 5), "the baseline is cheaper")],
)
def test_beside_ridge_says_which_is_better_by_a_sign_test(closer: tuple[int, int], words: str) -> None:
    metrics = {"rmse": 1.0, "baseline_rmse": 1.2, "mean_rmse": 2.0, "examples": 50.0}
    metrics |= {"model_closer": float(closer[0]), "baseline_closer": float(closer[1])}
    compared = beside(metrics)
    assert compared is not None
    assert words in compared.sentence
    assert (compared.chance_of_no_gain < 0.025) == (words == "the model is better")
    assert beside(metrics | {"rmse": float("nan")}) is None
