"""Records that go with a record: lost otherwise, a copy of a forgotten text stays in training."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import Deduplicate
from pipeline.data.erasure import Wanted, affected
from pipeline.data.records import record_id
from pipeline.data.standing import Place
from tests.folders import write_raw

SETTINGS = Deduplicate(near_threshold=0.6, shingle_words=3, permutations=16, seed=1)
STORY = "Ayşe sabah erkenden kalktı, denize baktı, çayını içti ve sonra yavaş yavaş işine gitti, akşam geri döndü."
NEAR = STORY.replace("akşam", "gece")
TEXTS = {"named": STORY, "spaced": STORY.replace(" ", "  ", 3), "near": NEAR, "other": "Bambaşka bir metin burada."}


def raw(tmp_path: Path) -> Path:
    documents = [{"text": text, "origin": f"own.txt:{name}"} for name, text in TEXTS.items()]
    question = {"instruction": "Kim kalktı?", "input": "", "output": "Ayşe", "origin": "own.txt:named passage 1#1"}
    identity = record_id("instructions", "Kim kalktı?", "", "Ayşe")
    twin = {"instruction": "KİM KALKTI?", "input": "", "output": "Ayşe", "twin_of": identity, "origin": "x case"}
    other = {"instruction": "Kim kalktı?", "input": "", "output": "Zeynep", "origin": "x:9"}
    labelled = [{"text": "kaldır beni", "label": "ham", "consent": basis} for basis in ("withdrawn",)]
    labelled += [{"text": "kalsın", "label": "ham", "consent": "contract"}]
    return write_raw(
        tmp_path / "raw",
        documents=documents,
        labelled=labelled,
        instructions=[question, twin | {"twin_of": identity}, other],
    )


def origins(found: Any) -> dict[str, str]:
    return {record.origin: record.why.partition(" of ")[0].partition(" about")[0] for record in found[0]}


@pytest.mark.parametrize(
    "row",
    ["own.txt:named", record_id("documents", STORY), hashlib.sha256(STORY.encode()).hexdigest()],
    ids=["origin", "id", "hash of the text"],
)
def test_a_row_is_found_by_origin_id_and_hash_with_all_that_goes_with_it(tmp_path: Path, row: str) -> None:
    found = affected(Wanted((row,)), raw(tmp_path), SETTINGS)
    assert origins(found) == {
        "own.txt:named": "named",
        "own.txt:spaced": "duplicate",
        "own.txt:near": "near duplicate",
        "own.txt:named passage 1#1": "question",
        "x case": "twin",
    }
    assert found[1] == []


def test_near_duplicates_stay_where_only_exact_ones_are_asked(tmp_path: Path) -> None:
    found = affected(Wanted(("own.txt:named",), near=False), raw(tmp_path), SETTINGS)
    assert "own.txt:near" not in origins(found)
    assert "own.txt:spaced" in origins(found)


def test_records_are_found_by_their_consent(tmp_path: Path) -> None:
    found = affected(Wanted(consent="withdrawn"), raw(tmp_path), SETTINGS)
    assert [(record.kind, record.why) for record in found[0]] == [("labelled", "named by consent withdrawn")]


def test_rows_that_no_record_is_are_returned(tmp_path: Path) -> None:
    found, missing = affected(Wanted(("own.txt:other", "own.txt:99", "0" * 16)), raw(tmp_path), SETTINGS)
    assert [record.origin for record in found] == ["own.txt:other"]
    assert missing == ["own.txt:99", "0" * 16]


def test_another_answer_to_the_same_question_is_another_record(tmp_path: Path) -> None:
    found = affected(Wanted(("x:9",)), raw(tmp_path), SETTINGS)
    assert origins(found) == {"x:9": "named"}


def test_a_twin_before_the_question_it_was_made_of_goes_with_the_document(tmp_path: Path) -> None:
    """Lost otherwise: the order of the rows in a file decides whether a copy stays."""
    identity = record_id("instructions", "Kim kalktı?", "", "Ayşe")
    twin = {"instruction": "Kim klaktı?", "input": "", "output": "Ayşe", "twin_of": identity, "origin": "x typo"}
    question = {"instruction": "Kim kalktı?", "input": "", "output": "Ayşe", "origin": "own.txt:1 passage 1#1"}
    folder = write_raw(
        tmp_path / "raw", documents=[{"text": STORY, "origin": "own.txt:1"}], instructions=[twin, question]
    )
    found = affected(Wanted(("own.txt:1",)), folder, SETTINGS)
    assert set(origins(found)) == {"own.txt:1", "x typo", "own.txt:1 passage 1#1"}


def test_a_text_of_exactly_the_threshold_is_a_near_duplicate(tmp_path: Path) -> None:
    """As `sample.deduplicate` has it; 3 of 5 words are common."""
    texts = [{"text": "bir iki üç dört", "origin": "a"}, {"text": "bir iki üç beş", "origin": "b"}]
    settings = SETTINGS.model_copy(update={"shingle_words": 1})
    found = affected(Wanted(("a",)), write_raw(tmp_path / "raw", documents=texts), settings)
    assert origins(found) == {"a": "named", "b": "near duplicate"}


def test_a_conversation_is_found_by_the_hash_of_its_history(tmp_path: Path) -> None:
    """A person's earlier messages are a text of the record as well."""
    history = '[{"role": "user", "content": "I am Ada."}]'
    rows = [{"instruction": "Who am I?", "input": "", "output": "Ada", "history": history, "origin": "chat:1"}]
    found, missing = affected(
        Wanted((hashlib.sha256(history.encode()).hexdigest(),)),
        write_raw(tmp_path / "raw", instructions=rows),
        SETTINGS,
    )
    assert [record.origin for record in found] == ["chat:1"]
    assert not missing


@pytest.mark.parametrize(
    ("first", "tokens", "windows"),
    [(0, 10, [0]), (0, 11, [0, 1]), (0, 12, [0, 1]), (10, 3, [0, 1]), (11, 9, [1]), (11, 11, [1, 2])],
)
def test_windows_hold_a_document_as_input_or_target(first: int, tokens: int, windows: list[int]) -> None:
    """Windows of 10 inputs and their targets: window i holds ids 10 i to 10 i + 10."""
    place = Place("documents", "a", "train", first, tokens)
    by_hand = [i for i in range(5) if set(range(10 * i, 10 * i + 11)) & set(range(first, first + tokens))]
    assert list(place.windows(10)) == by_hand == windows
