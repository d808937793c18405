"""Outcomes by record: the table, its slices, the worst of them."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline import files, outcomes
from pipeline.outcomes import Outcomes


def rows(n: int) -> list[dict[str, str]]:
    return [
        {"id": f"r{i}", "text": "x" * (i + 1), "language": "tr" if i % 4 else "en", "source": "own",
         "channel": f"{i % 3}", "group": f"g{i // 2}", "origin": str(i)}
        for i in range(n)
    ]  # fmt: skip


def made(values: list[float], metric: str = "accuracy") -> dict[str, list[dict[str, object]]]:
    return {"classification": [outcomes.plain(Outcomes(metric, rows(len(values)), values))]}


def test_table_keeps_values_ids_groups_and_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files.write_table(tmp_path / name, outcomes.table(made([1.0, 0.0, 1.0, 1.0])))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = outcomes.read(tmp_path / "a")
    assert read["record"].to_pylist() == ["r0", "r1", "r2", "r3"]
    assert read["cluster"].to_pylist() == ["g0", "g0", "g1", "g1"]
    assert {"language": "tr", "source": "own", "channel": "1"}.items() <= dict(read["slices"].to_pylist()[1]).items()
    assert len(outcomes.read(tmp_path / "none")) == 0


def test_slices_name_the_language_that_is_wrong_and_leave_out_identifiers() -> None:
    values = [0.0 if i % 4 == 0 else 1.0 for i in range(120)]  # every English text is wrong
    shown = outcomes.slices(outcomes.table(made(values)))
    assert {one.dimension for one in shown} == {"language", "channel", "length"}  # one source is no slice
    (bad,) = outcomes.worst(shown)
    assert (bad.dimension, bad.value, bad.records, bad.mean) == ("language", "en", 30, 0.0)
    assert 0 <= bad.low < bad.high < 0.2
    assert sum(one.records for one in shown if one.dimension == "length") == 120


def test_worst_slice_of_a_loss_is_the_highest() -> None:
    values = [3.0 if i % 4 == 0 else 1.0 for i in range(120)]
    (bad,) = outcomes.worst(outcomes.slices(outcomes.table(made(values, "class_loss_nats"))))
    assert (bad.value, bad.mean) == ("en", 3.0)


def test_slices_of_few_records_are_not_shown() -> None:
    assert not [one for one in outcomes.slices(outcomes.table(made([1.0] * 12))) if one.dimension != "length"]


def test_slices_of_a_dimension_hold_their_intervals_at_once() -> None:
    """In at most a twentieth of worlds with one true value any slice's interval misses it."""
    missed = 0
    for repeat in range(400):
        values = (np.random.default_rng(repeat).random(300) < 0.8).astype(float)
        shown = outcomes.slices(outcomes.table(made(values.tolist())))
        missed += any(not one.low <= 0.8 <= one.high for one in shown if one.dimension == "channel")
    assert missed / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize(("metric", "lower"), [("accuracy", False), ("class_loss_nats", True), ("mae", True),
                                               ("exact_match", False), ("document_bits_per_byte", True)])  # fmt: skip
def test_lower_is_better_follows_the_name(metric: str, lower: bool) -> None:
    assert outcomes.lower_is_better(metric) is lower


DIRECTIONS = {
    "accuracy": "higher", "bias_log_odds": "neither", "brier": "lower", "class_loss_nats": "lower",
    "closed_book_accuracy": "higher", "closed_book_exact": "higher", "contamination_share": "lower",
    "contradicted_wrong_error": "lower", "document_bits_per_byte": "lower", "exact_match": "higher",
    "extraction_share": "lower", "facts_right": "higher", "forgotten_nats": "lower", "invented_error": "lower",
    "mae": "lower", "membership_auc": "lower", "open_book_right": "higher", "rouge_l": "higher",
    "crows_full_share": "neither", "crows_shared_share": "neither", "forgotten_nats_own": "lower",
    "choice_accuracy_plain": "higher", "pairs_accuracy_plain": "higher",
    "true_reward": "higher", "judge_reward": "higher", "true_win_rate": "higher", "judge_win_rate": "higher",
    "kl_nats": "neither", "answer_tokens": "neither", "rated_pairs_accuracy": "higher", "reward_accuracy": "higher",
    "reward_loss_nats": "lower", "reward_ece": "lower", "reward_length_share": "neither",
}  # fmt: skip


def test_direction_is_known_for_every_metric_by_record() -> None:
    """Lost otherwise: a model that became worse is `better` in a metric whose name nobody looked at."""
    sources = [path.read_text(encoding="utf-8") for path in Path(outcomes.__file__).parent.glob("evaluation/*.py")]
    named = {name for text in sources for name in re.findall(r'Outcomes\("(\w+)"', text)}
    assert len(named) > 10
    assert named <= set(DIRECTIONS)
    for metric, expected in DIRECTIONS.items():
        assert outcomes.direction(metric) == expected, metric
