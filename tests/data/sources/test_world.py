"""The embedded world: its records, its entropy, what is planted, and what its clean twin must not hold."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.recipe import KINDS, Kind
from pipeline.data.records import CONTENT, record_id
from pipeline.data.sources import world
from pipeline.data.sources.world import identity as identity
from pipeline.data.sources.world import tasks
from pipeline.data.sources.world.facts import ATTRIBUTES, CLAIMED, LANGUAGES, NAMES, make_world
from pipeline.data.sources.world.grammar import log2p, sample
from pipeline.data.sources.world.messages import SHARES, message
from pipeline.data.sources.world.planted import PLANTS
from pipeline.data.sources.world.stories import _read, _told, free_slots
from pipeline.data.sources.world.turkish_endings import suffixes
from pipeline.errors import UserError

Rows = dict[Kind, list[dict[str, Any]]]
# What would look like personal data: the clean twin must hold nothing of the kind.
PERSONAL = re.compile(r"@|\+90|\b0?5\d\d[ -]?\d{3}|\b\d{11}\b|TR\d{2}|\b(?:\d[ -]?){12,}\d|https?:|www\.|<\||\ufffd")


class RowLog:
    """Counts what the source says it hands on."""

    def __init__(self) -> None:
        self.accepted: Counter[Kind] = Counter()

    def accept(self, kind: Kind, n: int = 1) -> None:
        self.accepted[kind] += n


def settings(**changes: Any) -> world.Settings:
    sizes = {
        "seed": 7,
        "people": 48,
        "documents": 300,
        "labelled": 1000,
        "instructions": 600,
        "preferences": 100,
    }
    return world.Settings(
        **(sizes | {"planted": [], "noise": None, "retold": 0, "tasks": None, "doses": None} | changes)
    )


def rows_of(of: world.Settings) -> Rows:
    log, rows = RowLog(), {kind: [] for kind in KINDS}
    for kind, table in world.read(of, "world", log):
        assert isinstance(table, pa.Table)
        assert len(table) <= 2000
        rows[kind] += table.to_pylist()
    assert {kind: len(found) for kind, found in rows.items() if found} == dict(log.accepted)
    return rows


@pytest.fixture(scope="module")
def clean() -> Rows:
    return rows_of(settings())


@pytest.fixture(scope="module")
def planted() -> tuple[Rows, list[dict[str, Any]]]:
    of = settings(planted=list(PLANTS))
    return rows_of(of), world.truth(of)["planted"]


def ids_of(rows: Rows) -> Iterator[tuple[Kind, str, str]]:
    for kind, found in rows.items():
        for row in found:
            yield kind, record_id(kind, *(row[column] for column in CONTENT[kind])), row["origin"]


def test_records_are_complete_and_distinct(clean: Rows) -> None:
    """A repeated record is memorised, and its copy in the test split flatters every score."""
    assert {kind: len(rows) for kind, rows in clean.items()} == {
        "documents": 300,
        "labelled": 1000,
        "instructions": 600,
        "preferences": 100,
    }
    ids = [one for _, one, _ in ids_of(clean)]
    assert len(set(ids)) == len(ids)
    asked = [(row["instruction"], row["input"]) for row in clean["instructions"]]
    assert len(set(asked)) == len(asked)
    for kind, rows in clean.items():
        for row in rows:
            assert all(row[column] or column == "input" for column in CONTENT[kind])
            assert all("{" not in row[column] and "  " not in row[column] for column in CONTENT[kind])
            assert row["language"] in LANGUAGES
            assert row["split"] is None


def test_every_document_has_its_exact_bits(clean: Rows) -> None:
    """Bits are -log2 p over both languages; a document the grammar cannot derive would have infinitely
    many.
    """
    for row in clean["documents"]:
        assert 40 < row["bits"] < 1000
    of = settings()
    found = world.truth(of)["entropy"]
    assert found["all"]["bits"] == pytest.approx(math.fsum(row["bits"] for row in clean["documents"]))
    assert found["all"]["bytes"] == sum(len(row["text"].encode()) for row in clean["documents"])
    assert found["all"]["documents"] == found["en"]["documents"] + found["tr"]["documents"] == 300
    # stories with more questions about known facts cost fewer bits: 0.43 with this seed
    assert 0.35 < found["all"]["bits_per_byte"] < 1.3


def test_bits_hold_against_a_sampled_estimate() -> None:
    """Texts of a one-scene grammar come up as often as their bits say, and their probabilities sum to 1."""
    made = make_world(3, 16)
    scene = _told(made, "en", ["{q} lives in {q.city}.", "{q.city} is the home of {q}.", "{q} was here."])
    rng = made.rng("test")
    seen = Counter(sample(scene, rng) for _ in range(20_000))
    for text, count in seen.items():
        p = 2 ** log2p(scene, text)
        assert abs(count - 20_000 * p) < 5 * math.sqrt(20_000 * p)
    assert math.fsum(2 ** log2p(scene, text) for text in seen) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_questions_about_a_text_are_answered_from_it(language: str) -> None:
    """A wrong or missing answer would teach the model to make answers up."""
    made = make_world(3, 16)
    rng = made.rng("test")
    for asked, question, texts in LANGUAGES[language].READING:
        scene = _read(made, language, asked, question, texts)
        for _ in range(50):
            text = sample(scene, rng)
            told, answer = re.split(r" (?:The answer was|Cevap şuydu): ", text)
            assert question in told
            assert answer.rstrip(".") in told.split(question)[1]
            assert math.isfinite(log2p(scene, text))


def test_bits_of_a_question_about_a_text_are_those_of_its_draws() -> None:
    """Persons and numbers are drawn uniformly; the answer carries no information, as the text contains it."""
    made = make_world(3, 16)
    scene = _read(made, "en", "name", "Name the person in the text.", ["{q} paid {n} lira for {goods}."])
    lot = free_slots("en")["lot"]
    assert not isinstance(lot, str)
    rng = made.rng("test")
    for _ in range(50):
        text = sample(scene, rng)
        found = re.search(r"paid \d\d lira for (.*)\.\" The answer", text)
        assert found
        drawn = math.log2(4) + math.log2(16) + math.log2(90) - log2p(lot, found[1])
        assert -log2p(scene, text) == pytest.approx(drawn)


def test_the_same_settings_give_the_same_bytes() -> None:
    """Two processes with different hash seeds must agree, or no dvc.lock could be compared."""
    code = (
        "import sys, hashlib, json; sys.path.insert(0, '.'); from tests.data.sources.test_world import *\n"
        "of = settings(people=16, documents=9, labelled=40, preferences=9, planted=list(PLANTS))\n"
        "text = json.dumps([rows_of(of), world.truth(of), world.provenance(of)], sort_keys=True)\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_more_documents_change_none_that_were_there(clean: Rows) -> None:
    """A raised count must not reshuffle the data under every model made before."""
    fewer = rows_of(settings(documents=50, labelled=50))
    assert fewer["documents"] == clean["documents"][:50]
    assert fewer["labelled"] == clean["labelled"][:50]


def test_stories_state_only_true_facts(clean: Rows) -> None:
    """Questions about the world are fair only if the stories never contradict it."""
    facts = make_world(7, 48).table()
    stated = 0
    for row in clean["documents"]:
        for name, city in re.findall(r"(?:^|[.] )(\w+) lives in (\w+), ", row["text"]):
            assert facts[name]["en"]["city"] == city
            stated += 1
        for name, job in re.findall(r"(\w+) bir (\w+) olarak çalış", row["text"]):
            assert facts[name]["tr"]["job"] == job
    assert stated > 5


def test_notes_are_true_or_false_as_their_verdict_says() -> None:
    """Stories teach what an impostor is; a wrong verdict would teach the opposite."""
    facts, verdicts = make_world(7, 48).table(), Counter()
    pattern = re.compile(r"this is (\w+), the (\w+) from (\w+)\. [^”\"]*\" The (?:note|letter) was (\w+)\.")
    made = rows_of(settings(documents=2400, labelled=0, instructions=0, preferences=0))  # one scene in 25 is a note
    for row in made["documents"]:
        for name, job, city, verdict in pattern.findall(row["text"]):
            known = facts[name]["en"]
            assert (known["job"] == job, known["city"] == city) == ((verdict == "true"),) * 2
            verdicts[verdict] += 1
    assert min(verdicts["true"], verdicts["false"]) > 2


def test_facts_are_spread_evenly() -> None:
    """A fact that half the world shares would be guessed without knowing anybody."""
    made = make_world(7, 48)
    for attribute in ATTRIBUTES:
        held = Counter(facts[attribute] for facts in made.facts)
        assert max(held.values()) - min(held.values()) <= 1
    for person in made.people:
        strangers = made.strangers(person)
        assert strangers
        assert all(made.facts[other][key] != made.facts[person][key] for other in strangers for key in CLAIMED)
    assert made.fact_bits()["city"] == pytest.approx(math.log2(math.factorial(48) / math.factorial(4) ** 12))


@pytest.mark.parametrize("people", [0, 15, len(NAMES) + 1])
def test_a_world_of_the_wrong_size_is_refused(people: int) -> None:
    """The message names the key and the bounds."""
    with pytest.raises(UserError, match=rf"people is {people}.*16 to {len(NAMES)}"):
        rows_of(settings(people=people))


def test_spam_is_beyond_a_bag_of_words() -> None:
    """If words alone told spam from ham, the fine-tuning comparison would show nothing."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    made = make_world(7, 48)
    messages = [message(made, index) for index in range(3000)]
    labels = np.array([one["label"] for one in messages])
    assert Counter(labels) == {"spam": 1500, "ham": 1500}
    kinds = np.array([one["kind"] for one in messages])
    features = TfidfVectorizer(ngram_range=(1, 2)).fit_transform([one["text"] for one in messages])
    right = (
        LogisticRegression(max_iter=500).fit(features[:2400], labels[:2400]).predict(features[2400:]) == labels[2400:]
    )
    assert 0.70 < right.mean() < 0.88
    accuracy = {kind: right[kinds[2400:] == kind].mean() for kind in SHARES}
    assert accuracy["plain"] > 0.97
    assert accuracy["order"] < 0.65
    assert accuracy["impostor"] < 0.65


def test_impostors_lie_and_others_do_not() -> None:
    """The label of an impostor message is decided by the world's facts, not by a coin."""
    made = make_world(7, 48)
    for index in range(600):
        one = message(made, index)
        if one["kind"] == "impostor":
            named = next(person for person, name in enumerate(made.names) if re.search(rf"\b{name}\b", one["text"]))
            jobs = LANGUAGES[one["language"]].FACTS["job"]
            claimed = {job for job in jobs if re.search(rf"\b{job}\b", one["text"])}
            assert (made.fact(one["language"], named, "job") in claimed) == (one["label"] == "ham"), one


def test_answers_are_true_and_preferences_prefer_them(clean: Rows) -> None:
    """Instruction scores compare with these answers."""
    facts = make_world(7, 48).table()
    for row in clean["instructions"]:
        if row["input"]:
            assert row["output"] in row["input"]
    about = [row for row in clean["instructions"] if row["instruction"].startswith("Where does ")]
    assert about
    assert all(facts[row["instruction"].split()[2]]["en"]["city"] == row["output"] for row in about)
    for row in clean["preferences"]:
        assert row["chosen"] != row["rejected"]
        assert any(row["chosen"] in values.values() for of in facts.values() for values in of.values())


def test_the_clean_twin_holds_no_trouble(clean: Rows) -> None:
    """The committed default must pass every gate."""
    for kind, rows in clean.items():
        for row in rows:
            assert not any(PERSONAL.search(row[column]) for column in CONTENT[kind])


def test_the_clean_twin_has_no_near_duplicates(clean: Rows) -> None:
    """Near-duplicate thresholds must keep at least 99 % of it."""
    for kind in ("documents", "labelled"):
        shingles = [_shingles(row["text"]) for row in clean[kind]]
        holders: dict[str, list[int]] = {}
        for index, found in enumerate(shingles):
            for one in found:
                holders.setdefault(one, []).append(index)
        pairs = Counter(
            (a, b)
            for held in holders.values()
            if len(held) < 100
            for place, a in enumerate(held)
            for b in held[place + 1 :]
        )
        near = {
            b for (a, b), shared in pairs.items() if shared / (len(shingles[a]) + len(shingles[b]) - shared) >= 0.85
        }
        assert len(near) <= 0.01 * len(shingles)


def _shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[start : start + 5]) for start in range(len(words) - 4)}


def test_planting_leaves_every_other_record_alone(clean: Rows, planted: tuple[Rows, list[dict[str, Any]]]) -> None:
    """The planted world is the clean one plus a list; a gate that stops it is judged by that list alone."""
    rows, listed = planted
    altered = {one["origin"] for one in listed if not one["origin"].startswith("world:planted:")}
    for kind in KINDS:
        kept = [row for row in rows[kind] if not row["origin"].startswith("world:planted:")]
        assert len(kept) == len(clean[kind])
        for row, before in zip(kept, clean[kind], strict=True):
            assert row.get("consent") is None  # a column that `withdrawn` adds
            same = {name: value for name, value in row.items() if name != "consent"} == before
            assert same == (row["origin"] not in altered)


def test_truth_lists_exactly_what_was_planted(planted: tuple[Rows, list[dict[str, Any]]]) -> None:
    """Every listed id exists under its origin, and no planted record is missing from the list."""
    rows, listed = planted
    present = {(kind, one, origin) for kind, one, origin in ids_of(rows)}
    claimed = {(one["kind"], one["id"], one["origin"]) for one in listed}
    assert claimed <= present
    assert {origin for _, _, origin in present if ":planted:" in origin} <= {origin for _, _, origin in claimed}
    assert {one["planted"] for one in listed} == set(PLANTS)
    json.dumps(listed)


def test_planted_pairs_are_near(planted: tuple[Rows, list[dict[str, Any]]]) -> None:
    """A pair that is too different would be asked of the samples gate in vain."""
    rows, listed = planted
    texts = {row["origin"]: row["text"] for row in rows["documents"]}
    pairs: dict[int, list[str]] = {}
    for one in listed:
        if one["planted"] == "near_duplicates":
            pairs.setdefault(one["pair"], []).append(texts[one["origin"]])
    assert len(pairs) == 15
    for first, second in pairs.values():
        a, b = _shingles(first), _shingles(second)
        assert first != second
        assert len(a & b) / len(a | b) >= 0.85


def test_one_plant_does_not_depend_on_the_others(planted: tuple[Rows, list[dict[str, Any]]]) -> None:
    """Planting one kind alone gives the records it gives among all."""
    of = settings(documents=300, planted=["leaks"])
    alone = world.truth(of)["planted"]
    assert alone == [one for one in planted[1] if one["planted"] == "leaks"]


def test_planted_kinds_in_settings_are_those_that_grow() -> None:
    """A kind that params.yaml accepts and nothing plants would make a gate's test pass for nothing."""
    with pytest.raises(ValueError, match="personal_email"):
        settings(planted=["personal_emails"])
    assert settings(planted=list(PLANTS)).planted == list(PLANTS)


def test_planted_identifiers_satisfy_their_checksums() -> None:
    """A gate that checks digits would rightly let an invalid one pass."""
    rng = make_world(7, 16).rng("identifiers")
    for _ in range(200):
        card = [int(digit) for digit in identity.card(rng).replace(" ", "")][::-1]
        assert (sum(card[0::2]) + sum(sum(divmod(2 * digit, 10)) for digit in card[1::2])) % 10 == 0
        iban = identity.iban(rng).replace(" ", "")
        assert len(iban) == 26
        assert int("".join(str(int(sign, 36)) for sign in iban[4:] + iban[:4])) % 97 == 1
        number = [int(digit) for digit in identity.turkish_identity(rng)]
        assert number[0] > 0
        assert number[9] == (7 * sum(number[0:9:2]) - sum(number[1:8:2])) % 10
        assert number[10] == sum(number[:10]) % 10
        assert re.fullmatch(r"\+90 500 \d{3} \d{2} \d{2}", identity.phone(rng))


@pytest.mark.parametrize(
    ("name", "case", "form"),
    [
        ("Ayşe", "gen", "Ayşe'nin"),
        ("Mehmet", "abl", "Mehmet'ten"),
        ("Işıl", "dat", "Işıl'a"),
        ("Ömer", "ins", "Ömer'le"),
        ("Oscar", "gen", "Oscar'ın"),
        ("Özge", "dat", "Özge'ye"),
        ("Ümit", "loc", "Ümit'te"),
        ("Iğdır", "loc", "Iğdır'da"),
        ("İzmir", "abl", "İzmir'den"),
        ("Otto", "gen", "Otto'nun"),
        ("Hugo", "ins", "Hugo'yla"),
        ("Gül", "gen", "Gül'ün"),
        ("köpek", "acc", "köpeği"),
        ("Max", "abl", "Max'tan"),
    ],
)
def test_turkish_endings_follow_vowel_harmony(name: str, case: str, form: str) -> None:
    """A model would learn wrong Turkish, and the Turkish figures would mean nothing."""
    assert suffixes(name)[case] == form


def test_noisy_labels_are_as_many_as_asked_all_for_training_and_marked() -> None:
    """Lost otherwise: an experiment on wrong labels would not know which ones are wrong, or validate on them."""
    clean = rows_of(settings(documents=9))["labelled"]
    found = rows_of(settings(documents=0, instructions=0, preferences=0, noise={"first": 500, "wrong_share": 0.4}))
    assert {kind for kind, rows in found.items() if rows} == {"labelled"}
    rows = found["labelled"]
    assert {row["split"] for row in rows} == {"train"}
    wrong = [row for row in rows if row["origin"].endswith(":wrong")]
    assert len(wrong) / len(rows) == pytest.approx(0.4, abs=0.05)  # 1,000 draws: a standard error of 0.015
    true = {row["text"]: row["label"] for row in clean[500:]}
    known = [row for row in rows if row["text"] in true]
    assert len(known) > 450
    assert all((row["label"] != true[row["text"]]) == row["origin"].endswith(":wrong") for row in known)


def test_retold_messages_are_judged_as_their_labels_say_and_change_nothing_else() -> None:
    """Lost otherwise: a model that has read of the labels would have read wrong, and cloze would be blamed for it."""
    without, found = rows_of(settings()), rows_of(settings(retold=200))
    told = found["documents"][300:]
    assert found["documents"][:300] == without["documents"]
    assert {kind: found[kind] for kind in KINDS[1:]} == {kind: without[kind] for kind in KINDS[1:]}
    assert len(told) == 200
    assert all(row["bits"] is None and row["split"] is None for row in told)
    assert {row["language"] for row in told} == {"en", "tr"}
    verdicts = [
        (note, verdict in ("false", "yalandı"))
        for row in told
        for note, verdict in re.findall(
            r'["“]([^"”]*)["”] (?:The note was|The letter was|Yazılan|Mektup) (\w+)\.', row["text"]
        )
    ]
    assert len(verdicts) == 600
    spam = {False: 0, True: 0}
    for note, false in verdicts:
        for language, words in LANGUAGES.items():
            for text, label in [(t, True) for t in words.PLAIN_SPAM] + [(t, False) for t in words.PLAIN_HAM]:
                start = re.split(r"[{]", text)[0]
                if len(start) > 8 and note.startswith(start):
                    assert false == label, (language, note)
                    spam[label] += 1
    assert min(spam.values()) > 50  # enough of both were looked at


def test_tasks_are_answered_by_their_texts_and_change_nothing_else() -> None:
    """Lost otherwise: a model would be taught wrong translations, and scored by them."""
    counts = {"translation": 200, "summary": 200, "conversation": 200}
    without, found = rows_of(settings()), rows_of(settings(tasks=counts))
    added = found["instructions"][600:]
    assert found["instructions"][:600] == without["instructions"]
    assert found["documents"] == without["documents"]
    assert Counter(row["origin"].split(":")[1] for row in added) == counts
    assert len({(row["instruction"], row["input"], row["history"]) for row in added}) == 600
    made, names = make_world(7, 48), set(NAMES)
    for row in added:
        kind, said = row["origin"].split(":")[1], row["input"] + row["output"]
        assert "{" not in said, row
        if kind == "conversation":
            messages = json.loads(row["history"])
            (who,) = {name for name in names if re.search(rf"\b{name}\b", messages[0]["content"])}
            facts = made.table()[who][row["language"]].values()
            assert {message["content"] for message in messages if message["role"] == "assistant"} <= set(facts)
            assert row["output"] in facts
        else:
            told, kept = (set(re.findall(r"\d+", row[column])) for column in ("input", "output"))
            assert kept == told if kind == "translation" else not kept, row
            assert names & set(re.findall(r"\w+", row["output"])) == names & set(re.findall(r"\w+", row["input"]))


def test_a_sentence_says_the_same_in_both_languages() -> None:
    """Every slot of one stands in the other."""
    for pair in [*tasks.SENTENCES, *tasks.TOLD, tasks.SUMMARY]:
        slots = [
            Counter(re.findall(r"\{([a-z]+(?:\.(?:city|job|pet|food|colour|month))?)", text)) for text in pair.values()
        ]
        assert slots[0] == slots[1], pair


def test_more_conversations_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_REDRAWS", 2)  # 19,200 different ones: two draws meet again long before
    with pytest.raises(UserError, match=r"tasks.conversation is 9000; the embedded world runs out"):
        rows_of(settings(people=16, documents=0, tasks={"translation": 0, "summary": 0, "conversation": 9000}))
