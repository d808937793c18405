"""Bag-of-words baseline: TF-IDF of words and word pairs with logistic regression.

Trained and evaluated on the same records as the model; a fine-tuned classifier should have a higher accuracy.
"""

from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Section
from pipeline.evaluation import Subject, records


class Settings(Section):
    """Split."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """bag_of_words_accuracy with the best of three regularisation strengths by validation accuracy; details: it."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    data = {split: records(subject, "labelled", split) for split in ("train", "validation", settings.split)}
    text = {split: [row["text"] for row in rows] for split, rows in data.items()}
    label = {split: [row["label"] for row in rows] for split, rows in data.items()}
    fitted = []
    for strength in (1.0, 10.0, 100.0):
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=strength, max_iter=1000, random_state=0),
        ).fit(text["train"], label["train"])
        fitted.append((model.score(text["validation"], label["validation"]), strength, model))
    _, strength, best = max(fitted, key=lambda item: item[:2])
    accuracy = float(best.score(text[settings.split], label[settings.split]))
    return {"bag_of_words_accuracy": accuracy}, {"bag_of_words_strength": strength}
