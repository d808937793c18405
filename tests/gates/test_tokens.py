"""If these fail, ids that do not mean their text, or that no vocabulary holds, reach training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.gates import tokens
from tests.gates.builders import GATES, Raw, Tokens, entry, failed, verdict_on
from tests.tokenizer import foreign

SETTINGS = tokens.Settings.model_validate(GATES["tokens"])
EXPECTATIONS = tokens.expectations(SETTINGS)


def judged(made: Tokens, data: Path, **changed: Any) -> dict[str, Any]:
    settings = tokens.Settings.model_validate(GATES["tokens"] | changed)
    return verdict_on("tokens", tokens.profile(settings, made.write(data)), tokens.expectations(settings))


def _special_inside(made: Tokens) -> None:
    made.ids[4][2] = made.tokenizer.special["<|user|>"]


def _end_inside(made: Tokens) -> None:
    made.ids[4][2] = made.tokenizer.end_of_text


def _other_order(made: Tokens) -> None:
    first, second = made.index[0], made.index[1]
    first["id"], second["id"] = second["id"], first["id"]


def _dropped(made: Tokens) -> None:
    made.index.pop()


def _gibberish(made: Tokens) -> None:
    made.index[6]["bytes"] = made.index[6]["length"] - 1


CASES: list[tuple[str, Callable[[Tokens], Any], dict[str, Any]]] = [
    ("ids_outside_vocabulary", lambda made: made.ids[3].__setitem__(1, made.tokenizer.vocab_size), {}),
    ("specials_inside", _special_inside, {}),
    ("specials_inside", _end_inside, {}),
    ("missing_ends", lambda made: made.ids[5].__setitem__(-1, 65), {}),
    ("misplaced", lambda made: made.index[3].update(start=made.index[3]["start"] + 1), {}),
    ("other_order", _other_order, {}),
    ("tokens_in_file", lambda made: made.ids[-1].pop(), {}),
    ("tokens_in_meta", lambda made: made.meta.update(n_tokens=7), {}),
    ("documents_in_index", _dropped, {}),
    ("documents_in_meta", lambda made: made.meta.update(n_documents=7), {}),
    ("changed_texts", lambda made: made.ids[9].__setitem__(0, made.ids[9][1]), {}),
    ("wrong_sizes", lambda made: made.index[9].update(bytes=made.index[9]["bytes"] + 1), {}),
    ("bytes_per_token", lambda made: None, {"bytes_per_token": {"at_least": 9.0, "at_most": 12.0}}),
    ("bytes_per_token", lambda made: None, {"bytes_per_token": {"at_least": 0.1, "at_most": 1.0}}),
    ("outlier_share", _gibberish, {}),
    ("unused_share", lambda made: None, {"max_unused_vocabulary_share": 0.01}),
]


@pytest.mark.parametrize(("column", "spoil", "changed"), CASES, ids=[case[0] for case in CASES])
def test_gate_fails_on_the_broken_column(
    column: str, spoil: Callable[[Tokens], Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    made = Tokens(Raw())
    spoil(made)
    verdict = judged(made, tmp_path, **changed)
    assert column in failed(verdict)
    assert not verdict["passed"]
    assert entry(verdict, column)["offenders"]
    assert entry(verdict, column)["params_key"]


def test_gate_fails_on_too_few_documents(tmp_path: Path) -> None:
    verdict = judged(Tokens(Raw()), tmp_path, min_documents=1000)
    assert failed(verdict) == {"documents_in_index"}


def test_gate_warns_of_a_spelled_special_token(tmp_path: Path) -> None:
    made = Raw()
    assert judged(Tokens(made), tmp_path / "clean")["passed"]
    made.add("documents", "The letter from the river said <|endoftext|> and then <|user|> with the house.")
    verdict = judged(Tokens(made), tmp_path / "spelled")
    assert failed(verdict) == {"spelled_specials"}
    assert verdict["passed"]
    assert "<|endoftext|>" in entry(verdict, "spelled_specials")["records"][0]["text"]


@pytest.fixture(scope="module", params=["wordpiece", "unigram", "byte_fallback", "clip"])
def changing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of another model that changes text, trained on the documents too."""
    texts = [row["text"] for row in Raw().rows["documents"]]
    return foreign.write(request.param, tmp_path_factory.mktemp(request.param), texts)


def _foreign_verdict(made: Tokens, data: Path, **changed: Any) -> dict[str, Any]:
    """Of small vocabularies: without the bounds on how well they compress."""
    open_bounds = {
        "bytes_per_token": {"at_least": 0.1, "at_most": 99.0},
        "outliers": {"below": 0.1, "min_tokens": 9, "max_share": 1.0},
        "max_unused_vocabulary_share": 1.0,
    }
    return judged(made, data, **open_bounds, **changed)


def test_gate_passes_a_vocabulary_that_changes_text(changing: Path, tmp_path: Path) -> None:
    """BERT lowers its text, so its documents are not what their ids decode to, and are right."""
    made = Tokens(Raw(), changing)
    assert not made.tokenizer.lossless
    assert failed(_foreign_verdict(made, tmp_path)) == set()


def test_gate_fails_on_other_ids_than_the_librarys(changing: Path, tmp_path: Path) -> None:
    """Lost otherwise: nothing would compare the ids of a vocabulary whose text cannot be read back."""
    made = Tokens(Raw(), changing)
    first = made.ids[9][0]
    made.ids[9][0] = next(number for number in made.ids[9] if number != first)
    verdict = _foreign_verdict(made, tmp_path)
    assert failed(verdict) == {"other_ids"}
    assert entry(verdict, "other_ids")["offenders"]


def test_gate_skips_the_librarys_ids_of_a_text_with_a_special_token(tmp_path: Path) -> None:
    """The library finds a special token in such a text; here no text becomes one."""
    raw = Raw()
    raw.add("documents", "The letter from the river said [SEP] to the house.")
    made = Tokens(raw, foreign.write("wordpiece", tmp_path / "words", [row["text"] for row in raw.rows["documents"]]))
    assert failed(_foreign_verdict(made, tmp_path / "data")) == {"spelled_specials"}


def test_gate_fails_on_unknown_text(tmp_path: Path) -> None:
    """Lost otherwise: an English vocabulary reads a Turkish corpus as [UNK] [UNK] [UNK], and the model learns that."""
    made = Tokens(Raw(), foreign.write("wordlevel", tmp_path / "words"))
    verdict = _foreign_verdict(made, tmp_path / "data")
    assert failed(verdict) == {"unknown_share"}
    assert not verdict["passed"]
    assert entry(verdict, "unknown_share")["offenders"]
    assert entry(verdict, "unknown_share")["params_key"] == "gates.tokens.max_unknown_share"


def test_gate_fails_on_documents_that_cannot_be_encoded(tmp_path: Path) -> None:
    """Lost otherwise: documents vanish without a word."""
    raw, texts = Raw(), [row["text"] for row in Raw().rows["documents"]]
    raw.add("documents", "The letter from the river was written in \u0905\u0906 with the house.")
    made = Tokens(raw, foreign.write("missing_bytes", tmp_path / "words", texts))
    verdict = _foreign_verdict(made, tmp_path / "data")
    assert failed(verdict) == {"rejected_share"}
    assert "byte 0xe0 of character" in entry(verdict, "rejected_share")["records"][0]["text"]
    assert _foreign_verdict(made, tmp_path / "data", max_rejected_share=0.1)["passed"]


FOREIGN_COLUMNS = {"other_ids", "unknown_share", "rejected_share"}
"""Columns that only another model's vocabulary can fail; each has a test above."""


def test_every_expectation_has_a_failing_input() -> None:
    tested = {case[0] for case in CASES} | {"spelled_specials"} | FOREIGN_COLUMNS
    assert {expectation.column for expectation in EXPECTATIONS} == tested
    assert len({(expectation.expectation, expectation.column) for expectation in EXPECTATIONS}) == len(EXPECTATIONS)


def test_profile_refuses_a_file_with_half_an_id(tmp_path: Path) -> None:
    data = Tokens(Raw()).write(tmp_path)
    with (data / "tokens" / "ids.bin").open("ab") as file:
        file.write(b"\x01")
    with pytest.raises(UserError, match=r"ids.bin: \d+ bytes"):
        tokens.profile(SETTINGS, data)


@pytest.mark.parametrize("name", ["ids.bin", "index.parquet", "meta.json"])
def test_profile_names_a_missing_file(name: str, tmp_path: Path) -> None:
    data = Tokens(Raw()).write(tmp_path)
    (data / "tokens" / name).unlink()
    with pytest.raises(UserError, match=f"{name}.*dvc repro tokenize"):
        tokens.profile(SETTINGS, data)
