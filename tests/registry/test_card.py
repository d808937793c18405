"""The model card without a registry: its header, its two lists of what the law asks, both languages, and carbon."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import ModelCard

from pipeline import files, integrity
from pipeline.cli import export
from pipeline.config.params import Grid
from pipeline.config.recipe import KINDS
from pipeline.data.personal import FINDERS
from pipeline.outcomes import Slice
from pipeline.prompts.spec import TaskSpec
from pipeline.registry import card, obligations
from pipeline.registry.facts import Facts
from pipeline.reporting.risks import Risk
from pipeline.reporting.wording import load
from tests.registries import make_model, params
from tests.reporting.test_wording import ENGLISH_WORDS

SOURCE = {"address": "hf://datasets/org/mails", "licence": "CC0-1.0", "consent": "consent", "sha256": "5f" * 32}
RECORDS = [{"rows": 120, "personal_email": 0, "personal_iban": 2}, {"rows": 80, "personal_email": 1}]
RUN = {"seconds_total": 12.5, "peak_memory_mib": 300.0, "energy_wh_measured": None, "energy_wh_estimated": 0.5,
       "device": "cpu", "threads": 2}  # fmt: skip


def facts(**changed: Any) -> Facts:
    """The facts of a classifier of two labels."""
    beside = {"accuracy": 0.96, "baseline_accuracy": 0.9, "majority_accuracy": 0.5, "examples": 50.0}
    languages = [{"language": "tr"}, {"language": "en"}]
    made = Facts(
        model="spam", sha256="ab" * 32,
        metrics=beside | {"only_model_right": 4.0, "only_baseline_right": 1.0, "exposure_bits": 2.5},
        gates={"raw": {"passed": True, "profile": {"languages": languages, "records": RECORDS}},
               "spam": {"passed": True}},
        tasks=(TaskSpec(name="classify", labels=("ham", "spam"), max_tokens=96),),
        shape={"model_type": "qwen3", "num_hidden_layers": 4, "hidden_size": 96, "vocab_size": 2048},
        recipe={"from": "base", "data": "labelled", "tuner": {"name": "lora"}},
        thresholds={"accuracy": {"at_least": 0.95, "at_most": None}},
        stages=["pretrain", "finetune@spam"], runs={"finetune@spam": RUN}, sources={"mails": SOURCE | {"rows": {}}},
        tags={"git.commit": "0123456789abcdef"}, training={"epochs": 0.2, "records": 9599, "tokens": 153600},
        risks=(Risk("exposure_bits", 2.5, 2.0, 4.0, "warn"),),
        slices=(Slice("classification", "accuracy", "language", "tr", 25, 0.92, 0.75, 0.98),),
    )  # fmt: skip
    return dataclasses.replace(made, **changed)


def header(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---")[1])


def cells(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = text[text.index(f"## {heading}") :]
    rows = [line for line in section.split("\n\n")[2].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_header_is_read_by_hugging_face() -> None:
    read = ModelCard(card.render(facts(), "tohum-spam")).data.to_dict()
    assert read["license"] == "cc0-1.0"
    assert read["language"] == ["en", "tr"]
    assert read["base_model"] == ["tohum-base"]
    assert read["datasets"] == ["org/mails"]
    assert read["tags"] == ["tohum", "qwen3", "classify", "lora"]
    (result,) = header(card.render(facts(), "tohum-spam"))["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.96, "name": "accuracy"}]
    assert result["dataset"] == {"name": "mails", "type": "held-out", "split": "test"}


def test_header_names_open_weights_and_no_licence_that_sources_do_not_share() -> None:
    mixed = {"a": SOURCE, "b": SOURCE | {"licence": "MIT", "address": "embedded"}}
    weights = {"repository": "org/weights", "licence": "MIT"}
    read = header(card.render(facts(sources=mixed, open_weights=weights), "tohum-spam"))
    assert (read["license"], read["base_model"]) == ("other", "org/weights")
    sentence = {"a": SOURCE | {"licence": "for research only"}}
    assert header(card.render(facts(sources=sentence), "tohum-spam"))["license"] == "other"
    assert header(card.render(facts(open_weights=weights), "tohum-spam"))["license"] == "other"


def test_header_leaves_out_what_is_not_known() -> None:
    bare = facts(gates={}, sources={}, metrics={"loss_nats": 1.0}, recipe={}, shape={})
    assert set(header(card.render(bare, "tohum-spam"))) == {"library_name", "license", "pipeline_tag", "tags"}


@pytest.mark.parametrize("language", ["en", "tr"])
def test_annex_has_all_points_with_what_is_left_to_a_person(language: str) -> None:
    words = load(language)
    rows = cells(card.render(facts(language=language), "tohum-spam"), words("annex.heading"))
    assert [row[0] for row in rows] == [str(point) for point in range(1, 10)]
    assert all(row[1] and row[2] and row[3] for row in rows)
    assert [row[2] for row in rows[6:]] == [words("annex.nothing")] * 3
    assert [row[3] for row in rows[6:]] == [words("annex.all left")] * 3


def test_annex_claims_only_what_the_facts_hold() -> None:
    """Lost otherwise: the table would name slices, risks and resources that this model has no figures of."""
    full = card.render(facts(), "tohum-spam")
    assert "by group of records under Worst slices" in full
    assert "1 risk metric with its state under Risks." in full
    bare = card.render(facts(slices=(), risks=(), runs={}, tags={}, thresholds={}), "tohum-spam")
    rows = cells(bare, "What Annex IV")
    assert "Worst slices" not in rows[2][2]
    assert "no risk metric was judged" in rows[2][2]
    assert "no record of resources" in rows[1][2]
    assert rows[3][2].startswith("0 metrics with required values")
    assert rows[4][2] == "Nothing."
    assert "Commit unknown" in rows[5][2]


@pytest.mark.parametrize("language", ["en", "tr"])
def test_kvkk_is_in_turkish_whatever_the_language(language: str) -> None:
    rows = cells(card.render(facts(language=language), "tohum-spam"), "KVKK")
    assert [row[0] for row in rows] == ["3, 6", "4", "5", "8, 9", "7", "10, 11", "12", "16"]
    assert "200 kayıtta" in rows[0][2]
    assert "bulunan kayıt sayısı: e-posta 1, IBAN 2 (" in rows[0][2]
    assert "exposure_bits 2,5" in rows[0][2]
    assert rows[2][2] == "Kaynakların bildirdiği dayanak: mails: consent."
    assert rows[5][2:] == ["Yok.", "Hepsi."]


def test_kvkk_counts_records_for_each_sort_of_personal_data_as_one_may_hold_several() -> None:
    records = [{"rows": 1, "personal_email": 1, "personal_iban": 1}, {"rows": 1, "personal_email": 1}]
    said = obligations.kvkk(facts(gates={"raw": {"profile": {"records": records}}}))
    assert "2 kayıtta e-posta, telefon" in said
    assert "e-posta 2, IBAN 1 (" in said


def test_kinds_of_records_are_in_the_language_of_the_card() -> None:
    source = SOURCE | {"rows": {"documents": 800, "labelled": 0, "instructions": 1200}}
    shown = {code: card.render(facts(language=code, sources={"mails": source}), "tohum-spam") for code in ("en", "tr")}
    assert "documents 800, instructions 1,200" in shown["en"]
    assert "800 belge, 1.200 yönerge" in shown["tr"]
    assert "documents" not in shown["tr"]
    assert all("kayıt türleri: belge, yönerge." in text for text in shown.values())


def test_words_name_every_kind_of_record_and_sort_of_personal_data() -> None:
    assert {f"records.{kind}" for kind in KINDS} <= load("tr").table.keys()
    assert {f"kvkk.personal_{sort}" for sort in FINDERS} <= obligations._words().table.keys()


def test_kvkk_follows_the_facts() -> None:
    stated = SOURCE | {"consents": {"contract": 7, "consent": 2}, "details": {"asked": "llm.example.org"}}
    said = obligations.kvkk(facts(sources={"mails": stated}))
    assert "mails: consent 2, contract 7" in said
    assert "Kayıtlar şu sohbet modellerine gönderildi: llm.example.org." in said
    assert "Kaynakların hepsi yapaydır" not in said
    assert "Kaynakların hepsi yapaydır" in obligations.kvkk(facts(sources={"world": {"consent": "synthetic"}}))
    none = {"raw": {"profile": {"records": [{"rows": 7, "personal_email": 0}]}}}
    assert "7 kayıtta e-posta, telefon, kart, IBAN ve kimlik numarası aradı: hiçbirinde" in obligations.kvkk(
        facts(gates=none)
    )
    assert "bu kartın olgularında yok" in obligations.kvkk(facts(gates={}))


def test_carbon_stands_with_its_factors_and_source_or_not_at_all() -> None:
    assert "Carbon is not stated" in card.render(facts(), "tohum-spam")
    known = card.render(facts(grid=Grid(grams_per_kwh=400.0, source="Ember 2024")), "tohum-spam")
    assert "Carbon: 0.2 g CO₂e = 0.500 Wh (estimated) × 400 g/kWh; source of the intensity: Ember 2024." in known
    measured = facts(runs={"a": RUN | {"energy_wh_measured": 1.0}, "b": RUN})
    assert "1.500 Wh (partly measured, partly estimated)" in card.render(measured, "tohum-spam")


def test_turkish_card_has_no_english_sentence() -> None:
    text = card.render(facts(language="tr"), "tohum-spam").split("---", 2)[2]
    text = re.sub(r"```.*?```|`[^`]*`", " ", text, flags=re.S)
    text = text.replace("tohum forget", " ").replace("tohum ledger", " ")
    assert [
        line for line in text.splitlines() if ENGLISH_WORDS.search(re.sub(r"[\w.-]*[_./@-][\w./@-]*", " ", line))
    ] == []
    assert "| accuracy | 0,96 | 0,865 – 0,989 | >= 0,95 |" in text
    assert "| accuracy | dil: tr | 0,92 | 0,750 – 0,980 | 25 |" in text


def test_every_decision_of_a_task_is_said_in_both_languages() -> None:
    chosen = {"thresholds": {"a": 0.25, "b": 0.5}, "decided_by": "f1"}
    labels = {"labels": ("a", "b"), "max_tokens": 9}
    tasks = [
        (TaskSpec(name="classify", **labels), "Always answers with one of its labels; the score"),
        (TaskSpec(name="classify", **labels, **chosen), "relative to its threshold, chosen on validation for the"),
        (TaskSpec(name="multi_label", **labels), "Answers with every label whose probability reaches 0.5;"),
        (TaskSpec(name="multi_label", **labels, **chosen), "reaches its threshold, chosen on validation for the"),
        (TaskSpec(name="regress", mean=3.5, deviation=1.25, max_tokens=9), "have the mean 3.5 and the standard"),
    ]  # fmt: skip
    for task, sentence in tasks:
        assert sentence in card.render(facts(tasks=(task,)), "tohum-spam")
        assert "{" not in card.render(facts(tasks=(task,), language="tr"), "tohum-spam")


def test_export_writes_the_card_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_model("spam-full")
    Path("params.yaml").write_text(yaml.safe_dump(params().model_dump(by_alias=True, mode="json")), encoding="utf-8")
    done = CliRunner().invoke(export.command, ["spam-full", "--folder", "out"])
    assert done.exit_code == 0, done.output
    written = Path("out/model_card.md").read_text(encoding="utf-8")
    assert written.startswith("---\n")
    assert "# tohum-spam-full\n" in written
    assert files.sha256_of(Path("models/spam-full")) in written
    integrity.require_intact(Path("out"))
    Path("reports/evaluation/spam-full/metrics.json").unlink()
    done = CliRunner().invoke(export.command, ["spam-full", "--folder", "again"])
    assert done.exit_code == 0, done.output
    assert "no model card: reports/evaluation/spam-full/metrics.json" in done.output
    assert not Path("again/model_card.md").exists()
