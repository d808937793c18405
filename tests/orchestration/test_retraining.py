"""Models that learned from a record, and stages that run again: lost otherwise, one keeps what was to be forgotten."""

from pathlib import Path

import yaml

from pipeline import config
from pipeline.data.standing import Place
from pipeline.files import write_json
from pipeline.orchestration.retraining import learners, reruns
from pipeline.paths import CODE as ROOT

LOCK = {
    "download": (["data/code/download.json", "inputs"], ["data/raw"]),
    "validate@raw": (["data/raw"], ["data/tickets/raw", "reports/gates/raw"]),
    "tokenize": (["data/raw/documents.parquet", "data/tickets/raw/documents.json"], ["data/tokens"]),
    "sample": (["data/raw/documents.parquet", "data/raw/labelled.parquet", "data/tickets/raw", "data/tokens"],
               ["data/samples"]),
    "validate@samples": (["data/samples"], ["data/tickets/samples"]),
    "pretrain": (["data/samples/documents", "data/tickets/samples/documents.json"], ["models/base"]),
    "finetune@spam-full": (["models/base", "data/samples/labelled", "data/tickets/samples/labelled.json"],
                           ["models/spam-full"]),
    "finetune@chat-full": (["models/base", "data/samples/instructions"], ["models/chat-full"]),
    "evaluate@base": (["models/base", "data/samples"], ["reports/evaluation/base"]),
}  # fmt: skip


def locked(folder: Path) -> Path:
    def entries(paths: list[str]) -> list[dict[str, str]]:
        return [{"path": path, "md5": "0" * 32} for path in paths]

    stages = {name: {"cmd": "x", "deps": entries(deps), "outs": entries(outs)} for name, (deps, outs) in LOCK.items()}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}), encoding="utf-8")
    return folder


def test_a_message_makes_no_pretraining_run_again(tmp_path: Path) -> None:
    found = [stage.stage for stage in reruns({"labelled"}, locked(tmp_path))]
    assert set(found) == {
        "download",
        "validate@raw",
        "sample",
        "validate@samples",
        "finetune@spam-full",
        "evaluate@base",
    }
    assert found.index("sample") < found.index("validate@samples") < found.index("finetune@spam-full")


def test_a_document_makes_everything_run_again_in_order(tmp_path: Path) -> None:
    found = [stage.stage for stage in reruns({"documents"}, locked(tmp_path))]
    assert set(found) == set(LOCK)
    for name, (deps, _) in LOCK.items():
        for other, (_, outs) in LOCK.items():
            if other != name and any(dep == out or dep.startswith(f"{out}/") for dep in deps for out in outs):
                assert found.index(other) < found.index(name), (other, name)


def test_costs_are_those_of_the_last_runs(tmp_path: Path) -> None:
    write_json(
        tmp_path / "reports/runs/pretrain.json",
        {"seconds_total": 60, "energy_wh_estimated": 0.5, "energy_wh_measured": None},
    )
    write_json(
        tmp_path / "reports/runs/sample.json",
        {"seconds_total": 2, "energy_wh_estimated": 0.5, "energy_wh_measured": 0.75},
    )
    costs = {stage.stage: stage for stage in reruns({"documents"}, locked(tmp_path))}
    assert (costs["pretrain"].seconds, costs["pretrain"].energy_wh, costs["pretrain"].energy_measured) == (
        60,
        0.5,
        False,
    )
    assert (costs["sample"].energy_wh, costs["sample"].energy_measured) == (0.75, True)
    assert costs["tokenize"].seconds is None


def test_models_have_seen_what_they_or_their_start_were_trained_on() -> None:
    params = config.load(ROOT / "params.yaml")
    message = [Place("labelled", "a", "train")]
    assert {one.model: one.how for one in learners(params, message)} == dict.fromkeys(
        ("spam-full", "spam-layers", "spam-lora"), "trained"
    )
    document = [Place("documents", "a", "train", 300, 20), Place("documents", "b", "test", 0, 20)]
    found = learners(params, document)
    children = ("spam-full", "spam-layers", "spam-lora", "chat-lora", "chat-full")
    assert {one.model: one.how for one in found} == {"base": "trained"} | dict.fromkeys(children, "made from base")
    assert found[0].windows == {"train": [1], "test": [0]}
    assert {one.model: one.how for one in learners(params, [Place("labelled", "a", "test")])}["spam-full"] == "tested"
    assert learners(params, [Place("preferences", "a", "train")]) == []
