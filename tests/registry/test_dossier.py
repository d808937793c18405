"""The dossier of a candidate: the champion is evaluated anew on its records, and the policy's result decides."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import files, integrity, outcomes
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.evaluation import open_subject
from pipeline.evaluation._measure_all import measure_all
from pipeline.model import checkpoint
from pipeline.paths import EVALUATION, SAMPLES
from pipeline.registry import Registry, admission, dossier
from pipeline.registry.lifecycle import Registry as Full
from tests.evaluation.test_measures import write_labelled
from tests.registries import make_model, params

MEASURES = {"classification": {"split": "test", "batch_size": 50, "baseline": None}}


def settings() -> Params:
    # absolute, because MLflow keeps one store per address for the whole process, also of another test's folder
    raw = params(f"sqlite:///{Path.cwd()}/mlflow.db").model_dump(mode="json", by_alias=True)
    raw["evaluations"]["spam-full"] = {"measures": MEASURES, "thresholds": {}}
    raw["review"]["policy"] |= {"not_worse": {"accuracy": 0.3}, "max_slice_loss": {}}
    return Params.model_validate(raw)


def evaluated(seed: int, labels: list[str]) -> Any:
    """A tiny classifier, measured on these records as the stage evaluate does it, and registered."""
    make_model("spam-full", seed)
    write_labelled(SAMPLES / "labelled", [(f"mesaj {i}", label, "tr") for i, label in enumerate(labels)])
    integrity.write_manifest(SAMPLES)
    folder = EVALUATION / "spam-full"
    measured = measure_all(open_subject("spam-full", settings().compute), settings().evaluations["spam-full"])
    files.write_json(folder / "metrics.json", measured.metrics)
    files.write_table(folder / "outcomes.parquet", outcomes.table(measured.outcomes))
    beside = [folder / "metrics.json", folder / "outcomes.parquet"]
    integrity.write_json(folder / "details.json", measured.details, beside=beside)
    registry = Registry(settings())
    return registry.register(admission.admit("spam-full", settings()), Path("models/spam-full"))[0]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Full:
    monkeypatch.chdir(tmp_path)
    return Registry(settings())


def test_dossier_compares_with_the_champion_on_the_records_of_the_candidate(registry: Full) -> None:
    """Lost otherwise: figures of two versions on two sets of records are compared as if they were on one."""
    first = evaluated(1, ["ham", "spam"] * 30)
    shown = dossier.dossier(registry, "spam-full")
    assert (shown.champion, shown.policy["outcome"]) == (None, "met")
    registry.promote("spam-full", first.version, shown.version_sha256, "the first", policy=shown.policy)

    evaluated(2, ["spam"] * 60)  # other records: the champion's stored accuracy on the old ones says nothing
    shown = dossier.dossier(registry, "spam-full")
    (one,) = [row for row in shown.policy["comparisons"] if row["metric"] == "accuracy"]
    assert one["records"] == 60
    assert shown.champion_metrics["accuracy"] == one["champion"]
    model = checkpoint.load(registry.download("models:/tohum-spam-full@champion"))
    assert isinstance(model, torch.nn.Module)
    text = registry.review("spam-full")
    assert "policy: " in text
    assert "tohum reject spam-full 2 --reason TEXT" in text
    first_sha256 = first.tags["version_sha256"]
    assert first_sha256 not in text


def test_dossier_says_so_when_the_samples_are_not_those_of_the_candidate(registry: Full) -> None:
    first = evaluated(1, ["ham", "spam"] * 30)
    registry.promote("spam-full", first.version, dossier.dossier(registry, "spam-full").version_sha256, "the first")
    evaluated(2, ["ham", "spam"] * 30)
    write_labelled(SAMPLES / "labelled", [("başka", "ham", "tr")])
    integrity.write_manifest(SAMPLES)
    shown = dossier.dossier(registry, "spam-full")
    assert shown.policy["outcome"] == "person decides"
    assert "dvc checkout data/samples" in shown.obstacle
    assert shown.champion_metrics["accuracy"] == pytest.approx(0.5)  # as it was registered


def test_promote_refuses_a_candidate_whose_policy_is_not_met(registry: Full) -> None:
    version = evaluated(1, ["ham", "spam"] * 30)
    shown = dossier.dossier(registry, "spam-full")
    failed = shown.policy | {"outcome": "not met", "rules": [{"rule": "r", "state": "fail", "sentence": "too bad"}]}
    with pytest.raises(UserError, match="too bad"):
        registry.promote("spam-full", version.version, shown.version_sha256, "why", policy=failed)
    registry.promote("spam-full", version.version, shown.version_sha256, "why", policy=failed, despite="a test")
    assert "despite: a test" in registry.versions("spam-full")[0].tags["tohum.decision"]
