"""If these fail, a test text is learned by heart in training, or good records vanish without a reason."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.params import Deduplicate
from pipeline.data import candidates, contamination, deduplicate, external
from pipeline.data.contamination import Removal, besides_of, removals, texts_of
from pipeline.data.records import SPLITS

SETTINGS = Deduplicate(near_threshold=0.85, shingle_words=5, permutations=128, seed=1)
LONG = " ".join(f"kelime{number}" for number in range(80))
NEAR = LONG.replace("kelime40", "başka")


def found(texts: list[str], splits: list[str], *, across: bool = True, **more: list) -> list[Removal]:  # type: ignore[type-arg]
    pinned = np.array(more.pop("pinned")) if "pinned" in more else None
    numbers = np.array([SPLITS.index(split) for split in splits], np.uint8)
    pairs = [([text], "tr") for text in texts]
    return list(removals(pairs, numbers, SETTINGS, across_splits=across, pinned=pinned, **more))


def brief(removed: list[Removal]) -> list[tuple[int, int, str]]:
    return [(removal.row, removal.of, removal.reason) for removal in removed]


def test_removals_keep_the_first_duplicate_of_a_split() -> None:
    removed = found(["bir", "iki", "BİR", "bir"], ["train"] * 4)
    assert brief(removed) == [(2, 0, "duplicate"), (3, 0, "duplicate")]
    assert all(removal.exact and removal.similarity == 1 for removal in removed)


def test_removals_remove_near_duplicates_with_their_similarity() -> None:
    (removal,) = found([LONG, "x", NEAR], ["train"] * 3)
    assert (removal.row, removal.of, removal.reason, removal.exact) == (2, 0, "near_duplicate", False)
    assert removal.similarity == pytest.approx(79 / 89)


@pytest.mark.parametrize("copy", [LONG, NEAR])
def test_removals_remove_from_the_less_guarded_split(copy: str) -> None:
    splits = ["train", "validation", "test"]
    assert brief(found([copy, LONG, "x"], splits)) == [(0, 1, "contamination")]
    assert brief(found([copy, "x", LONG], splits)) == [(0, 2, "contamination")]
    assert brief(found(["x", copy, LONG], splits)) == [(1, 2, "contamination")]
    assert brief(found([LONG, LONG, LONG], splits)) == [(0, 2, "contamination"), (1, 2, "contamination")]


def test_removals_keep_leaks_without_decontamination() -> None:
    splits = ["train", "train", "train", "test"]
    assert brief(found([LONG, LONG, "x", LONG], splits, across=False)) == [(1, 0, "duplicate")]
    # The second is a near copy of the first, but it is also the very text of the test.
    assert brief(found([NEAR, LONG, "x", LONG], splits, across=False)) == []


def test_removals_keep_duplicates_inside_a_pinned_test_split() -> None:
    texts, splits = ["bir", "bir", "iki", "iki"], ["test", "test", "train", "train"]
    assert brief(found(texts, splits, pinned=[True] * 4)) == [(3, 2, "duplicate")]
    assert brief(found(texts, splits, pinned=[False] * 4)) == [(1, 0, "duplicate"), (3, 2, "duplicate")]


def test_removals_compare_answers_within_a_split_only() -> None:
    texts = ["soru"] * 3
    assert brief(found(texts, ["train"] * 3, besides=[b"a", b"b", b"a"])) == [(2, 0, "duplicate")]
    splits = ["train", "train", "test"]
    assert brief(found(texts, splits, besides=[b"a", b"b", b"c"])) == [
        (0, 2, "contamination"),
        (1, 2, "contamination"),
    ]


def test_removals_keep_the_end_of_a_chain_of_near_duplicates() -> None:
    words = LONG.split()
    chain = [" ".join([f"w{i}" for i in range(step * 2)] + words[step * 2 :]) for step in range(4)]
    removed = found(chain, ["train"] * 4)
    assert brief(removed) == [(1, 0, "near_duplicate"), (3, 2, "near_duplicate")]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_removals_leave_clean_records_and_name_a_kept_one_each(seed: int) -> None:
    draw = random.Random(seed)
    texts = [draw.choice([LONG, NEAR, "kısa", "Kısa!", f"tek {number}"]) for number in range(30)]
    splits = draw.choices(["train", "validation", "test"], k=30)
    removed = found(texts, splits)
    gone = {removal.row for removal in removed}
    assert all(removal.of not in gone for removal in removed)
    stay = [row for row in range(30) if row not in gone]
    assert found([texts[row] for row in stay], [splits[row] for row in stay]) == []
    assert not any(splits[removal.row] == "test" and splits[removal.of] != "test" for removal in removed)


@pytest.mark.parametrize(("part", "held"), [(5, 1 << 20), (1 << 15, 0), (5, 600)])
def test_removals_are_equal_with_any_memory_bound(part: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(4)
    words = [f"w{number}" for number in range(40)]
    texts = []
    for _ in range(30):
        base = draw.choices(words, k=70)
        for _ in range(draw.randint(1, 5)):
            base = [word if draw.random() > 0.02 else draw.choice(words) for word in base]
            texts.append(" ".join(base))
    texts += texts[:9]
    splits = draw.choices(["train", "validation", "test"], weights=[6, 1, 1], k=len(texts))
    expected = found(texts, splits)
    assert {removal.reason for removal in expected} == set(contamination.REASONS)
    monkeypatch.setattr(external, "PART", part)
    monkeypatch.setattr(candidates, "_HELD", held)
    monkeypatch.setattr(deduplicate, "_BATCH", 16)
    assert found(texts, splits) == expected


def test_texts_of_reads_the_columns_of_each_kind() -> None:
    import pyarrow as pa

    columns = {"instruction": ["a", "a"], "input": ["b", ""], "chosen": ["C", "d"], "rejected": ["e", "f"]}
    batch = pa.RecordBatch.from_pydict(columns | {"language": ["tr", "en"]})
    assert list(texts_of("preferences", [batch])) == [(("a", "b"), "tr"), (("a", ""), "en")]
    digests = besides_of("preferences", [batch])
    assert digests is not None
    assert len(set(digests)) == 2
    assert besides_of("instructions", [batch]) is None
