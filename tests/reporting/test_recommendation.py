"""A user who follows the sentence fine-tunes in vain, or not at all where it would have paid, if this is wrong."""

import numpy as np
import pytest

from pipeline.reporting.recommendation import Row, recommend

SEEDS = 2


def row(name: str, right: np.ndarray, trained: int = 0, **more: object) -> Row:
    """A method from right or wrong of each seed and record: [seeds, records]."""
    right = np.atleast_2d(right).astype(float)
    values, by_record = tuple(right.mean(1).tolist()), tuple(right.mean(0).tolist())
    return Row(name, values, by_record, seconds=12.4, trained=trained, **more)  # type: ignore[arg-type]


def world(generator: np.random.Generator, records: int, simple: float, trained: float) -> list[Row]:
    """Methods whose chance to be right on any record is `simple`, or `trained` for the trained ones.

    Records differ in difficulty, so that methods are right on the same ones, as real methods are.
    """
    difficulty = generator.normal(0, 0.1, records)

    def drawn(chance: float, seeds: int) -> np.ndarray:
        return generator.random((seeds, records)) < np.clip(chance - difficulty, 0, 1)

    rows = [row(name, drawn(simple, 1), seedless=True) for name in ("majority", "TF-IDF", "neighbours", "zero-shot")]
    rows += [row(name, drawn(simple, 1)) for name in ("4-shot", "8-shot")]
    return rows + [row(name, drawn(trained, SEEDS), n) for name, n in (("lora", 10), ("full", 90), ("scratch", 40))]


@pytest.mark.parametrize("records", [25, 200])
def test_recommend_says_not_to_fine_tune_where_no_method_is_better(records: int) -> None:
    generator = np.random.default_rng(records)
    repetitions = [recommend(world(generator, records, 0.8, 0.8), "accuracy") for _ in range(300)]
    assert sum(found.fine_tune for found in repetitions) <= 0.05 * 300
    assert all(found.sentence.startswith("Do not fine-tune") for found in repetitions if not found.fine_tune)


def test_recommend_finds_a_trained_method_that_is_better() -> None:
    generator = np.random.default_rng(3)
    repetitions = [recommend(world(generator, 300, 0.75, 0.93), "accuracy") for _ in range(50)]
    assert sum(found.fine_tune for found in repetitions) >= 45


def test_recommend_takes_the_cheapest_of_equal_winners_and_names_its_cost() -> None:
    wrong = np.zeros(200)
    right, nearly = np.ones(200), np.ones(200)
    wrong[:150] = 1
    nearly[:1] = 0
    rows = [
        row("TF-IDF", wrong, seedless=True),
        row("lora", np.stack([nearly, right]), 1_234, note="rank 8, learning rate 0.003, 2.4 epochs"),
        row("full", np.stack([right, right]), 99_999),
    ]
    found = recommend(rows, "accuracy")
    assert (found.take, found.fine_tune, found.verdicts) == ("lora", True, {"lora": "better", "full": "better"})
    assert found.sentence == (
        "Fine-tune: take lora, the cheapest within one standard error of full (1.000), accuracy 0.998 on 200 held-out "
        "records (1,234 trained weights, 12 s a seed; rank 8, learning rate 0.003, 2.4 epochs); it is better than "
        "every method without training, of which TF-IDF is best (0.750)."
    )


def test_recommend_must_beat_every_simple_method_not_only_tf_idf() -> None:
    """Lost otherwise: a user trains for minutes where the model answers as well with four examples in its prompt."""
    wrong, right = np.arange(200) % 4 > 0, np.ones(200)
    rows = [
        row("TF-IDF", wrong, seedless=True), row("4-shot", right), row("lora", np.stack([right, right]), 10)
    ]  # fmt: skip
    found = recommend(rows, "accuracy")
    assert (found.take, found.fine_tune, found.verdicts["lora"]) == ("4-shot", False, "cannot tell")
    assert found.sentence == (
        "Do not fine-tune: take 4-shot, accuracy 1.000 on 200 held-out records; the best trained method, lora, is at "
        "1.000."
    )


def test_recommend_says_how_many_records_would_tell_where_few_cannot() -> None:
    simple, trained = np.ones(24), np.ones(24)
    simple[:4], trained[:1] = 0, 0
    rows = [row("TF-IDF", simple, seedless=True), row("lora", np.stack([trained, trained]), 10)]
    found = recommend(rows, "accuracy")
    assert not found.fine_tune
    assert found.sentence == (
        "Do not fine-tune yet: lora is at 0.958 and TF-IDF at 0.833, and 24 held-out records cannot tell that from "
        "chance (about 83 could); take TF-IDF, accuracy 0.833 on 24 held-out records, or label more records."
    )


def test_recommend_calls_a_trained_method_worse() -> None:
    right, wrong = np.ones(100), np.arange(100) % 2 > 0
    rows = [row("TF-IDF", right, seedless=True), row("scratch", np.stack([wrong, wrong]), 10)]
    assert recommend(rows, "accuracy").verdicts == {"scratch": "worse"}


def test_recommend_never_takes_the_most_frequent_label_beside_a_classifier() -> None:
    """Lost otherwise: on unbalanced labels the advice would be to call everything ham."""
    majority, words = np.ones(30), np.ones(30)
    majority[:3], words[:2] = 0, 0
    rows = [row("majority", majority, seedless=True), row("TF-IDF", words, seedless=True)]
    assert recommend(rows, "accuracy").take == "TF-IDF"


def test_recommend_with_rows_that_were_not_measured() -> None:
    assert recommend([Row("lora", missing="over the budget")], "accuracy").sentence == "No method was measured."
    rows = [Row("lora", missing="over the budget"), row("TF-IDF", np.ones(40), seedless=True)]
    assert recommend(rows, "accuracy").sentence == (
        "Do not fine-tune: no method could be trained here; take TF-IDF, accuracy 1.000 on 40 held-out records."
    )


def test_row_interval_is_wilsons_of_a_share_and_a_bootstrap_of_other_scores() -> None:
    assert row("TF-IDF", np.ones(24)).interval == pytest.approx((0.862, 1.0), abs=1e-3)
    scores = np.linspace(0, 1, 101)
    low, high = Row("lora", (float(scores.mean()),), tuple(scores.tolist())).interval
    half = 1.96 * scores.std() / np.sqrt(101)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.01)
