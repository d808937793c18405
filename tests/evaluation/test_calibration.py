"""Calibration and ranking of classifiers, beside scikit-learn and by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.evaluation import calibration, ranking
from pipeline.evaluation.calibration import bins_of, brier_by_record, calibration_error, fitted_temperature, softmax
from tests.evaluation.test_measures import subject, write_labelled
from tests.specs import SPAM, changed

SETTINGS: dict[str, Any] = {"split": "test", "source": None, "batch_size": 8}
LABELS = ("a", "b", "c")


def drawn(n: int, n_labels: int = 3, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: a calibrated model."""
    rng = np.random.default_rng(seed)
    scores_NC = rng.normal(0, 1.5, (n, n_labels))
    return scores_NC, np.array([rng.choice(n_labels, p=row) for row in softmax(scores_NC)])


def test_brier_is_scikit_learns() -> None:
    """Of two labels scikit-learn gives half of the sum over the labels (Brier's own definition has the sum)."""
    from sklearn.metrics import brier_score_loss

    scores_NC, labels_N = drawn(200, 2)
    expected = 2 * brier_score_loss(labels_N, softmax(scores_NC)[:, 1])
    assert brier_by_record(softmax(scores_NC), labels_N).mean() == pytest.approx(expected)


def test_bins_hold_equal_numbers_of_records_sorted_by_probability() -> None:
    probabilities_NC = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55], [0.7, 0.3]])
    labels_N = np.array([0, 0, 1, 1, 0])
    first, second = bins_of(probabilities_NC, labels_N, 2)
    assert first == {"records": 3.0, "probability": pytest.approx((0.55 + 0.6 + 0.7) / 3), "accuracy": 2 / 3}
    assert second == {"records": 2.0, "probability": pytest.approx(0.85), "accuracy": 0.5}
    by_hand = 3 / 5 * abs(1.85 / 3 - 2 / 3) + 2 / 5 * 0.35
    assert calibration_error(probabilities_NC, labels_N, 2) == pytest.approx(by_hand)


def test_temperature_undoes_a_scaling_of_the_logits() -> None:
    scores_NC, labels_N = drawn(20_000)
    assert fitted_temperature(3 * scores_NC, labels_N) == pytest.approx(3, rel=0.05)
    sharp = calibration_error(softmax(3 * scores_NC), labels_N, 15)
    assert sharp > 5 * calibration_error(softmax(scores_NC), labels_N, 15)


def test_calibration_fits_its_temperature_on_validation_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores_NC, labels_N = drawn(400)
    for split, at in (("validation", slice(200)), ("test", slice(200, None))):
        rows = [(f"{split}{i}", LABELS[label], "tr") for i, label in enumerate(labels_N[at])]
        write_labelled(tmp_path / split / "labelled", rows)
        (tmp_path / "labelled").mkdir(exist_ok=True)
        (tmp_path / split / f"labelled/{split}.parquet").rename(tmp_path / f"labelled/{split}.parquet")
    parts = {"v": 3 * scores_NC[:200], "t": 3 * scores_NC[200:]}
    monkeypatch.setattr(
        calibration, "text_scores", lambda _one, _task, texts, _size: torch.from_numpy(parts[texts[0][0]])
    )
    one = subject(tmp_path, changed(SPAM, labels=LABELS, max_tokens=16, max_prompt_tokens=16))
    metrics, details, (outcomes,) = calibration.measure(calibration.Settings(**SETTINGS, bins=5), one)
    assert metrics["temperature"] == fitted_temperature(parts["v"], labels_N[:200])
    assert metrics["calibrated_ece"] < metrics["ece"]
    assert metrics["calibrated_brier"] < metrics["brier"]
    assert metrics["brier"] == pytest.approx(np.mean(outcomes.values))
    assert [row["records"] for row in details["bins"]] == [40.0] * 5


@pytest.mark.parametrize("labels", [LABELS, LABELS[:2]])
def test_ranking_is_scikit_learns(labels: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores_NC, labels_N = drawn(120, len(labels), seed=3)
    probabilities_NC = softmax(scores_NC)
    write_labelled(tmp_path / "labelled", [(str(i), labels[label], "tr") for i, label in enumerate(labels_N)])
    monkeypatch.setattr(ranking, "label_probabilities", lambda *_: probabilities_NC)
    one = subject(tmp_path, changed(SPAM, labels=labels, max_tokens=16, max_prompt_tokens=16))
    metrics, details, *_ = ranking.measure(ranking.Settings(**SETTINGS), one)
    if len(labels) == 2:
        assert metrics["auc"] == pytest.approx(roc_auc_score(labels_N, probabilities_NC[:, 1]))
        assert metrics["average_precision"] == pytest.approx(average_precision_score(labels_N, probabilities_NC[:, 1]))
    else:
        assert metrics["auc"] == pytest.approx(roc_auc_score(labels_N, probabilities_NC, multi_class="ovr"))
    assert set(details["by_label"]) == set(labels)


def test_ranking_names_a_label_that_no_record_has(tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled", [("x", "a", "tr"), ("y", "b", "tr")])
    one = subject(tmp_path, changed(SPAM, labels=LABELS, max_tokens=16, max_prompt_tokens=16))
    with pytest.raises(UserError, match="test: none of the 2 records have label 'c'; a ranking needs records"):
        ranking.measure(ranking.Settings(**SETTINGS), one)


@pytest.mark.parametrize("module", [calibration, ranking])
def test_measures_of_labels_name_an_unknown_source(module: Any, tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled", [("x", "a", "tr"), ("y", "b", "tr")])
    one = subject(tmp_path, changed(SPAM, labels=LABELS, max_tokens=16, max_prompt_tokens=16))
    more = {"bins": 2} if module is calibration else {}
    with pytest.raises(UserError, match="source is 'other'; the test labelled are of: own"):
        module.measure(module.Settings(**SETTINGS | {"source": "other"} | more), one)
