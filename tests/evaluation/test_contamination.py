"""Contamination: lost otherwise, a score is published that was copied from training."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import plugins
from pipeline.errors import UserError
from pipeline.evaluation import contamination
from tests.evaluation.splits import learn, subject_of, told, write_documents, write_records
from tests.specs import SPAM, changed

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def settings_of(**changes: Any) -> Any:
    fields = plugins.example("evaluation", "contamination")
    return plugins.settings_class("evaluation", "contamination")(**fields | changes)


def test_overlap_is_the_share_of_ngrams_that_training_holds() -> None:
    """15 words have three 13-grams; the first two stand in the longer of two training texts."""
    train = ["zero", f"so {LONG.removesuffix(' fifteen')} sixteen"]
    assert contamination.overlap(settings_of(), [LONG, "other"], train) == [pytest.approx(2 / 3), 0.0]


def test_overlap_compares_short_texts_by_runs_of_characters_and_shorter_ones_as_a_whole() -> None:
    settings = settings_of(characters=10)
    train = ["well, how are you today my friend", "yes"]
    assert contamination.overlap(settings, ["how are you today"], train) == [1.0]
    assert contamination.overlap(settings, ["how are we today"], train)[0] < 0.5
    assert contamination.overlap(settings, ["yes", "ye", "how are"], train) == [1.0, 0.0, 0.0]


def test_overlap_across_a_border_of_two_texts_is_none() -> None:
    words = LONG.split()
    assert contamination.overlap(settings_of(), [LONG], [" ".join(words[:7]), " ".join(words[7:])]) == [0.0]


def test_contamination_finds_leaks_and_scores_without_them(tmp_path: Path) -> None:
    """Letter case and spaces are no difference; answers right on leaks alone are worth nothing without them."""
    leaked = [{"text": f"Meet  ME at {n} by the river", "label": "ham"} for n in range(3)]
    clean = [{"text": f"a prize of {n} is waiting", "label": "spam"} for n in range(3)]
    train = [row | {"text": row["text"].lower().replace("  ", " ")} for row in leaked]
    write_records(tmp_path, "labelled", train=train, test=leaked + clean)
    subject = subject_of(tmp_path, changed(SPAM, max_tokens=32, max_prompt_tokens=32))
    assert subject.labelling("contamination").labels[0] == "ham"
    assert subject.model.score is not None
    subject.model.score.weight.data.zero_()  # equal scores: every text gets the first label
    metrics, details, _ = contamination.measure(settings_of(kind="labelled"), subject)
    assert metrics["contamination_share"] == 0.5
    assert [row["id"] for row in details["contaminated"]] == ["test0", "test1", "test2"]
    assert metrics["contamination_accuracy"] == 0.5
    assert metrics["contamination_clean_accuracy"] == 0.0


def test_contamination_is_silent_when_training_holds_other_texts(tmp_path: Path) -> None:
    write_records(
        tmp_path, "labelled", train=[{"text": "a prize", "label": "spam"}], test=[{"text": "gel", "label": "ham"}]
    )
    metrics, details, _ = contamination.measure(
        settings_of(kind="labelled"), subject_of(tmp_path, changed(SPAM, max_tokens=32, max_prompt_tokens=32))
    )
    assert metrics["contamination_share"] == metrics["contamination_overlap"] == 0.0
    assert "contamination_accuracy" not in metrics
    assert details["contaminated"] == []


def test_contaminated_documents_cost_fewer_bits_than_clean_ones(tmp_path: Path) -> None:
    write_documents(tmp_path, train=[LONG], test=[LONG, "something quite different from all of it"])
    subject = subject_of(tmp_path, context_length=128)
    learn(subject, told([LONG]), 60)
    metrics, _, _ = contamination.measure(settings_of(), subject)
    assert metrics["contamination_share"] == 0.5
    assert metrics["contamination_bits_per_byte"] < metrics["contamination_clean_bits_per_byte"]


def test_a_split_without_records_is_named(tmp_path: Path) -> None:
    write_documents(tmp_path, train=[LONG], test=[])
    with pytest.raises(UserError, match="split test has no record"):
        contamination.measure(settings_of(), subject_of(tmp_path))
