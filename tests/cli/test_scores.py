"""The summary at the end of every run: most people read nothing else."""

from pathlib import Path

import pytest
import yaml

from pipeline import files
from pipeline.paths import CODE as ROOT
from tests.commands import tohum

BESIDE = {"accuracy": 0.934, "baseline_accuracy": 0.981, "majority_accuracy": 0.5, "examples": 53.0}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base and a classifier, of which only the classifier has run."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["finetune"] = {"spam-full": raw["finetune"]["spam-full"]}
    raw["evaluations"] = {name: raw["evaluations"][name] for name in ("base", "spam-full")}
    raw["register"]["models"], raw["search"] = ["base"], {}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    files.write_json(Path("reports/training/spam-full.json"), {"records": 9599, "epochs": 0.2})
    return tmp_path


def shown(only_model: float, only_baseline: float, capsys: pytest.CaptureFixture[str]) -> str:
    """The summary of a classifier by the records that only one of model and baseline gets right."""
    metrics = BESIDE | {"only_model_right": only_model, "only_baseline_right": only_baseline}
    files.write_json(Path("reports/evaluation/spam-full/metrics.json"), metrics)
    assert tohum("scores") == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("only_model", "only_baseline", "outcome", "sentence"),
    [
        (1, 9, "TF-IDF: not beaten", "the baseline is better: do not fine-tune for this."),
        (1, 3, "TF-IDF: cannot tell", "cannot tell which is better, and the baseline is cheaper."),
        (9, 1, "TF-IDF: beaten", ""),
    ],
)
def test_scores_names_the_baseline_below_the_score(
    only_model: float, only_baseline: float, outcome: str, sentence: str, project: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    lines = shown(only_model, only_baseline, capsys).splitlines()
    (accuracy,) = [number for number, line in enumerate(lines) if " accuracy " in line and "0.9340" in line]
    assert outcome in lines[accuracy + 1]
    assert "0.9810" in lines[accuracy + 1]
    assert "0.2 epochs of 9,599 records" in lines[accuracy + 1]
    text = " ".join(" ".join(lines).split())
    if sentence:
        assert "spam-full: accuracy 0.934, and 0.981 of TF-IDF with logistic regression on the same 53" in text
        assert sentence in text
    else:
        assert "spam-full: accuracy" not in text


def test_scores_says_that_a_gate_warned(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"success": False, "waived": False, "severity": "warning"}
    files.write_json(Path("reports/gates/spam-full/verdict.json"), {"passed": True, "results": [result]})
    lines = shown(1, 9, capsys).splitlines()
    assert any(line.rstrip().endswith("warned") for line in lines)
    assert any(line.rstrip().endswith("not run") for line in lines)  # base
