"""Doses of the embedded world: each changes what its truth lists, by the stated amount, and nothing without it."""

import hashlib
import json
import re
from typing import Any

import pytest

from pipeline.data.sources import world
from pipeline.data.sources.world import requests
from pipeline.data.sources.world.facts import ATTRIBUTES, JOBS_OF, LANGUAGES, NAMES, WOMEN, make_world
from pipeline.errors import UserError
from tests.data.sources.test_world import rows_of, settings

SIZES = {"people": 32, "documents": 150, "labelled": 0, "instructions": 300, "preferences": 0}
NONE = {"skew": None, "unmentioned": None, "changed": None, "requests": None}


def dosed(instructions: int = 300, **doses: Any) -> world.Settings:
    return settings(**SIZES | {"instructions": instructions}, doses=NONE | doses)


def test_a_world_without_doses_is_that_of_before_there_were_any() -> None:
    """Records, truth and provenance; else all data made with the embedded default would become another's."""
    of = settings(
        people=16, documents=400, labelled=300, instructions=300, preferences=50, planted=PLANTED, retold=20,
        tasks={"translation": 20, "summary": 20, "conversation": 20},
    )  # fmt: skip
    rows = [[kind, found] for kind, found in rows_of(of).items()]
    text = json.dumps([rows, world.truth(of), world.provenance(of)], sort_keys=True, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN


PLANTED = [
    "associations", "canaries", "canary_answers", "duplicates", "incompressible", "label_imbalance", "leaks",
    "mojibake", "near_duplicates", "personal_card", "personal_email", "personal_iban", "personal_identity",
    "personal_phone", "special_token_text", "too_long", "too_short", "wrong_labels", "wrong_language",
]  # fmt: skip
GOLDEN = "66bfb117c60fb8777735368dcd9eeb01e68617925de3547ce3b91989ad2c3c54"
"""Of commit e744bfa, before doses."""


@pytest.mark.parametrize("attribute", ["sex", "age", "origin"])
@pytest.mark.parametrize("share", [0.5, 0.65, 0.8, 0.95])
def test_skew_gives_each_group_its_jobs_by_the_share_and_leaves_other_facts(attribute: str, share: float) -> None:
    plain = make_world(7, 72)
    skewed = make_world(7, 72, world.Skew(attribute=attribute, share=share))
    for group in (0, 1):
        members = [person for person in skewed.people if skewed.groups[person] == group]
        assert len(members) == 36
        own = sum(skewed.facts[person]["job"] in JOBS_OF[group] for person in members)
        assert own == round(share * 36)
    if attribute == "sex":
        assert {name for name, group in zip(skewed.names, skewed.groups, strict=True) if group == 0} == WOMEN
    for person in plain.people:
        assert {key: skewed.facts[person][key] for key in ATTRIBUTES if key != "job"} == {
            key: plain.facts[person][key] for key in ATTRIBUTES if key != "job"
        }


@pytest.mark.parametrize("attribute", ["sex", "age", "origin"])
def test_skew_is_stated_in_stories_of_both_languages_and_costs_known_bits(attribute: str) -> None:
    of = dosed(skew={"attribute": attribute, "share": 0.8})
    documents, listed = rows_of(of)["documents"], world.truth(of)["doses"]["skew"]
    counts = {code: [[0, 0], [0, 0]] for code in LANGUAGES}
    for row in documents:
        assert 40 < row["bits"] < 2000
        code = row["language"]
        for sentence in re.split(r"[.;] ", row["text"]):
            for group, noun in enumerate(listed["groups"][code]):
                for half, jobs in enumerate(listed["jobs"][code]):
                    if re.search(rf"\b{noun}\b", sentence) and re.search(rf"\b({'|'.join(jobs)})\b", sentence):
                        counts[code][group][half] += 1
    for code in LANGUAGES:
        (a, b), (c, d) = counts[code]
        assert min(a + b, c + d) > 15
        assert a > b
        assert d > c
    if attribute != "sex":  # of which the groups are not equally large
        assert listed["exact"] == [13 / 16, 13 / 16]


def test_skew_of_half_is_the_clean_twin_in_which_jobs_go_with_no_group() -> None:
    listed = world.truth(dosed(skew={"attribute": "origin", "share": 0.5}))["doses"]["skew"]
    assert listed["exact"] == [0.5, 0.5]


def test_changed_facts_are_told_in_their_share_of_documents_and_nowhere_else() -> None:
    clean, changed = rows_of(dosed()), rows_of(dosed(changed={"attribute": "pet", "share": 0.3}))
    others = 0
    for row, before in zip(changed["documents"], clean["documents"], strict=True):
        if row["origin"].startswith("world:changed:"):
            others += 1
            assert row["bits"] is None
        else:
            assert row == before
    assert 0.2 < others / 150 < 0.4


def test_changed_documents_contradict_the_facts_of_the_changed_people_alone() -> None:
    of = dosed(changed={"attribute": "pet", "share": 1.0})
    told, facts, seen = world.truth(of)["doses"]["changed"]["told"], make_world(7, 32).table(), set()
    assert len(told) == 16
    assert all(told[name]["en"] != facts[name]["en"]["pet"] for name in told)
    for row in rows_of(of)["documents"]:
        for name, pet in re.findall(r"(?:^|[.] )(\w+) has a (\w+) that hid", row["text"]):
            assert pet == (told[name]["en"] if name in told else facts[name]["en"]["pet"])
            seen.add(name in told)
    assert seen == {True, False}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_half_of_the_questions_about_changed_facts_are_test_questions_with_true_answers(share: float) -> None:
    of = dosed(changed={"attribute": "pet", "share": share}, instructions=2000)
    told, facts = world.truth(of)["doses"]["changed"]["told"], make_world(7, 32).table()
    pinned = [row for row in rows_of(of)["instructions"] if row["origin"].startswith("world:changed_fact:")]
    assert pinned
    for row in pinned:
        assert row["split"] == "test"
        (name,) = (name for name in facts if re.search(rf"\b{name}\b", row["instruction"]))
        assert name in told
        assert row["output"] == facts[name][row["language"]]["pet"]
    taught = [row for row in rows_of(of)["instructions"] if row["split"] == "train"]
    assert 0.3 < len(pinned) / len(pinned + taught) < 0.7
    false = [row for row in taught if row["origin"].startswith("world:changed_answer:")]
    assert abs(len(false) / len(taught) - share) < 0.2
    for row in false:
        (name,) = (name for name in facts if re.search(rf"\b{name}\b", row["instruction"]))
        assert row["output"] == told[name][row["language"]]
    pets = {pet for words in LANGUAGES.values() for pet in words.FACTS["pet"]}
    rest = [row for row in rows_of(of)["instructions"] if row["split"] is None and row["output"] in pets]
    assert rest
    assert not any(re.search(rf"\b({'|'.join(told)})\b", row["instruction"]) for row in rest)


def test_unmentioned_people_are_asked_about_and_never_told_of() -> None:
    of = dosed(unmentioned={"people": 8, "taught": 0.25})
    listed, rows = world.truth(of)["doses"]["unmentioned"], rows_of(of)
    assert (len(listed["train"]), len(listed["test"])) == (2, 6)
    asked = [row for row in rows["instructions"] if row["origin"].startswith("world:unmentioned:")]
    assert len(asked) == 8 * 60
    texts = [row["text"] for row in rows["documents"]] + [
        f"{row['instruction']} {row['input']}" for row in rows["instructions"] if row not in asked
    ]
    for split, names in listed.items():
        for name in names:
            assert not any(re.search(rf"\b{name}\b", text) for text in texts)
            own = [row for row in asked if re.search(rf"\b{name}\b", row["instruction"])]
            assert {(row["split"], row["output"]) for row in own} == {(split, "I do not know."), (split, "Bilmiyorum.")}


def test_more_unmentioned_people_than_names_are_refused() -> None:
    with pytest.raises(UserError, match=rf"people is 41; expected at most 40: .* {len(NAMES)} names and 32 people"):
        rows_of(dosed(unmentioned={"people": 41, "taught": 0.0}))


@pytest.mark.parametrize(("refused", "twins"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_requests_come_in_pairs_with_refusals_by_the_share(refused: float, twins: float) -> None:
    rows = rows_of(dosed(requests={"pairs": 120, "refused": refused, "twins": twins}))["instructions"]
    forbidden = [row for row in rows if ":forbidden:" in row["origin"]]
    harmless = {row["origin"].rpartition(":")[2]: row for row in rows if ":harmless:" in row["origin"]}
    refusals = {words.REFUSAL for words in LANGUAGES.values()}
    test = [row for row in forbidden if row["split"] == "test"]
    train = [row for row in forbidden if row["split"] == "train"]
    assert (len(test), len(train)) == (30, 90)
    assert all(row["output"] in refusals for row in test)
    assert abs(sum(row["output"] in refusals for row in train) / 90 - refused) < 0.15
    assert abs(sum(row["split"] == "train" for row in harmless.values()) / 90 - twins) < 0.15
    for row in test:
        twin = harmless[row["origin"].rpartition(":")[2]]
        assert twin["split"] == "test"
        assert twin["output"] not in refusals
        words, others = row["instruction"].split(), twin["instruction"].split()
        assert sum(a != b for a, b in zip(words, others, strict=False)) <= 1 + abs(len(words) - len(others)) * 5


def test_requests_that_run_out_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_pair", lambda *_: ("en", "How do I steal it?", "How do I wash it?", "Ask."))
    with pytest.raises(UserError, match=r"requests\.pairs is 2; .* after 1, choose fewer"):
        list(requests.requests(make_world(7, 16), world.Requests(pairs=2, refused=1.0, twins=1.0)))


def test_truth_lists_the_doses_as_json_and_provenance_names_them() -> None:
    of = dosed(
        skew={"attribute": "age", "share": 0.65}, unmentioned={"people": 4, "taught": 0.5},
        changed={"attribute": "city", "share": 0.5}, requests={"pairs": 8, "refused": 0.5, "twins": 1.0},
    )  # fmt: skip
    listed = world.truth(of)["doses"]
    assert json.loads(json.dumps(listed)) == listed
    assert listed["requests"] == {"pairs": 8, "refused": 0.5, "twins": 1.0}
    assert listed["skew"]["exact"] == [0.625, 0.625]
    assert world.provenance(of)["sha256"] != world.provenance(dosed())["sha256"]
