"""Drift of the embedded world: exchanged parts in their shares, all else as in the undrifted twin."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.data.sources import world
from pipeline.data.sources.world.facts import LANGUAGES
from tests.data.sources.test_world import rows_of, settings

NONE: dict[str, Any] = {"first": 0, "words": 0, "people": 0, "spam": None, "labels": 0}


def drifted(**amounts: Any) -> world.Settings:
    return settings(documents=0, preferences=0, labelled=600, instructions=300, drift=NONE | amounts)


@pytest.fixture(scope="module")
def plain() -> Any:
    return rows_of(settings(documents=0, preferences=0, labelled=600, instructions=300))


def share(first: list[dict[str, Any]], second: list[dict[str, Any]], column: str) -> float:
    assert len(first) == len(second)
    return float(sum(a[column] != b[column] for a, b in zip(first, second, strict=True))) / len(first)


def test_drift_changes_nothing_when_its_amounts_are_zero(plain: Any) -> None:
    assert rows_of(drifted()) == plain
    assert world.provenance(settings())["sha256"] != world.provenance(settings(drift=NONE))["sha256"]


def test_drift_of_words_changes_goods_alone_when_texts_have_some(plain: Any) -> None:
    rows = rows_of(drifted(words=0.5))
    new = {word for words in LANGUAGES.values() for values in words.NEW_WORDS.values() for word in values}
    changed = [b for a, b in zip(plain["labelled"], rows["labelled"], strict=True) if a["text"] != b["text"]]
    assert 0.4 < len(changed) / 600 < 0.55
    assert all(any(word in row["text"] for word in new) for row in changed)
    assert not any(word in row["text"].split() for row in plain["labelled"] for word in new)
    assert share(plain["labelled"], rows["labelled"], "label") == 0
    assert rows["instructions"] == plain["instructions"]


def test_drift_of_people_names_people_outside_the_world_when_asked(plain: Any) -> None:
    rows = rows_of(drifted(people=0.5))
    assert 0.25 < share(plain["instructions"], rows["instructions"], "instruction") < 0.6
    assert 0.01 < share(plain["labelled"], rows["labelled"], "text") < 0.06  # half of the impostors' 6 %


def test_drift_of_spam_changes_its_share_when_given(plain: Any) -> None:
    for spam in (0.2, 0.8):
        rows = rows_of(drifted(spam=spam))["labelled"]
        assert abs(sum(row["label"] == "spam" for row in rows) / 600 - spam) < 0.05
        assert share(plain["labelled"], rows, "text") == pytest.approx(0.3, abs=0.05)


def test_drift_of_labels_keeps_texts_when_labels_change(plain: Any) -> None:
    rows = rows_of(drifted(labels=0.2))["labelled"]
    assert share(plain["labelled"], rows, "text") == 0
    assert share(plain["labelled"], rows, "label") == pytest.approx(0.2, abs=0.05)


def test_drift_is_refused_when_noise_numbers_the_messages_too() -> None:
    with pytest.raises(ValidationError, match="drift and noise both number the messages"):
        settings(drift=NONE, noise={"first": 0, "wrong_share": 0.1})
