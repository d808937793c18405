"""The page of a model: what it shows of the graph and of a review, and what it says where something is missing."""

import html
import re
from pathlib import Path

import pytest
import yaml

from pipeline import config, files
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.reporting import model_page, report, risks
from pipeline.reporting.in_words import dimension_in_words
from pipeline.reporting.lineage_picture import Box, svg
from pipeline.reporting.model_page import Review, render
from pipeline.reporting.risks import Dose, Risk
from pipeline.reporting.wording import load
from tests import reports


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    return reports.write()


def review(params: Params, champion: bool = True, **policy: object) -> Review:
    result = reports.policy(params, champion) | policy
    return Review(result, "1" if champion else None, "2", "ab" * 32, "tohum promote spam-full 2 --sha256 " + "ab" * 32)


def text(page: str) -> str:
    """The page without tags, spaces folded."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_render_gives_equal_bytes_and_loads_nothing(params: Params) -> None:
    page = render("spam-full", params)
    assert page == render("spam-full", params)
    links = re.findall(r'(?:src|href)="([^"#]*)', page)
    assert not [link for link in links if link and not link.startswith("../")]
    assert "<script" not in page.replace("&lt;script&gt;", "")


def test_render_shows_the_headline_with_its_interval(params: Params) -> None:
    said = text(render("spam-full", params))
    assert "0.950 accuracy 95 % interval 0.835 to 0.986, 40 held-out records" in said
    assert "trained from base (classify + full); 10 of them were trained, on 1.5 epochs of 1,234 records." in said
    assert "accuracy 0.950, and 0.900 of TF-IDF with logistic regression" in said


def test_render_takes_the_interval_of_other_scores_from_the_outcomes(params: Params) -> None:
    """Lost otherwise: chrF and losses would stand without the doubt of few records."""
    path = Path("reports/evaluation/chat-full/metrics.json")
    files.write_json(path, {"exact_match": 0.65})
    assert "95 % interval 0.495 to 0.779, 40 held-out records" in text(render("chat-full", params))


def test_render_shows_the_worst_slices_first(params: Params) -> None:
    said = text(render("spam-full", params))
    assert said.index("language: en accuracy 0.9000") < said.index("language: tr accuracy 1.0000")


def test_render_says_what_is_missing_instead_of_empty_boxes(params: Params) -> None:
    Path("reports/evaluation/spam-full/outcomes.parquet").unlink()
    raw = params.model_dump(by_alias=True, mode="json")
    raw["review"]["policy"]["risks"] = {}
    said = text(render("spam-full", config.check(raw)))
    assert "its scores cannot be split into groups" in said
    assert "The policy has no thresholds of risks" in said
    assert "No outcome of a single record was kept for both" in said
    said = text(render("base", params))
    assert "It starts from no other model of this graph." in said
    assert "It was not compared with a baseline." in said
    assert "No measure of this model gives a metric that the policy judges as a risk." in said


def test_render_compares_with_the_parent_on_the_same_records(params: Params) -> None:
    """The parent is right on other records, so the difference is told from chance or not by the paired test."""
    assert "base has no metric in common with it" in text(render("spam-full", params))
    source = Path("reports/evaluation/spam-full/outcomes.parquet")
    Path("reports/evaluation/base/outcomes.parquet").write_bytes(source.read_bytes())
    said = text(render("spam-full", params))
    assert "accuracy 0.9500 0.9500 +0.0000" in said
    assert "cannot tell" in said


def test_render_does_not_compare_with_a_parent_on_other_records(params: Params) -> None:
    source = Path("reports/evaluation/chat-full/outcomes.parquet")
    Path("reports/evaluation/base/outcomes.parquet").write_bytes(source.read_bytes())
    assert "base has no metric in common with it" in text(render("spam-full", params))


def test_render_shows_the_parents_answers_beside(params: Params) -> None:
    path = Path("reports/evaluation/base/details.json")
    told = [{"instruction": "Soru 3?", "input": "", "expected": "evet", "answer": "bilmem", "right": False}]
    assert "base was not asked these questions" in text(render("chat-full", params))
    files.write_json(path, files.read_json(path) | {"exact_match": {"answers": told}})
    said = text(render("chat-full", params))
    assert "Soru 3? evet hayır wrong bilmem wrong Soru 0? evet hayır wrong" in said
    told[0]["instruction"] = "Soru 99?"
    files.write_json(path, files.read_json(path) | {"exact_match": {"answers": told}})
    assert "base was asked other questions, of which none is among these." in text(render("chat-full", params))


def test_render_masks_personal_data_in_samples_answers_and_wrong_texts(params: Params) -> None:
    """Also of details that a measure of one's own, or an earlier version, wrote unmasked."""
    for name, details in (
        ("base", {"generation": {"samples": ["Yaz: ada@example.com"]}}),
        ("spam-full", {"classification": {"wrong": [
            {"text": "ada@example.com", "label": "ham", "answer": "spam", "origin": "x:1"}
        ]}}),
        ("chat-full", {"exact_match": {"answers": [
            {"instruction": "ada@example.com", "input": "", "expected": "evet", "answer": "hayır", "right": False}
        ]}}),
    ):  # fmt: skip
        path = Path(f"reports/evaluation/{name}/details.json")
        files.write_json(path, files.read_json(path) | details)
        assert "ad*@*******.*om" in (page := render(name, params))
        assert "ada@example.com" not in page + report.render(params)


def test_render_escapes_hostile_text(params: Params) -> None:
    for name in ("base", "spam-full"):
        page = render(name, params)
        assert "<script>" not in page
        assert "&lt;script&gt;" in page


def test_render_shows_risks_with_their_state(params: Params) -> None:
    said = text(render("spam-full", params))
    assert "warn exposure_bits 2.5 2 4" in said
    assert "pass invented_answers 0.02 0.1 0.3" in said
    assert said.index("exposure_bits 2.5") < said.index("invented_answers 0.02")
    assert "not measured" not in said
    files.write_json(Path("reports/evaluation/spam-full/metrics.json"), {"exposure_bits": 0.5})
    said = text(render("spam-full", params))
    assert "pass exposure_bits 0.5 2 4" in said
    assert "Judged by the policy, but not measured on this model: invented_answers." in said


def test_render_has_no_costs_on_the_graphs_page_and_costs_with_carbon_on_the_review(params: Params) -> None:
    """Costs differ from run to run; on a page of the graph they would make equal runs differ."""
    assert "300" not in text(render("spam-full", params)).partition("Costs Times")[2]
    said = text(render("spam-full", params, review=review(params)))
    assert "Energy of these stages: 1.500 Wh (estimated)." in said
    assert "Carbon is not stated" in said
    said = text(render("spam-full", reports.params(grid=reports.GRID), review=review(params)))
    assert "Carbon: 0.6 g CO₂e = 1.500 Wh (estimated) × 400 g/kWh; source of the intensity: Ember 2024." in said


def test_review_shows_policy_champion_and_decision(params: Params) -> None:
    said = text(render("spam-full", params, review=review(params)))
    assert "A person decides" in said  # a slice is worse than the champion's, perhaps by chance
    assert "open slices" in said
    assert "accuracy 0.9500 0.5000 +0.4500" in said
    assert "better 40 40" in said
    assert "tohum promote spam-full 2 --sha256 abab" in said
    assert "95 % interval of the difference" in said


@pytest.mark.parametrize("outcome", ["met", "not met", "person decides"])
def test_review_states_each_outcome(params: Params, outcome: str) -> None:
    assert load()(f"outcome.{outcome}") in text(render("spam-full", params, review=review(params, outcome=outcome)))


def test_review_without_a_champion_says_so(params: Params) -> None:
    said = text(render("spam-full", params, review=review(params, champion=False)))
    assert "No champion is in service yet" in said
    assert "language: en accuracy 0.9000" in said


def test_render_refuses_an_unknown_model(params: Params) -> None:
    with pytest.raises(UserError, match=r"nosuch: not a model of params.yaml; one of: base, spam-full, chat-full"):
        render("nosuch", params)


def test_write_replaces_the_pages_of_removed_models(params: Params) -> None:
    stale = Path("reports/models/old.html")
    files.write_text(stale, "old")
    model_page.write(params)
    assert sorted(path.name for path in Path("reports/models").iterdir()) == [
        "base.html", "chat-full.html", "spam-full.html",
    ]  # fmt: skip


def test_render_shows_a_merge_without_curve(params: Params) -> None:
    raw = yaml.safe_load(yaml.safe_dump(params.model_dump(by_alias=True, mode="json")))
    rule = {"name": "ties", "density": 0.5, "scale": 1.0}
    raw["merge"] = {"both": {"of": "base", "first": "spam-full", "second": "chat-full", "rule": rule}}
    raw["evaluations"]["both"] = raw["evaluations"]["spam-full"]
    reports._model("both", {"accuracy": 0.9, "examples": 40.0}, {}, [])
    said = text(render("both", config.check(raw)))
    assert "Merged model with 10 parameters (ties merge of spam-full and chat-full)" in said
    assert "It has no training curve: nothing was trained for it." in said
    assert "No samples were kept for it." in said


def test_lineage_links_every_stage_with_its_hash(params: Params) -> None:
    page = render("spam-full", params)
    picture = page[page.index('<svg class="lineage"') : page.index("</svg>", page.index('<svg class="lineage"'))]
    assert re.findall(r'<a href="([^"]*)"', picture) == [
        "../gates/raw/page.html", "../gates/tokens/page.html", "../gates/samples/page.html", "../models/base.html",
        "../models/spam-full.html",
    ]  # fmt: skip
    for digest in ("5f5f5f5f5f5f", "r0r0r0r0r0r0", "t0t0t0t0t0t0", "s0s0s0s0s0s0", "040404040404", "090909090909"):
        assert f">{digest}</text>" in picture


def test_lineage_puts_a_box_below_all_that_it_was_made_from() -> None:
    """A merge of a model and of that model's child: its box lies below both."""
    made = [Box("a", "", "", "", ()), Box("b", "", "", "", ("a",)), Box("c", "", "", "", ("a", "b"))]
    picture = svg(made, "t")
    heights = [float(y) for y in re.findall(r'<rect x="[^"]*" y="([^"]*)"', picture)]
    assert heights == sorted(set(heights))
    assert picture.count("marker-end") == 3


def test_dimension_in_words_translates_lengths() -> None:
    words = load("tr")
    assert dimension_in_words("length", "up to 104 characters", words) == "uzunluk: en çok 104 karakter"
    assert dimension_in_words("length", "105 to 1430 characters", words) == "uzunluk: 105–1.430 karakter"
    assert dimension_in_words("length", "over 1430 characters", words) == "uzunluk: 1.430 karakterden uzun"
    assert dimension_in_words("genre", "news", words) == "genre: news"


def test_picture_of_a_dose_response_names_every_dose_and_this_model() -> None:
    dose = Dose(
        {"en": "tellings", "tr": "anlatım"}, (("clean", 0.1), ("1", 1.5), ("8", 6.0)), "python -m tests.bench.x", 5
    )
    risk = Risk("exposure_bits", 2.5, 2.0, 4.0, "warn")
    drawn = risks.picture(risk, load("tr"), dose)
    assert "anlatım arttıkça exposure_bits: temiz: 0,1, 1: 1,5, 8: 6" in drawn
    assert ">bu model 2,5</text>" in drawn
    assert drawn.count("<circle") == 3
    assert risks.picture(risk._replace(value=None), load("tr"), dose) == ""
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="start"', drawn)]
    assert min(abs(a - b) for a in heights for b in heights if a != b) >= 13 - 0.2


def test_known_doses_are_complete() -> None:
    for metric, dose in risks.doses().items():
        assert set(dose.names) == {"en", "tr"}, metric
        assert len(dose.points) > 1
        assert dose.command.startswith("python -m tests.bench.")


def test_render_shows_doses_and_mitigations_beside_a_risk(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"en": "tellings", "tr": "anlatım sayısı"}
    against = risks.Mitigation({"en": "deduplication", "tr": "tekilleştirme"}, 5.25, 0.5, 5)
    dose = Dose(names, (("clean", 0.1), ("8", 6.0)), "python -m tests.bench.x", 5, (against,))
    monkeypatch.setattr(risks, "doses", lambda: {"exposure_bits": dose})
    said = text(render("spam-full", params))
    assert "dose: tellings. Measured by python -m tests.bench.x, means over 5 seeds." in said
    assert "Against it: deduplication moved the figure from 5.25 to 0.5 (means over 5 seeds)." in said
    assert "tekilleştirme, ölçümü 5,25 değerinden 0,5 değerine getirdi (5 seed'in ortalaması)." in text(
        render("spam-full", reports.params("tr"))
    )


def test_waived_rules_are_those_of_a_verdict_that_a_waiver_was_used_for() -> None:
    used = {"expectation": "b", "waiver": {"reason": "known", "until": "2027-01-31"}}
    assert model_page._waived({"results": [{"expectation": "a", "waiver": None}, used]}) == [used]
    assert model_page._waived(None) == []
