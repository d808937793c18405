"""Measures of one source or language: figures of other records must not enter them."""

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import evaluation
from pipeline.errors import UserError
from pipeline.evaluation import classification, exact_match, perplexity, records
from pipeline.outcomes import lower_is_better
from tests.evaluation.test_measures import TOKENIZER, subject, write_documents, write_labelled
from tests.specs import SPAM, changed

TEXTS = ["kısa", "orta boy bir ışık", "a text in English"]


def with_column(path: Path, name: str, values: list[str]) -> None:
    table = pq.ParquetFile(path).read()
    if name in table.column_names:
        table = table.drop_columns([name])
    pq.write_table(table.append_column(name, [values]), path)


def test_perplexity_gives_bits_per_byte_by_source_and_language_beside_the_known_ones(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents", TEXTS, [10.0, 20.0, None], ["a", "b", "b"])
    with_column(tmp_path / "documents/test.parquet", "language", ["tr", "tr", "en"])
    one = subject(tmp_path)
    with_zero = one.model.embed.weight.detach().zero_()  # every id is equally likely
    assert not with_zero.any()
    metrics, *_ = perplexity.measure(perplexity.Settings(split="test", batch_size=2, max_documents=None), one)
    size, bits = [len(text.encode()) for text in TEXTS], math.log2(TOKENIZER.vocab_size)
    tokens = [n + 1 for n in size]
    assert metrics["bits_per_byte_a"] == pytest.approx(bits * tokens[0] / size[0], rel=1e-5)
    assert metrics["bits_per_byte_tr"] == pytest.approx(bits * sum(tokens[:2]) / sum(size[:2]), rel=1e-5)
    assert metrics["bits_per_byte_en"] == pytest.approx(bits * tokens[2] / size[2], rel=1e-5)
    assert metrics["bits_per_byte_known_tr"] == pytest.approx(30 / sum(size[:2]))
    assert metrics["bits_per_byte_over_known_b"] == pytest.approx(bits * tokens[1] / 20, rel=1e-5)
    assert "bits_per_byte_known_en" not in metrics
    assert all(lower_is_better(name) for name in metrics if name.startswith(("bits_per_byte", "loss_nats")))
    settings = perplexity.Settings(split="test", batch_size=2, max_documents=None, source="a")
    alone, *_ = perplexity.measure(settings, one)
    assert alone["bits_per_byte"] == pytest.approx(metrics["bits_per_byte_a"])
    assert alone["documents"] == 1
    with pytest.raises(UserError, match="source is 'c'; the test documents are of: a, b"):
        perplexity.measure(settings.model_copy(update={"source": "c"}), one)


def test_classification_of_one_source_compares_with_the_baseline_on_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: the baseline's answers would be those to other records."""
    rows = [
        (f"{'ödül kazandın' if i % 2 else 'akşama gel'} {i:03}", "spam" if i % 2 else "ham", "tr") for i in range(20)
    ]
    write_labelled(tmp_path / "labelled", rows)
    with_column(tmp_path / "labelled/test.parquet", "source", ["own", "other", "own", "own"] * 5)
    one = subject(tmp_path, changed(SPAM, max_tokens=16, max_prompt_tokens=16))
    sure_of_ham = np.tile([0.9, 0.1], (5, 1))
    monkeypatch.setattr(classification, "label_probabilities", lambda *_: sure_of_ham)
    settings = classification.Settings(split="test", batch_size=7, baseline="bag_of_words", source="other")
    metrics, *_ = classification.measure(settings, one)
    assert metrics["examples"] == 5
    assert metrics["accuracy"] == 0.0  # every second record is spam, and these are
    assert metrics["baseline_accuracy"] == 1.0


def test_records_of_an_unknown_source_are_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled", [("x", "ham", "tr")])
    one = subject(tmp_path)
    assert len(records(one, "labelled", "test", "own")) == 1
    with pytest.raises(UserError, match="source is 'x'; the test labelled are of: own"):
        records(one, "labelled", "test", "x")


def test_text_scores_names_the_text_whose_score_is_not_finite(tmp_path: Path) -> None:
    one = subject(tmp_path, changed(SPAM, max_tokens=16, max_prompt_tokens=16))
    one.model.score.weight.detach().fill_(math.nan)  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"text 1 \('a'\) has scores \[nan, nan\]; expected finite numbers"):
        evaluation.text_scores(one, one.labelling("m"), ["a", "b"], 2)


def test_exact_match_has_no_examples_unless_they_are_asked_for() -> None:
    fields = {"split": "test", "batch_size": 4, "max_tokens": 4, "max_records": None}
    settings = exact_match.Settings.model_validate(fields)
    assert (settings.shots, settings.source) == (0, None)
