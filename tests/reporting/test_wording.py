"""The words of the pages: both languages say the same things, and no page mixes them."""

import re
from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import UserError
from pipeline.reporting import model_page, report, rules, wording
from pipeline.reporting.rendering import TEMPLATES
from pipeline.reporting.wording import Words, load
from tests import reports
from tests.prose import ENGLISH_WORDS, english, fields, prose

ENGLISH, TURKISH = load("en"), load("tr")
CONVERTED = (
    "report.html", "model.html", "methods.html", "costs.html", "cost_table.html", "which.html", "scaling.html",
    "gate.html",
)  # fmt: skip


def test_tables_have_the_same_keys_and_fields() -> None:
    assert set(ENGLISH.table) == set(TURKISH.table)
    assert {key for key in ENGLISH.table if fields(ENGLISH.table[key]) != fields(TURKISH.table[key])} == set()


def pages(language: str) -> dict[str, str]:
    params = reports.write(language, grid=reports.GRID)
    review = model_page.Review(reports.policy(params), "1", "2", "ab" * 32, "tohum promote spam-full 2")
    alone = model_page.Review(reports.policy(params, champion=False), None, "2", "ab" * 32, "tohum promote")
    return {
        "report": report.render(params),
        "costs": report.render_costs(params.report),
        "review": model_page.render("spam-full", params, review=review),
        "review without champion": model_page.render("spam-full", params, review=alone),
        **{name: model_page.render(name, params) for name in reports.MODELS},
    }


def test_turkish_pages_have_no_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = pages("tr")
    assert {name: english(page) for name, page in found.items() if english(page)} == {}
    assert all('<html lang="tr">' in page for page in found.values())
    assert "0,950" in found["spam-full"]


def test_english_pages_have_no_turkish_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the other way round: the check finds English where there is some."""
    monkeypatch.chdir(tmp_path)
    found = pages("en")
    assert all(len(english(page)) > 5 for page in found.values())
    own = {text for page in found.values() for text in prose(page)}
    leaked = {text for text in own if re.search(r"[ğışİöüç]", text) and not re.search("ışık|hayır", text)}
    assert leaked == set()


@pytest.mark.parametrize("name", CONVERTED)
def test_templates_have_no_words_of_their_own(name: str) -> None:
    """Lost otherwise: a sentence written into the template would be English on every page."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    text = re.sub(r"{% block style %}.*?{% endblock %}", " ", text, flags=re.S)
    text = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}", " ", text, flags=re.S)
    text = re.sub(r"<[^>]*>|[\w-]+=\"[^\"]*\"", " ", text)  # tags; attributes that a macro gives to a tag
    assert re.findall(r"[A-Za-zğışİöüç]{2,}", text) == []


def test_turkish_slices_and_clusters_have_words_of_their_own() -> None:
    """Lost otherwise: a reader takes a slice (dilim) for a cluster of alike records (küme)."""
    assert {key for key, text in TURKISH.table.items() if "küme" in text.lower()} == {"beside.clusters"}
    assert {"slices.group", "slices.about", "slices.more.one", "card.slice", "policy.rule slices"} <= {
        key for key, text in TURKISH.table.items() if "dilim" in text
    }


def test_numbers_have_the_format_of_the_language() -> None:
    assert (ENGLISH.number(1234.5, 2), TURKISH.number(1234.5, 2)) == ("1,234.50", "1.234,50")
    assert (ENGLISH.percent(0.0659, 2), TURKISH.percent(0.0659, 2)) == ("6.59 %", "%6,59")
    assert (ENGLISH.integer(9599), TURKISH.integer(9599)) == ("9,599", "9.599")
    assert (ENGLISH.signed(0.012), TURKISH.signed(-0.012)) == ("+0.0120", "-0,0120")
    assert (ENGLISH.general(0.5), TURKISH.general(0.5)) == ("0.5", "0,5")
    assert (ENGLISH.interval(0.1, 0.2), TURKISH.interval(0.1, 0.2)) == ("0.100 to 0.200", "0,100 – 0,200")


def test_count_takes_the_form_of_one_or_many() -> None:
    assert [ENGLISH.count("model.warnings", n) for n in (1, 2)] == ["1 warning", "2 warnings"]
    assert [TURKISH.count("model.warnings", n) for n in (1, 2)] == ["1 uyarı", "2 uyarı"]


def test_words_refuse_an_unknown_key_and_language() -> None:
    with pytest.raises(KeyError):
        Words("en", {})("model.all")
    with pytest.raises(UserError, match=r"report.language is 'de'; one of: en, tr"):
        wording.load("de")


def test_params_refuse_a_language_without_a_table_and_a_grid_without_a_source(tmp_path: Path) -> None:
    raw = reports.params().model_dump(by_alias=True, mode="json")
    with pytest.raises(UserError, match=r"report.language"):
        config.check(raw | {"report": raw["report"] | {"language": "de"}})
    for grid in ({"grams_per_kwh": 400.0, "source": None}, {"grams_per_kwh": None, "source": "a study"}):
        with pytest.raises(UserError, match=r"grams_per_kwh and source go together"):
            config.check(raw | {"report": raw["report"] | {"grid": grid}})


def test_rules_of_the_policy_are_said_in_turkish() -> None:
    """Every sentence, also those that no page of these tests shows."""
    row = {
        "metric": "accuracy",
        "dimension": "language",
        "value": "tr",
        "candidate": 0.5,
        "champion": 0.75,
        "records": 9,
    }
    values = {
        "metric": "accuracy", "gates": "raw, samples", "waivers": "", "obstacle": "", "verdict": "cannot tell",
        "records": 1234, "detectable": 0.0314, "gain": 0.0227, "low": -0.002, "high": 0.04, "margin": 0.01,
        "most": {"accuracy": 0.05}, "metrics": "mae", "slices": [row, row], "value": 2.5, "warn": 2.0, "fail": 4.0,
    }  # fmt: skip
    keys = [key.removeprefix("policy.") for key in TURKISH.table if key.startswith("policy.")]
    sentences = [key for key in keys if not key.startswith("rule ") and key != "slice"]
    for key in sentences:
        known = {name: values[name] for name in fields(TURKISH.table[f"policy.{key}"])}
        said = rules.sentence({"key": key, "values": known}, TURKISH)
        assert not ENGLISH_WORDS.search(said), said
    shown = {"key": "not worse pass", "values": {name: values[name] for name in ("gain", "low", "high", "margin")}}
    assert rules.sentence(shown, TURKISH).startswith("kazanç +0,0227 (aralık -0,002 – +0,04), -0,01")
    assert rules.sentence({"key": "slices fail", "values": {"most": {"accuracy": 0.05}, "slices": [row]}}, ENGLISH) == (
        "worse by more than allowed (accuracy 0.05): accuracy, language: tr: 0.5 beside 0.75 (9 records)"
    )
    assert {rules.name({"kind": key[5:], "values": values}, ENGLISH) for key in keys if key.startswith("rule ")} == {
        "gates", "champion", "accuracy", "better in accuracy", "accuracy not worse", "slices", "further metrics",
    }  # fmt: skip
