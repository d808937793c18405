"""If these fail, ids that do not mean their text, or that no vocabulary holds, reach training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.gates import tokens
from tests.gates.builders import GATES, Raw, Tokens, entry, failed, verdict_on

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


def test_every_expectation_has_a_failing_input() -> None:
    assert {expectation.column for expectation in EXPECTATIONS} == {case[0] for case in CASES} | {"spelled_specials"}
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
