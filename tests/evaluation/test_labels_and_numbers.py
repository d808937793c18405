"""Measures of multi-label classifiers, regressions and decision thresholds, against scikit-learn and by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.evaluation import classification, multi_label, regression, text_scores
from pipeline.prompts.spec import TaskSpec
from tests.evaluation.test_measures import subject, write_labelled
from tests.specs import SPAM, changed

SETS = TaskSpec(name="multi_label", labels=("a", "b", "c"), max_tokens=16, max_prompt_tokens=16)
NUMBER = TaskSpec(name="regress", mean=2.0, deviation=1.5, max_tokens=16, max_prompt_tokens=16)


def rows_of(cells: list[str]) -> list[tuple[str, str, str]]:
    rng = np.random.default_rng(1)
    return [("xyz"[i % 3] * int(rng.integers(1, 12)) + str(i), cell, "tr") for i, cell in enumerate(cells)]


def random_sets(n: int) -> list[str]:
    rng = np.random.default_rng(2)
    listed = [[label for label in "abc" if rng.random() < share] for share in rng.random(n)]
    return [re.sub("'", '"', str(labels)) for labels in listed]


@pytest.mark.parametrize("thresholds", [None, {"a": 0.2, "b": 0.5, "c": 0.55}])
def test_multi_label_agrees_with_scikit_learn(thresholds: dict[str, float] | None, tmp_path: Path) -> None:
    from sklearn.metrics import accuracy_score, f1_score, hamming_loss, log_loss

    rows = rows_of(random_sets(40))
    write_labelled(tmp_path / "labelled", rows)
    one = subject(tmp_path, changed(SETS, thresholds=thresholds))
    with torch.no_grad():
        one.model.score.weight *= 60  # type: ignore[union-attr]
    metrics, details, _ = multi_label.measure(multi_label.Settings(split="test", batch_size=7, baseline=None), one)
    task = one.scoring("m", "multi_label")
    p_NC = text_scores(one, task, [row[0] for row in rows], 40).sigmoid().numpy()
    guesses = (p_NC >= np.array([(thresholds or {}).get(label, 0.5) for label in "abc"])).astype(int)
    true = np.array([[int(f'"{label}"' in cell) for label in "abc"] for _, cell, _ in rows])
    assert 0 < guesses.mean() < 1
    assert metrics["accuracy"] == accuracy_score(true, guesses)
    assert metrics["micro_f1"] == pytest.approx(f1_score(true, guesses, average="micro", zero_division=0))
    assert metrics["macro_f1"] == pytest.approx(f1_score(true, guesses, average="macro", zero_division=0))
    assert metrics["hamming_loss"] == pytest.approx(hamming_loss(true, guesses))
    assert metrics["label_loss_nats"] == pytest.approx(
        np.mean([log_loss(true[:, k], p_NC[:, k].astype(float), labels=[0, 1]) for k in range(3)]), rel=1e-5
    )
    by_label = f1_score(true, guesses, average=None, zero_division=0).tolist()
    assert [details["labels"][label]["f1"] for label in "abc"] == pytest.approx(by_label)
    if thresholds is not None:
        assert metrics["half_micro_f1"] == pytest.approx(f1_score(true, p_NC >= 0.5, average="micro", zero_division=0))
    assert ("half_accuracy" in metrics) == (thresholds is not None)


def test_multi_label_counts_the_records_that_only_one_of_model_and_baseline_gets_right(tmp_path: Path) -> None:
    words = {"ev": '["a"]', "iş": '["b", "c"]', "yok": "[]"}
    rows = [(f"{word} {word} {i % 4}", cell, "tr") for i in range(8) for word, cell in words.items()]
    write_labelled(tmp_path / "labelled", rows)
    settings = multi_label.Settings(split="test", batch_size=7, baseline="bag_of_words")
    metrics, details, _ = multi_label.measure(settings, subject(tmp_path, SETS))
    assert metrics["baseline_accuracy"] == 1.0  # a word a label set
    assert metrics["majority_accuracy"] == pytest.approx(1 / 3)
    right = [float(one) for one in details["by_record"].split()]
    assert metrics["only_baseline_right"] == right.count(0.0)
    assert metrics["only_model_right"] == 0


def test_multi_label_names_a_label_that_was_not_trained(tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled", [("x", '["a", "phish"]', "tr")])
    with pytest.raises(UserError, match=r"labels \['phish'\] were never trained on"):
        multi_label.measure(multi_label.Settings(split="test", batch_size=7, baseline=None), subject(tmp_path, SETS))


def test_regression_agrees_with_scikit_learn_and_scipy(tmp_path: Path) -> None:
    from scipy.stats import spearmanr
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    rows = rows_of([str(round(value, 2)) for value in np.random.default_rng(3).normal(2, 1.5, 40)])
    write_labelled(tmp_path / "labelled", rows)
    one = subject(tmp_path, NUMBER)
    metrics, details, _ = regression.measure(regression.Settings(split="test", batch_size=7, baseline=None), one)
    task = one.scoring("m", "regress")
    values = text_scores(one, task, [row[0] for row in rows], 40).squeeze(1).double().numpy() * 1.5 + 2.0
    true = [float(row[1]) for row in rows]
    assert metrics["rmse"] == pytest.approx(mean_squared_error(true, values) ** 0.5)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(true, values))
    assert metrics["r2"] == pytest.approx(r2_score(true, values))
    assert metrics["spearman"] == pytest.approx(spearmanr(true, values).statistic)
    assert len(details["error_by_record"].split()) == 40


def test_regression_compares_with_ridge_regression_record_by_record(tmp_path: Path) -> None:
    words = {"kötü": "1", "orta": "3", "iyi": "5"}
    write_labelled(
        tmp_path / "labelled", [(f"{w} {w} {i % 4}", cell, "tr") for i in range(8) for w, cell in words.items()]
    )
    settings = regression.Settings(split="test", batch_size=7, baseline="bag_of_words")
    metrics, _, _ = regression.measure(settings, subject(tmp_path, NUMBER))
    assert metrics["mean_rmse"] == pytest.approx((8 / 3) ** 0.5)
    assert metrics["baseline_rmse"] < 0.3
    assert metrics["model_closer"] + metrics["baseline_closer"] == 24
    assert metrics["baseline_closer"] > 16


@pytest.mark.parametrize(("cells", "words"), [(["1", "x"], "label 'x' is no number"), (["2", "2"], "all labels are 2")])
def test_regression_refuses_labels_that_it_cannot_measure(cells: list[str], words: str, tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled", rows_of(cells))
    with pytest.raises(UserError, match=words):
        regression.measure(regression.Settings(split="test", batch_size=7, baseline=None), subject(tmp_path, NUMBER))


@pytest.mark.parametrize("measure", [multi_label, regression])
def test_a_measure_of_another_task_names_the_measure_to_remove(measure: Any, tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled", rows_of(["ham", "spam"]))
    with pytest.raises(UserError, match=r"was not trained with task .*; remove this measure"):
        measure.measure(measure.Settings(split="test", batch_size=7, baseline=None), subject(tmp_path, SPAM))


def test_classification_measures_the_thresholds_beside_the_plain_argmax(tmp_path: Path) -> None:
    """Both figures, so that a reader sees what the threshold bought."""
    from sklearn.metrics import accuracy_score, f1_score

    rows = rows_of([str(label) for label in np.random.default_rng(4).choice(["ham", "spam"], 40)])
    write_labelled(tmp_path / "labelled", rows)
    costs = {"ham": {"spam": 5.0}, "spam": {"ham": 1.0}}
    spec = changed(SPAM, max_tokens=16, max_prompt_tokens=16)
    plain = subject(tmp_path, spec)
    settings = classification.Settings(split="test", batch_size=7, baseline=None)
    p_N = text_scores(plain, plain.labelling("m"), [row[0] for row in rows], 40).softmax(-1)[:, 1]
    median = float(p_N.median()) + 1e-6  # half of the records on either side
    decided = changed(spec, thresholds={"ham": 1 - median, "spam": median}, decided_by="cost", costs=costs)
    metrics, _, _ = classification.measure(settings, subject(tmp_path, decided))
    true = [row[1] for row in rows]
    guesses = ["spam" if p >= median else "ham" for p in p_N.tolist()]
    argmax = ["spam" if p > 0.5 else "ham" for p in p_N.tolist()]
    assert guesses != argmax
    assert metrics["accuracy"] == accuracy_score(true, guesses)
    assert metrics["argmax_accuracy"] == accuracy_score(true, argmax)
    assert metrics["argmax_macro_f1"] == pytest.approx(f1_score(true, argmax, average="macro", zero_division=0))
    cost = sum(costs[t].get(g, 0.0) for t, g in zip(true, guesses, strict=True)) / 40
    assert metrics["mean_cost"] == pytest.approx(cost)
    assert set(metrics) - {"argmax_accuracy", "argmax_macro_f1", "mean_cost", "argmax_mean_cost"} == set(
        classification.measure(settings, plain)[0]
    )
