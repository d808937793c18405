"""The comparison page: equal bytes for equal inputs, hostile text escaped, nothing loaded."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline import config, files
from pipeline.config.params import Params
from pipeline.paths import CODE as ROOT
from pipeline.reporting import report

HOSTILE = "<script>alert(1)</script> & ışık"


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["finetune"] = {"spam-full": raw["finetune"]["spam-full"]}
    raw["evaluations"] = {name: raw["evaluations"][name] for name in ("base", "spam-full")}
    raw["register"]["models"], raw["search"] = ["base"], {}
    monkeypatch.chdir(tmp_path)
    bits = {"bits_per_byte": 0.5, "bits_per_byte_known": 0.45, "bits_per_byte_over_known": 1.2}
    tokens = {"loss_nats": 1.4, "unigram_entropy_nats": 6.0, "bytes_per_token": 4.0}
    write("base", bits | tokens, {"generation": {"samples": [HOSTILE]}})
    confusion = {"ham": {"ham": 8, "spam": 1}, "spam": {"ham": 0, "spam": 9}}
    wrong = [{"text": HOSTILE, "label": "ham", "answer": "spam", "origin": "x:1"}]
    write("spam-full", {"accuracy": 0.97}, {"classification": {"confusion": confusion, "wrong": wrong}})
    return config.check(raw)


def write(name: str, metrics: dict, details: dict) -> None:
    files.write_json(Path(f"reports/evaluation/{name}/metrics.json"), metrics)
    files.write_json(Path(f"reports/evaluation/{name}/details.json"), details)
    training = {"parameters": 10, "trainable_parameters": 10, "trainable_share": 1.0, "steps": 2, "best_step": 2}
    files.write_json(Path(f"reports/training/{name}.json"), training)
    files.write_text(Path(f"reports/training/{name}.csv"),
                     '"step","train_loss_nats","validation_loss_nats"\n1,3.0,3.1\n2,2.0,2.5\n')  # fmt: skip
    verdict = {"passed": name != "base", "results": [{"success": name != "base"}]}
    files.write_json(Path(f"reports/gates/{name}/verdict.json"), verdict)


def test_render_gives_equal_bytes_and_loads_nothing(params: Params) -> None:
    page = report.render(params)
    assert page == report.render(params)
    loads = re.findall(r'(?:src|href)="(?!#)([^"]*)"', page)
    assert [link for link in loads if "http" in link] == []
    assert "<svg" in page


def test_render_escapes_hostile_text(params: Params) -> None:
    page = report.render(params)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "ışık" in page


def test_render_shows_epsilon_of_a_private_model(params: Params) -> None:
    assert "ε = " not in report.render(params)
    path = Path("reports/training/spam-full.json")
    files.write_json(path, files.read_json(path) | {"epsilon": 3.994, "delta": 1e-5})
    assert "ε = 3.99 at δ = 1e-05 for one example" in " ".join(report.render(params).split())


def test_render_shows_long_answers(params: Params) -> None:
    """Lost otherwise: a translation would be a score that nobody can look at."""
    path = Path("reports/evaluation/spam-full/details.json")
    said = {"instruction": "Çevir.", "input": "Nora", "expected": "Nora geldi", "answer": "Nora gitti", "right": False}
    files.write_json(path, files.read_json(path) | {"overlap": {"answers": [said]}})
    assert "answered: Nora gitti" in report.render(params)


def test_leading_scores_are_both_scores_of_a_translation(params: Params) -> None:
    write("spam-full", {"exact_match": 0.15, "chrf": 85.4, "rouge_l": 0.9}, {})
    assert report.leading_scores("spam-full") == [("chrf", 85.4), ("exact_match", 0.15)]


BESIDE = {
    "accuracy": 0.934, "baseline_accuracy": 0.981, "majority_accuracy": 0.5, "examples": 53.0, "only_model_right": 1.0,
    "only_baseline_right": 9.0,
}  # fmt: skip


def trained(name: str, **more: float) -> None:
    """Adds figures to the training summary of a model."""
    path = Path(f"reports/training/{name}.json")
    files.write_json(path, files.read_json(path) | more)


def test_render_shows_the_baseline_beside_a_classifier(params: Params) -> None:
    """Lost otherwise: 0.934 looks like a success where a linear model reaches 0.981 on the same records."""
    write("spam-full", BESIDE, {})
    page = " ".join(report.render(params).split())
    assert '<td>0.9810<br> <span class="warn">not beaten</span></td> <td class="span">0.834 to 0.976</td>' in page
    assert "<p>spam-full: accuracy 0.934, and 0.981 of TF-IDF" in page
    assert "accuracy 0.934, and 0.981 of TF-IDF with logistic regression on the same 53 held-out records;" in page
    assert ">TF-IDF baseline<" in page  # the legend of the plot, and the column


def test_render_and_summary_show_epochs_of_records(params: Params) -> None:
    trained("spam-full", epochs=0.2, records=9599, tokens=153600)
    trained("base", epochs=1.0, records=1234, tokens=99)
    page = " ".join(report.render(params).split())
    assert "2 steps, 0.2 epochs of 9,599 records, 153,600 tokens," in page
    assert report.summary("spam-full", params).trained_on == "0.2 epochs of 9,599 records"
    assert report.summary("base", params).trained_on == "1 epoch of 1,234 windows"


def test_summary_of_a_model_that_did_not_run_is_empty(params: Params) -> None:
    Path("reports/evaluation/spam-full/metrics.json").unlink()
    Path("reports/training/spam-full.json").unlink()
    assert report.summary("spam-full", params) == ("classify + full", "", [], None)


def test_render_counts_the_warnings_of_a_gate(params: Params) -> None:
    warned = {"success": False, "waived": False, "severity": "warning"}
    verdict = {"passed": True, "results": [warned, warned | {"waived": True}, warned | {"success": True}]}
    files.write_json(Path("reports/gates/spam-full/verdict.json"), verdict)
    assert "1 warning<" in " ".join(report.render(params).split())


def test_render_shows_a_failed_model(params: Params) -> None:
    page = report.render(params)
    assert "failed: cannot be registered" in page
    assert "not met" in page  # base: 1.2 over the bound of 1.1
    assert "\nmet</span>" in page  # spam-full


def test_render_leaves_out_a_removed_recipe(params: Params) -> None:
    write("old-recipe", {"accuracy": 0.1}, {})
    assert "old-recipe" not in report.render(params)


def test_render_shows_a_merge_without_curve(params: Params) -> None:
    """It has no training curve and no trained weights; the page must not stop for that."""
    raw = params.model_dump(by_alias=True)
    raw["finetune"]["chat-full"] = raw["finetune"]["spam-full"]
    rule = {"name": "ties", "density": 0.5, "scale": 1.0}
    raw["merge"] = {"both-s1": {"of": "base", "first": "spam-full", "second": "chat-full", "rule": rule}}
    raw["evaluations"] |= dict.fromkeys(("chat-full", "both-s1"), raw["evaluations"]["spam-full"])
    write("chat-full", {"accuracy": 0.9}, {})
    write("both-s1", {"accuracy": 0.95, "exact_match": 0.8125}, {})
    Path("reports/training/both-s1.csv").unlink()
    figures = {"task_norm_first": 3.0, "task_norm_second": 4.5, "task_cosine": 0.25, "sign_conflict_share": 0.125}
    files.write_json(Path("reports/training/both-s1.json"), figures | {"parameters": 10.0})
    page = report.render(config.check(raw))
    assert "ties merge of spam-full and chat-full" in page
    assert "cosine 0.250, signs conflict in 12.5 %" in page
    assert "0.9500<br>0.8125" in page  # measured as both of its models
    assert "Methods over seeds" not in page


def test_render_costs_shows_every_stage(params: Params) -> None:
    record = {"stage": "finetune@spam-full", "status": "FINISHED", "seconds_total": 9.0, "seconds_work": 7.0,
              "peak_memory_mib": 300.0, "tokens_per_second": 5000.0, "energy_wh_estimated": 0.01}  # fmt: skip
    files.write_json(Path("reports/runs/finetune@spam-full.json"), record)
    page = report.render_costs()
    assert "finetune@spam-full" in page
    assert "accuracy 0.970" in page
