"""If these fail, copies stay in the data (scores too good) or different records are lost."""

import random
from itertools import combinations

import numpy as np
import pytest

from pipeline.config.params import Deduplicate
from pipeline.data.deduplicate import Forms
from pipeline.data.minhash import bands
from pipeline.errors import UserError

SETTINGS = Deduplicate(near_threshold=0.85, shingle_words=5, permutations=128, seed=1)
LETTERS = "abcçdefgğhıijklmnoöprsştuüvyz"


def words(draw: random.Random, n: int) -> list[str]:
    return ["".join(draw.choices(LETTERS, k=draw.randint(3, 9))) for _ in range(n)]


def varied(draw: random.Random, n: int) -> list[str]:
    """Texts in families whose members differ in none to a dozen words."""
    texts = []
    for _ in range(n // 10):
        base = words(draw, draw.randint(60, 160))
        for _ in range(10):
            copy = list(base)
            for place in draw.sample(range(len(copy)), draw.choice([0, 1, 1, 2, 2, 3, 6])):
                copy[place] = words(draw, 1)[0]
            texts.append(" ".join(copy))
    return texts


def shingles(text: str, k: int) -> set[tuple[str, ...]]:
    padded = [""] * (k - 1) + text.split() + [""] * (k - 1)
    return {tuple(padded[i : i + k]) for i in range(len(padded) - k + 1)}


def form_of(forms: Forms) -> list[int]:
    """The number of the form of each text; a text that is in no family shares its form with none."""
    found = np.arange(forms.texts)
    for rows, numbers in forms.families():
        for number in set(numbers.tolist()):
            found[rows[numbers == number]] = rows[numbers == number][0]
    return found.tolist()


def pairs(forms: Forms) -> dict[tuple[int, int], float]:
    found = {}
    members: dict[int, list[int]] = {}
    for form in range(len(forms)):
        for bucket in forms.buckets(form):
            members.setdefault(bucket, []).append(form)
    for form in range(len(forms)):
        others = {other for bucket in forms.buckets(form) for other in members[bucket] if other > form}
        near = forms.near(form, np.array(sorted(others), dtype=np.int64)) if others else []
        found.update({(form, other): similarity for other, similarity in near})
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.85])
def test_forms_find_the_near_duplicates_of_brute_force(threshold: float) -> None:
    texts = list(dict.fromkeys(varied(random.Random(5), 500)))
    settings = SETTINGS.model_copy(update={"near_threshold": threshold})
    sets = [shingles(text, 5) for text in texts]
    truth = {}
    for one, other in combinations(range(len(texts)), 2):
        similarity = len(sets[one] & sets[other]) / len(sets[one] | sets[other])
        if similarity >= threshold:
            truth[one, other] = similarity
    found = pairs(Forms([([text], "tr") for text in texts], settings))
    assert len(truth) > 150
    assert set(found) <= set(truth), "a pair below the threshold was called near"
    assert len(found) >= 0.99 * len(truth)
    assert all(similarity == pytest.approx(truth[pair]) for pair, similarity in found.items())


def test_bands_bound_misses_at_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.7, 0.85, 0.95):
        count, rows = bands(threshold, 128)
        assert count * rows <= 128
        assert 1 - (1 - threshold**rows) ** count >= 0.99
    assert bands(1.0, 64) == (1, 64)


def test_forms_fold_letters_case_and_spaces() -> None:
    texts = ["Iğdır'da kış", "IĞDIR'DA  KIŞ", "I\u011fd\u0131r'da k\u0131s\u0327\n"]
    assert form_of(Forms([([text], "tr") for text in texts], SETTINGS)) == [0, 0, 0]
    assert len(Forms([(["ISI"], "tr"), (["isi"], "tr")], SETTINGS)) == 2


def test_forms_keep_short_texts_with_different_names_apart() -> None:
    questions = [f"Where does {name} live?" for name in ("Ayşe", "Mehmet", "Zeynep")]
    long = "Ali has a red car and a blue house near the old bridge of the town where {} works as a baker."
    texts = [*questions, *(long.format(name) for name in ("Ayşe", "Mehmet"))]
    assert not pairs(Forms([([text], "en") for text in texts], SETTINGS))


def test_forms_compare_every_field() -> None:
    passage = " ".join(words(random.Random(1), 150))
    records = [
        ("Who lives here?", passage),
        ("When was it built?", passage),
        ("Who lives here?", passage + " son"),
    ]
    found = pairs(Forms([(record, "en") for record in records], SETTINGS))
    assert set(found) == {(0, 2)}


def test_forms_count_signs_but_no_punctuation() -> None:
    texts = [
        "What is 2 + 3?",
        "What is 2 - 3?",
        "What is 2 + 3 ...",
        "Say 🙂",
        "Say 😡",
        "🙂",
        "😡",
        "?!",
        "!",
    ]
    assert set(pairs(Forms([([text], "en") for text in texts], SETTINGS))) == {(0, 2)}


def test_forms_handle_batches_and_empty_input() -> None:
    assert len(Forms([], SETTINGS)) == 0
    assert pairs(Forms([([""], "tr"), (["..."], "tr"), ([" "], "tr")], SETTINGS)) == {}
    many = [([f"satır {number % 5000}"], "tr") for number in range(10_000)]
    assert form_of(Forms(many, SETTINGS)) == [number % 5000 for number in range(10_000)]


def test_forms_refuse_a_threshold_of_zero() -> None:
    with pytest.raises(UserError, match="near_threshold is 0"):
        Forms([], SETTINGS.model_copy(update={"near_threshold": 0.0}))
