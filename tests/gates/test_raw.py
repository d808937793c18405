"""If these fail, records that must not be learned from pass the first gate, or clean ones are stopped."""

import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.data.records import SCHEMAS
from pipeline.errors import UserError
from pipeline.gates import raw
from pipeline.gates._rules import MOST_EXAMPLES
from pipeline.gates.profiles import texts, values
from tests.data.test_personal import PERSON, TURKISH, VISA
from tests.gates.builders import GATES, Raw, entry, failed, record, text_of, verdict_on
from tests.gates.rated import Vote, crowd, rows

SETTINGS = raw.Settings.model_validate(GATES["raw"])
EXPECTATIONS = raw.expectations(SETTINGS)


def judged(made: Raw, data: Path) -> dict[str, Any]:
    return verdict_on("raw", raw.profile(SETTINGS, made.write(data)), EXPECTATIONS)


def _text(value: str, kind: Any = "documents", language: str = "en") -> Callable[[Raw], None]:
    return lambda made: made.add(kind, f"{made.rows[kind][0]['text']} {value}", language)


def _set(kind: Any, name: str, value: Any, row: int = 3) -> Callable[[Raw], None]:
    return lambda made: made.rows[kind][row].update({name: value})


def _source(name: str, value: Any) -> Callable[[Raw], None]:
    return lambda made: made.sources["made"].update({name: value})


def _account(name: str, change: int) -> Callable[[Raw], None]:
    def spoil(made: Raw) -> None:
        made.account = made.ledger()
        made.account["made"]["documents"][name] += change

    return spoil


def _wrong_type(made: Raw) -> None:
    made.tables["documents"] = pa.Table.from_pylist(
        [row | {"bits": "many"} for row in made.rows["documents"]],
        schema=SCHEMAS["documents"].set(6, pa.field("bits", pa.string())),
    )


def _surrogate(made: Raw) -> None:
    table = pa.Table.from_pylist(made.rows["documents"], schema=SCHEMAS["documents"])
    texts = [text.encode() for text in table["text"].to_pylist()]
    texts[2] += b" \xed\xa0\x80"
    made.tables["documents"] = table.set_column(
        5, SCHEMAS["documents"].field("text"), pa.array(texts).view(pa.string())
    )


def _rare_label(made: Raw) -> None:
    made.rows["labelled"][0]["label"] = "scam"


def _one_label(made: Raw) -> None:
    for row in made.rows["labelled"]:
        row["label"] = "ham"


def _contradiction(made: Raw) -> None:
    first = made.rows["labelled"][0]
    made.add("labelled", first["text"].upper(), label="ham" if first["label"] == "spam" else "spam")


def _all_english(made: Raw) -> None:
    made.rows["documents"] = [row for row in made.rows["documents"] if row["language"] == "en"]


def _mostly_rejected(made: Raw) -> None:
    made.account = made.ledger()
    made.account["made"]["documents"] |= {"rows_in": 80, "rejected": 40}
    made.rejections = [
        {"source": "made", "kind": "documents", "file": "a.txt", "line": n, "reason": "empty", "detail": ""}
        for n in range(40)
    ]


def _unlisted_rejection(made: Raw) -> None:
    made.account = made.ledger()
    made.account["made"]["documents"] |= {"rows_in": 41, "rejected": 1}


def _lost(made: Raw) -> None:
    made.account = made.ledger()
    made.rows["documents"].pop()


MILL = "The mill was built in 1874 by Ada Moss. It burned down in the winter of 1901."


def _invented_answer(made: Raw) -> None:
    for _ in range(9):
        made.add_answer("Ada Moss built the mill in 1874.", MILL)
    made.add_answer("A shepherd sold three golden carpets near the harbour.", MILL)
    made.add_answer("It burned down in the summer of 1987.", MILL)


def _lost_record(made: Raw) -> None:
    made.add_answer("Ada Moss built it.", MILL)
    made.passages.append({"id": "0" * 16, "source": "made", "passage": MILL})


def _rated(votes: list[Vote]) -> Callable[[Raw], None]:
    return lambda made: made.rate(rows(votes))


# Each pair of five raters disagrees on answers that no other rates.
QUARREL = [
    vote
    for number, pair in enumerate(combinations(range(5), 2))
    for vote in ((f"u-{pair[0]}", number, "choice:0"), (f"u-{pair[1]}", number, "choice:1"))
]


# column that must fail -> what breaks it. A second column may fail with it where one cause breaks both.
CASES: list[tuple[set[str], Callable[[Raw], Any]]] = [
    ({"found_type"}, _wrong_type),
    ({"rows"}, lambda made: made.rows["labelled"].__delitem__(slice(8, None))),
    ({"nulls"}, _set("documents", "origin", None)),
    ({"blank", "too_short"}, lambda made: made.rows["documents"][3].update(text=" \n ")),
    ({"blank"}, _set("instructions", "output", "  ")),
    ({"unknown_splits"}, _set("documents", "split", "dev")),
    ({"too_short"}, _set("documents", "text", "Short.")),
    ({"too_long"}, lambda made: made.add("documents", "the house and the river with this. " * 100)),
    ({"invalid_utf8", "replacement_characters"}, _surrogate),
    ({"replacement_characters"}, _text("br\ufffdken")),
    ({"nul_characters"}, _text("a\x00b", "labelled")),
    ({"control_characters"}, _text("a\x08b")),
    ({"mojibake"}, _text("GÃ¼naydÄ±n")),
    ({"personal_email"}, _text("ask me@mail.example", "labelled")),
    ({"personal_phone"}, _text("call 0532 123 45 67")),
    ({"personal_card"}, _text(f"card {VISA}")),
    ({"personal_iban"}, _text(f"to {TURKISH}", "labelled")),
    ({"personal_identity"}, lambda made: made.rows["instructions"][0].update(output=f"number {PERSON}")),
    ({"spelled_specials"}, _text("then <|endoftext|> is written")),
    ({"duplicate_share"}, lambda made: made.rows["documents"].append(made.rows["documents"][5])),
    ({"language_disagreement_share"}, _set("documents", "language", "tr", 2)),
    ({"document_share"}, _all_english),
    ({"label_share"}, _rare_label),
    ({"n_labels"}, _one_label),
    ({"contradictions"}, _contradiction),
    ({"licence_stated"}, _source("licence", " ")),
    ({"consent_stated"}, _source("consent", None)),
    ({"licence_stated", "consent_stated"}, lambda made: made.sources.clear()),
    ({"rows_in"}, _account("rows_in", 1)),
    ({"kept"}, _lost),
    ({"rejected"}, _unlisted_rejection),
    ({"rejected_share"}, _mostly_rejected),
    ({"ungrounded_share"}, _invented_answer),
    ({"without_record"}, _lost_record),
    ({"rater_share"}, _rated([(f"u-{max(0, n - 9)}", n, "choice:0") for n in range(14)])),
    ({"top_share"}, _rated([(f"u-{n}" if n < 38 else f"u-busy-{n % 2}", n, "thumb:up") for n in range(78)])),
    ({"self_contradiction_share"}, _rated([(f"u-{n % 5}", n % 20, f"choice:{int(n >= 20)}") for n in range(25)])),
    ({"against_share"}, _rated(QUARREL)),
    ({"opposing_raters", "opposing_group"}, _rated(crowd(0, "against"))),
]


@pytest.mark.parametrize(
    ("columns", "spoil"), CASES, ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else ""
)
def test_gate_fails_on_the_broken_column_and_no_other(
    columns: set[str], spoil: Callable[[Raw], Any], tmp_path: Path
) -> None:
    made = Raw()
    spoil(made)
    verdict = judged(made, tmp_path)
    assert failed(verdict) == columns
    assert verdict["passed"] == (columns == {"spelled_specials"}), "only a warning lets the graph go on"
    for column in columns:
        assert entry(verdict, column)["offenders"]
        assert entry(verdict, column)["count"] >= 1


def test_every_expectation_has_a_failing_input() -> None:
    assert {expectation.column for expectation in EXPECTATIONS} == set().union(*(columns for columns, _ in CASES))
    assert len({(expectation.expectation, expectation.column) for expectation in EXPECTATIONS}) == len(EXPECTATIONS), (
        "a waiver must mean one expectation"
    )


def test_gate_passes_clean_records(tmp_path: Path) -> None:
    assert judged(Raw(), tmp_path)["passed"]


def test_gate_passes_answers_that_stand_in_their_passages_and_shows_the_others(tmp_path: Path) -> None:
    made = Raw()
    for _ in range(10):
        made.add_answer("Ada Moss built the mill in 1874.", MILL)
    made.add_answer("Somebody called Zoe Quill built it in 1999.", MILL)
    verdict = judged(made, tmp_path)
    assert verdict["passed"]
    _invented_answer(made)
    shown = str(entry(judged(made, tmp_path / "other"), "ungrounded_share")["offenders"])
    assert "not 1999, Zoe, Quill" in shown
    assert "golden carpets" in shown
    assert "Ada Moss built the mill" not in shown


def test_gate_passes_without_labelled_records(tmp_path: Path) -> None:
    made = Raw()
    made.rows["labelled"] = []
    settings = raw.Settings.model_validate(GATES["raw"] | {"min_rows": dict.fromkeys(GATES["raw"]["min_rows"], 0)})
    frames = raw.profile(settings, made.write(tmp_path))
    assert verdict_on("raw", frames, raw.expectations(settings))["passed"]


def test_gate_names_counts_and_masks_offending_records(tmp_path: Path) -> None:
    made = Raw()
    for i in range(3):
        made.add("documents", f"The card in the house of the friend is {VISA} number {i}, also {VISA}.")
    found = entry(judged(made, tmp_path), "personal_card")
    assert found["count"] == 3
    assert [record["origin"] for record in found["records"]] == [f"made:documents:{n}" for n in (40, 41, 42)]
    assert VISA not in str(found)
    assert VISA[4:12] not in str(found)
    assert found["params_key"] == "gates.raw.max_personal.card"


def test_profile_names_a_missing_file(tmp_path: Path) -> None:
    data = Raw().write(tmp_path)
    (data / "raw" / "ledger.json").unlink()
    with pytest.raises(UserError, match=r"ledger.json.*dvc repro download"):
        raw.profile(SETTINGS, data)


def test_profile_guesses_languages_of_evenly_spaced_records(tmp_path: Path) -> None:
    made = Raw()
    texts = [text_of(random.Random(i), "en", 30) for i in range(100)]
    made.rows["documents"] = [record("documents", {"text": text}, "tr", i) for i, text in enumerate(texts)]
    language = GATES["raw"]["language"] | {"sample": 10, "min_share": {}}
    settings = raw.Settings.model_validate(GATES["raw"] | {"language": language})
    frame = raw.profile(settings, made.write(tmp_path))["records"]
    assert frame.rows[0]["language_disagreements"] == 10
    assert frame.rows[0]["language_disagreement_share"] == 1.0


def test_gate_makes_examples_of_shown_records_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example is masked by every finder of personal data: of 500,000 bad rows that took four minutes of five."""
    calls: Counter[str] = Counter()
    excerpt = texts.excerpt
    monkeypatch.setattr(texts, "excerpt", lambda *given: calls.update(["excerpt"]) or excerpt(*given))
    made = Raw()
    for i in range(400):
        made.add("labelled", f"write to a{i}@mail.example about the house and the river {i}", label="ham")
    made.account = made.ledger()
    made.account["made"]["labelled"] |= {"rows_in": 924, "rejected": 500}
    row = {"source": "made", "kind": "labelled", "file": "a.csv", "detail": ""}
    made.rejections = [row | {"line": n, "reason": ("empty", "short_row")[n % 2]} for n in range(500)]
    verdict = judged(made, tmp_path)
    assert entry(verdict, "personal_email")["count"] == 400
    assert entry(verdict, "rejected_share")["count"] == 500
    assert len(entry(verdict, "personal_email")["records"]) == MOST_EXAMPLES
    assert calls["excerpt"] <= len(verdict["results"]) * MOST_EXAMPLES
    assert calls["excerpt"] < 120


def test_gate_shows_rejected_rows_of_every_reason(tmp_path: Path) -> None:
    """A reason that occurs once after 10,000 rows of another would else be hidden."""
    made = Raw()
    made.account = made.ledger()
    made.account["made"]["documents"] |= {"rows_in": 140, "rejected": 100}
    row = {"source": "made", "kind": "documents", "file": "a.txt", "detail": "d"}
    made.rejections = [row | {"line": n, "reason": "empty" if n < 99 else "nul"} for n in range(100)]
    shown = [record["text"] for record in entry(judged(made, tmp_path), "rejected_share")["records"]]
    assert shown == ["empty: d"] * 10 + ["nul: d"]


def test_gate_lists_a_bounded_number_of_labels_and_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """500,000 labels, an id taken for one, needed 900 MiB and gave a page of 500,000 lines."""
    monkeypatch.setattr(values, "MOST_VALUES", 5)
    made = Raw()
    for i, row in enumerate(made.rows["labelled"]):
        row["label"] = f"id{i}"
    for i, row in enumerate(made.rows["documents"]):
        row["language"] = ("en", "tr", f"x{i}")[i % 3]
    verdict = judged(made, tmp_path)
    found = entry(verdict, "label_share")
    assert found["count"] == 24
    assert len(verdict["profile"]["labels"]) == 6
    assert verdict["profile"]["labels"][-1] == {
        "label": "19 more labels, rarer than that",
        "label_records": 19,
        "label_share": 1 / 24,
    }
    assert verdict["profile"]["label_set"][0]["n_labels"] == 24
    languages = verdict["profile"]["languages"]
    assert [row["documents"] for row in languages] == [14, 13, 1, 1, 1, 10]
    assert languages[-1]["language"] == "10 more languages"


def test_gate_tells_measured_values_and_bounds_of_every_rule(tmp_path: Path) -> None:
    made = Raw()
    made.add_answer("Ada Moss built the mill.", MILL)
    made.rate(rows([("u-1", 1, "thumb:up")]))
    results = judged(made, tmp_path)["results"]
    for result in results:
        assert result["measured"], result["column"]
        for row in result["measured"]:
            assert not re.search("[{}]|None", row["finding"] + row["bound"] + row["params_key"]), row
            assert not row["failed"]
    by_column = {result["column"]: result["measured"] for result in results}
    assert by_column["too_short"][1] == {
        "row": "labelled",
        "kind": "labelled",
        "failed": False,
        "finding": f"0 of 24 records are shorter than 10 characters; the shortest has {_shortest(Raw())}",
        "bound": "at most 0",
        "params_key": "gates.raw.characters.labelled.at_least",
    }
    assert by_column["rows"][0]["bound"] == "at least 20"
    assert by_column["licence_stated"][0]["params_key"] == "download.sources.made.licence"


def _shortest(made: Raw) -> int:
    return min(len(row["text"]) for row in made.rows["labelled"])


def test_gate_finds_turkish_of_windows_1254_that_was_read_as_1252(tmp_path: Path) -> None:
    made = Raw()
    made.add("labelled", "Sayýn yetkili, Ayþe adlý müþterimiz için teþekkür ederiz; iþlem güzel geçti 0", "tr")
    assert failed(judged(made, tmp_path)) == {"mojibake"}


def test_gate_admits_the_columns_that_sources_add_and_no_other(tmp_path: Path) -> None:
    """Lost otherwise: a column that no source names, which training could weight by."""
    made = Raw()
    for row in made.rows["labelled"]:
        row |= {"region": "ege", "group": "customer"}
    assert failed(judged(made, tmp_path)) == {"found_type"}
    made.sources["made"]["columns"] = {"labelled": ["group", "region"]}
    assert not failed(judged(made, tmp_path))
    made.sources["made"]["columns"] = {"labelled": ["group", "region", "time"]}
    assert failed(judged(made, tmp_path)) == {"found_type"}
    made.sources["made"]["columns"] = {"documents": ["group", "region"]}
    assert failed(judged(made, tmp_path)) == {"found_type"}


def test_gate_counts_every_label_of_records_with_several(tmp_path: Path) -> None:
    """Lost otherwise: every set of labels would count as a label, and rare sets would stop the data."""
    made = Raw()
    made.sources["made"]["label_form"] = "several"
    for i, row in enumerate(made.rows["labelled"]):
        row["label"] = ["[]", '["a"]', '["b"]', '["a", "b"]'][i % 4] if i else '["a", "rare"]'
    verdict = judged(made, tmp_path)
    shares = {row["label"]: row["label_records"] for row in verdict["profile"]["labels"]}
    assert shares == {"a": 13, "b": 12, "rare": 1}
    assert failed(verdict) == {"label_share"}
    made.rows["labelled"][0]["label"] = '["a"]'
    assert not failed(judged(made, tmp_path))


def test_gate_asks_no_share_of_numbers_but_two_different_ones(tmp_path: Path) -> None:
    made = Raw()
    made.sources["made"]["label_form"] = "number"
    for i, row in enumerate(made.rows["labelled"]):
        row["label"] = str(i / 4)
    verdict = judged(made, tmp_path)
    assert not failed(verdict)
    assert verdict["profile"]["labels"] == []
    for row in made.rows["labelled"]:
        row["label"] = "3"
    assert failed(judged(made, tmp_path)) == {"n_labels"}


@pytest.mark.parametrize(("women", "warned"), [(4, False), (1, True), (0, True)])
def test_gate_warns_of_a_group_that_texts_state_too_seldom(women: int, warned: bool, tmp_path: Path) -> None:
    """Shares among the records that state a group; a man and a woman in one text count for both, a snowman for none."""
    groups = {"women": ["woman", "kadın"], "men": ["man", "erkek"]}
    attributes = {"sex": raw.Attribute(groups=groups, min_share=0.3)}
    settings = SETTINGS.model_copy(update={"attributes": attributes})
    made = Raw()
    for number in range(8):
        word = "Kadın" if number < women else "ERKEK"
        made.add("documents", f"{made.rows['documents'][number]['text']} {word}, snowman.", "tr")
    frames = raw.profile(settings, made.write(tmp_path))
    shares = {row["group"]: row["stated_share"] for row in frames["attributes"].rows if row["kind"] == "documents"}
    assert shares == {"women": women / 8, "men": 1 - women / 8}
    assert ("stated_share" in failed(verdict_on("raw", frames, raw.expectations(settings)))) == warned
