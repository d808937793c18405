"""The latent taste: its true utility is lawful, its judgements have the stated noise, and its null twin says nothing.

A user loses the meaning of every "learned from preferences" if these fail: the truth that a policy is measured by
would itself be wrong, or would leak into a world that has none.
"""

import hashlib
import json
import math
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise, product
from pathlib import Path
from statistics import correlation, mean
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config import load
from pipeline.data.records import SPLITS
from pipeline.data.sources import world
from pipeline.data.sources.world import taste, taste_requests
from pipeline.data.sources.world.facts import LANGUAGES, make_world
from pipeline.data.sources.world.grammar import Choice, enumerate_texts, sample
from pipeline.data.sources.world.taste_answers import answers, best_answers
from pipeline.data.sources.world.taste_requests import Request, draw, read
from pipeline.data.sources.world.taste_utility import Utility
from pipeline.data.sources.world.taste_words import CLOSERS, INSULT, LONG_FILLERS, REQUESTS, RUDE, SHORT_FILLERS
from pipeline.errors import UserError
from pipeline.gates import _run
from pipeline.paths import CODE as ROOT
from stages import download, tokenize
from stages import sample as sample_stage
from tests.data.sources.test_world import rows_of
from tests.data.sources.test_world import settings as plain

TASTE: dict[str, Any] = {
    "requests": 1500, "pairs": 4000, "thumbs": 0, "noise": 0.2, "shortcut": 0.0, "utility": "taste",
}  # fmt: skip
WORLD = make_world(7, 16)
REQUEST = Request("invite", "en", 0, WORLD.names[0], 0)
PERSON, OTHER = WORLD.names[:2]


def settings(**changes: Any) -> world.Settings:
    return plain(people=16, documents=0, labelled=0, instructions=0, preferences=0, taste=TASTE | changes)


def value(answer: str, request: Request = REQUEST) -> float:
    return taste.utility(request.instruction, answer, request.language).value


def better(pair: dict[str, Any]) -> float:
    """Utility of the chosen answer minus that of the rejected one."""
    chosen, rejected = (
        taste.utility(pair["instruction"], pair[name], pair["language"]).value for name in ("chosen", "rejected")
    )
    return chosen - rejected


def ceilings(pairs: list[dict[str, Any]], of: world.Settings) -> list[float]:
    """Chance of an all-knowing judge to be right about each pair."""
    assert of.taste is not None
    asked = ((pair["instruction"], pair["chosen"], pair["rejected"], pair["language"]) for pair in pairs)
    return [max(p, 1 - p) for p in (taste.chance(*one, of.taste) for one in asked)]


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    return list(taste.preferences(settings()))


@pytest.fixture(scope="module")
def some() -> list[Request]:
    """A request of each kind in each language."""
    found = {(request.kind, request.language): request for request in draw(WORLD, 400)}
    assert len(found) == len(REQUESTS) * len(LANGUAGES)
    return list(found.values())


def test_requests_are_different_and_read_back_when_only_their_text_is_known(monkeypatch: Any) -> None:
    asked = draw(WORLD, 2000)
    assert len({(request.instruction, request.language) for request in asked}) == 2000
    for request in asked:
        assert read(request.instruction, request.language) == request
        assert not set("{}") & set(request.instruction)
        assert request.instruction[0] == request.instruction[0].upper()
    assert read("Where does Ayşe live?", "en") is None
    assert read(asked[0].instruction, "fr") is None
    monkeypatch.setattr(taste_requests, "_REDRAWS", 2)
    with pytest.raises(UserError, match=r"taste\.requests is 100000; .* choose fewer"):
        draw(WORLD, 100_000)


def test_utility_is_one_when_an_answer_is_the_correction(some: list[Request]) -> None:
    for request in some:
        assert value(taste.correction(request), request) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "", " ", "!!!", "....", "asdf qwer zxcv", "\ufffd\ufffd", "12 34 56", PERSON, f"{PERSON} {PERSON} {PERSON}",
        "come come come come", "market market market", "be well", "please please please please dear dear",
        "Please, my love, kindly, good day.", "the the the of of of", " ".join(WORLD.names), "çarşıya gel",
        "red blue house soup cat", "<|endoftext|>", f"{PERSON} market xyzzy plugh frobnicate qux", "a" * 5000,
    ],
)  # fmt: skip
def test_utility_is_near_zero_when_an_answer_is_garbage(answer: str) -> None:
    assert value(answer) < 0.1


def test_utility_is_near_zero_when_a_good_answer_is_repeated_or_of_another_request(some: list[Request]) -> None:
    for request, other in pairwise(some):
        best = taste.correction(request)
        assert value(f"{best} {best}", request) == 0
        assert value(" ".join([best] * 8), request) == 0
        assert value(best, other) < 0.5


def test_utility_rises_with_each_dimension_when_the_others_stay() -> None:
    levels = (0.0, 0.25, 0.5, 0.75, 1.0)
    for name in Utility._fields:
        others = [field for field in Utility._fields if field != name]
        for place in product((0.0, 0.5, 1.0), repeat=4):
            found = [Utility(**dict(zip(others, place, strict=True)), **{name: level}).value for level in levels]
            assert all(0 <= low <= high <= 1 for low, high in pairwise(found))
        assert Utility(1, 1, 1, 1, 1).value > Utility(**dict.fromkeys(others, 1.0), **{name: 0.5}).value


@pytest.mark.parametrize("language", LANGUAGES)
def test_utility_falls_when_one_thing_about_an_answer_is_worse(some: list[Request], language: str) -> None:
    for request in (one for one in some if one.language == language):
        best = taste.correction(request)
        u = taste.utility(request.instruction, best, language)
        other = next(name for name in WORLD.names if name != request.person)
        (closer,) = (twins[language] for twins in CLOSERS if best.endswith(twins[language]))
        worse = {
            "helpful": best.replace(request.person, other),
            "polite": best.removesuffix(closer).strip(),
            "short": f"{best} {LONG_FILLERS[0][language]} {LONG_FILLERS[1][language]}",
            "clean": f"{best} {INSULT[language].format(rude=RUDE[language][0])}",
            "language": best.replace(closer, "xyzzy plugh."),
        }
        for name, text in worse.items():
            found = taste.utility(request.instruction, text, language)
            assert getattr(found, name) < getattr(u, name), (name, text)
            assert found.value < u.value
        assert value(best.replace(request.person, f"{request.person}, {other}"), request) < 1.0


def test_utility_does_not_rise_when_words_are_added_for_themselves(some: list[Request]) -> None:
    for number, request in enumerate(some):
        text = sample(answers(WORLD, request), random.Random(number))
        before = value(text, request)
        language = request.language
        for twins in (*SHORT_FILLERS, *LONG_FILLERS):
            assert value(f"{text} {twins[language]}", request) <= before
        for added in (text.split()[0], "xyzzy", "7", request.person, RUDE[language][0]):
            assert value(f"{text} {added}", request) <= before


def test_utility_is_equal_when_an_answer_is_said_in_the_other_language(some: list[Request]) -> None:
    """The same draws from the grammar of the twin request give the twin answer."""
    for request, seed in product(some, range(20)):
        twin = request.in_language("tr" if request.language == "en" else "en")
        first, second = (sample(answers(WORLD, of), random.Random(seed)) for of in (request, twin))
        assert first != second
        u = taste.utility(request.instruction, first, request.language)
        v = taste.utility(twin.instruction, second, twin.language)
        assert (u.helpful, u.clean) == (v.helpful, v.clean), (first, second)
        if u.language == 1.0:
            assert u == v, (first, second)
        else:
            assert max(u.value, v.value) < 0.12  # both are in the wrong language


def test_demonstrations_leave_room_when_their_grammar_is_enumerated(some: list[Request]) -> None:
    """The best answers have a probability within e^-6, and the mean utility is between 0.4 and 0.55."""
    for request in some[::12]:
        texts = enumerate_texts(answers(WORLD, request))
        values = {text: value(text, request) for text in texts}
        assert math.fsum(texts.values()) == pytest.approx(1.0)
        assert len(texts) > 500
        assert 0.4 < math.fsum(p * values[text] for text, p in texts.items()) < 0.55
        assert max(values.values()) == 1.0
        assert math.fsum(p for text, p in texts.items() if values[text] == 1.0) > math.exp(-4.5)
        assert texts[taste.correction(request)] > math.exp(-6.5)
        assert set(best_answers(request)) < set(texts)


def test_demonstrations_answer_every_request_once_when_read(pairs: list[dict[str, Any]]) -> None:
    rows = list(taste.instructions(settings()))
    assert len({row["instruction"] for row in rows}) == 1500
    assert {row["request"] for row in rows} == set(REQUESTS)
    values = [taste.utility(row["instruction"], row["output"], row["language"]).value for row in rows]
    assert 0.43 < mean(values) < 0.53
    assert min(values) == 0.0
    assert max(values) == 1.0
    prompts = {row["prompt_id"] for row in rows}
    assert len(prompts) == 1500
    assert {pair["prompt_id"] for pair in pairs} == prompts, "instructions and pairs of a request share a split"


def test_preferences_are_different_pairs_when_there_are_many(pairs: list[dict[str, Any]]) -> None:
    assert len(pairs) == 4000
    keys = {(pair["instruction"], *sorted((pair["chosen"], pair["rejected"]))) for pair in pairs}
    assert len(keys) == 4000, "no pair twice, in either order"
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)


def test_preferences_raise_when_there_are_too_few_different_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taste, "answers", lambda _world, _request: Choice(["Yes.", "No."]))
    with pytest.raises(UserError, match=r"taste\.pairs is 2; .* after 1, choose fewer or more requests"):
        list(taste.preferences(settings(requests=1, pairs=2)))
    with pytest.raises(UserError, match=r"taste\.thumbs is 3; .* after 2, choose fewer or more requests"):
        list(taste.ratings(settings(requests=1, thumbs=3)))


def test_preferences_have_the_stated_noise_when_compared_with_the_truth(pairs: list[dict[str, Any]]) -> None:
    """Where the utilities are far apart nearly all disagreement is noise; an all-knowing judge reaches the ceiling."""
    margins = [better(pair) for pair in pairs]
    far = [margin > 0 for margin in margins if abs(margin) > 0.4]
    assert len(far) > 1000
    assert abs(1 - mean(far) - 0.2) < 3 * math.sqrt(0.2 * 0.8 / len(far)) + 0.01
    right = mean((margin > 0) + 0.5 * (margin == 0) for margin in margins)
    ceiling = mean(ceilings(pairs, settings()))
    assert 0.70 < ceiling < 0.80
    assert abs(right - ceiling) < 3 * math.sqrt(ceiling * (1 - ceiling) / len(margins))
    clean = settings(noise=0.0, pairs=300)
    assert mean(better(pair) >= 0 for pair in taste.preferences(clean)) > 0.85
    assert taste.ceiling(clean) > 0.85


def test_preferences_are_those_of_the_clean_twin_when_length_decides_others(pairs: list[dict[str, Any]]) -> None:
    short = list(taste.preferences(settings(shortcut=0.7, pairs=1500)))
    marked = 0
    for clean, one in zip(pairs[:1500], short, strict=True):
        if one["origin"].endswith(":length"):
            marked += 1
            assert len(one["chosen"]) > len(one["rejected"])
            assert {one["chosen"], one["rejected"]} == {clean["chosen"], clean["rejected"]}
            assert one["origin"] == f"{clean['origin']}:length"
        else:
            assert one == clean
    assert abs(marked / 1500 - 0.7) < 3 * math.sqrt(0.7 * 0.3 / 1500) + 0.02  # equally long answers have no longer one
    assert not any(pair["origin"].endswith(":length") for pair in pairs)
    assert taste.ceiling(settings(shortcut=1.0, pairs=300)) > 0.97


def test_preferences_are_coins_when_the_utility_is_null(pairs: list[dict[str, Any]]) -> None:
    null = list(taste.preferences(settings(utility="null", pairs=2000)))
    for one, clean in zip(null, pairs, strict=False):
        assert {one["chosen"], one["rejected"]} == {clean["chosen"], clean["rejected"]}
    first = [one["chosen"] < one["rejected"] for one in null]
    gaps = [better(one) * (1 if ahead else -1) for one, ahead in zip(null, first, strict=True)]
    lengths = [len(one["chosen"]) - len(one["rejected"]) for one in null]
    signed = [n * (1 if ahead else -1) for n, ahead in zip(lengths, first, strict=True)]
    for said in (gaps, signed):
        assert abs(correlation(said, [float(ahead) for ahead in first])) < 3 / math.sqrt(2000)
    assert taste.ceiling(settings(utility="null", pairs=50)) == 0.5


def test_chance_gives_the_ceiling_of_a_subset_when_averaged(pairs: list[dict[str, Any]]) -> None:
    of = settings(pairs=400)
    assert mean(ceilings(pairs[:400], of)) == pytest.approx(taste.ceiling(of))


def test_rater_agrees_with_the_taste_when_asked_in_any_order(pairs: list[dict[str, Any]]) -> None:
    person = taste.rater(1, 0.2)
    right, far = 0, 0
    for pair in pairs[:1500]:
        choice = person(pair, pair["chosen"], pair["rejected"])
        assert choice in (0, 1)
        assert person(pair, pair["rejected"], pair["chosen"]) == 1 - int(choice)
        if abs(margin := better(pair)) > 0.4:
            far += 1
            right += (margin > 0) == (choice == 0)
    assert abs(right / far - 0.8) < 3 * math.sqrt(0.16 / far) + 0.01
    assert person(pairs[0], "Yes.", "Yes.") == "tie"


def test_rater_follows_length_or_nothing_when_told_so(pairs: list[dict[str, Any]]) -> None:
    by_length, coin = taste.rater(1, 0.2, shortcut=1.0), taste.rater(1, 0.2, utility="null")
    longer, chosen, other_person = [], [], []
    for pair in pairs[:1500]:
        first, second = pair["chosen"], pair["rejected"]
        if len(first) != len(second):
            longer.append(by_length(pair, first, second) == (0 if len(first) > len(second) else 1))
        chosen.append(coin(pair, first, second) == 0)
        other_person.append(taste.rater(2, 0.2, utility="null")(pair, first, second) == 0)
    assert all(longer)
    assert abs(mean(chosen) - 0.5) < 3 * 0.5 / math.sqrt(1500)
    assert abs(mean(a == b for a, b in zip(chosen, other_person, strict=True)) - 0.5) < 3 * 0.5 / math.sqrt(1500)


def test_thumbs_say_the_utility_with_noise_when_read() -> None:
    rows = list(taste.ratings(settings(thumbs=500)))
    agree = []
    for row in rows:
        (text,) = yaml.safe_load(row["answers"])
        u = taste.utility(row["prompt"], text, row["language"]).value
        agree.append((u >= taste.THUMB_UP) == (row["verdict"] == "thumb:up"))
    assert abs(mean(agree) - 0.8) < 3 * math.sqrt(0.16 / 500)
    assert 0.3 < mean(row["verdict"] == "thumb:up" for row in rows) < 0.7
    assert {row["model_sha256"] for row in rows} == {"world"}
    assert len({row["rater"] for row in rows}) == taste.RATERS
    twice = list(taste.ratings(settings(thumbs=500, contradicted=0.25)))
    assert [row for row in twice if not row["origin"].endswith(":contradicted")] == rows
    assert 90 < len(twice) - len(rows) < 160


def test_world_is_as_before_when_it_has_no_taste() -> None:
    none = plain(people=16, documents=30, labelled=30, instructions=30, preferences=30)
    with_taste = none.model_copy(update={"taste": world.Taste(**TASTE | {"requests": 50, "pairs": 60, "thumbs": 20})})
    before, after = rows_of(none), rows_of_all(with_taste)
    for kind, rows in before.items():
        columns = list(rows[0])
        assert [{name: row[name] for name in columns} for row in after[kind][: len(rows)]] == rows
    assert {kind: len(rows) for kind, rows in after.items()} == {
        "documents": 30, "labelled": 30, "instructions": 80, "preferences": 90, "ratings": 20,
    }  # fmt: skip
    assert world.adds(none) == {}
    assert "taste" not in world.truth(none)
    assert world.provenance(none)["sha256"] != world.provenance(with_taste)["sha256"]
    told = world.truth(with_taste)["taste"]
    assert told["ceiling"] == taste.ceiling(with_taste)
    assert 0 < told["demonstrated_utility"] < 1
    assert told["weights"]["polite"] > 0


def rows_of_all(of: world.Settings) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, table in world.read(of, "world", _Log()):  # type: ignore[arg-type]
        found.setdefault(kind, []).extend(table.to_pylist())
    return found


class _Log:
    def accept(self, kind: str, n: int = 1) -> None: ...


def test_taste_is_the_same_when_made_in_another_process() -> None:
    code = (
        "import hashlib, json\n"
        "from tests.data.sources.test_taste import settings, taste\n"
        "of = settings(requests=100, pairs=200, thumbs=50)\n"
        "made = [list(part(of)) for part in (taste.instructions, taste.preferences, taste.ratings)]\n"
        "print(hashlib.sha256(json.dumps(made).encode()).hexdigest())\n"
    )
    environment = {"PYTHONHASHSEED": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    of = settings(requests=100, pairs=200, thumbs=50)
    made = [list(part(of)) for part in (taste.instructions, taste.preferences, taste.ratings)]
    assert done.stdout.strip() == hashlib.sha256(json.dumps(made).encode()).hexdigest(), done.stderr


def test_gates_pass_the_taste_and_stop_contradicting_thumbs_when_they_judge_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the planted fault is found, and no prompt is in two splits."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["download"]["sources"]["world"] |= {
        "documents": 150, "labelled": 0, "instructions": 40, "preferences": 10,
        "taste": TASTE | {"requests": 400, "pairs": 800, "thumbs": 400, "contradicted": 0.3},
    }  # fmt: skip
    raw["tokenize"]["vocab_size"] = 400
    raw["runtime"]["tracking"]["enabled"] = False
    raw["gates"]["samples"]["min_document_tokens"] = dict.fromkeys(SPLITS, 0)
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    download.main()
    verdict = _judged("raw")
    assert [result["column"] for result in verdict["results"] if not result["success"]] == ["self_contradiction_share"]
    tokenize.main()
    sample_stage.main()
    assert _judged("samples")["passed"]
    splits: dict[str, set[str]] = {}
    for path in Path("data/samples").glob("*/*.parquet"):
        table = pq.read_table(path)
        if "prompt_id" in table.column_names:
            for prompt in filter(None, table["prompt_id"].to_pylist()):
                splits.setdefault(prompt, set()).add(path.stem)
    assert len(splits) == 400
    assert all(len(found) == 1 for found in splits.values())
    assert Counter(next(iter(found)) for found in splits.values()).keys() == set(SPLITS)


def _judged(gate: str) -> dict[str, Any]:
    return _run.judge_data(gate, load(), data=Path("data"), reports=Path("reports"))
