"""The registry: what is served is what was reviewed, byte for byte, and answers as the checkpoint does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline import admission, config, files, model_card, registry, serving, tokenizer
from pipeline.config import Start, UserError
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.registry import CANDIDATE, CHAMPION, Registry
from tests.models import shape

ROOT = Path(__file__).parents[1]
TEXTS = ["Merhaba, İzmir nasıl?", "free prize now", "ı"]


def params() -> config.Params:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["runtime"]["tracking"] = {"enabled": True, "uri": "sqlite:///mlflow.db", "experiment": "tests"}
    raw["register"] = {"name": "tohum", "models": ["base", "spam-full", "chat-full"]}
    return config.Params.model_validate(raw)


def make_model(name: str, seed: int = 1) -> Path:
    """A tiny model folder, whole and evaluated, as the graph leaves it."""
    words = Path("tokenizer")
    if not words.is_dir():
        tokenizer.train(["Ayşe İzmir'de yaşıyor. Merhaba dünya, free prize now! " * 20], 300, "gpt2").save(words)
    vocabulary = tokenizer.Tokenizer.load(words).vocab_size
    draw = torch.Generator().manual_seed(seed)
    model = GPT(shape(n_layers=1, n_kv_heads=2, context_length=64, vocab_size=vocabulary), draw)
    tasks: dict[str, dict[str, Any]] = {
        "base": {"objective": "next_token"},
        "spam-full": {"objective": "classify", "labels": ["ham", "spam"], "max_tokens": 32},
        "chat-full": {"objective": "instruct", "template": "chat"},
    }
    task = tasks[name]
    if "labels" in task:
        model.add_score(2, draw)
    folder = Path("models") / name
    checkpoint.save(model, folder, tokenizer=words, labels=task.get("labels"), metadata=task)
    evaluate(name)
    return folder


def evaluate(name: str) -> None:
    """What evaluation and the gates would have written about models/<name>."""
    report = Path("reports/evaluation") / name
    files.write_json(report / "metrics.json", {"accuracy": 0.75, "loss_nats": 0.5})
    details = {"model_sha256": files.sha256_of(Path("models") / name)}
    files.write_json(report / "details.json", details)
    for gate in ("raw", "tokens", "samples", name):
        files.write_json(Path("reports/gates") / gate / "verdict.json", {"passed": True, "results": []})
    source = {
        "name": "world",
        "address": "a|b",
        "licence": "CC0-1.0",
        "consent": "synthetic",
        "rows": {"labelled": 9},
    }
    files.write_json(Path("data/raw/provenance.json"), {"sources": {"world": source}})
    stage = "pretrain" if name == "base" else f"finetune@{name}"
    record = {
        "run_uid": "c0ffee",
        "seconds_total": 12.5,
        "peak_memory_mib": 300.0,
        "energy_wh_estimated": 0.01,
    }
    files.write_json(Path("reports/runs") / f"{stage}.json", record)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project with three models and a store; making the store's tables takes seconds."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("project")
    os.chdir(folder)
    for name in ("base", "spam-full", "chat-full"):
        make_model(name)
    yield Registry(params())
    os.chdir(before)


def register(store: Registry, name: str) -> tuple[Any, bool]:
    return store.register(admission.admit(name, params()), Path("models") / name)


@pytest.mark.parametrize("name", ["base", "spam-full", "chat-full"])
def test_the_served_model_answers_as_the_checkpoint_does(
    project: Registry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    version, new = register(project, name)
    assert new
    served = mlflow.pyfunc.load_model(f"models:/tohum-{name}@{CANDIDATE}")
    expected = serving.answer(Path("models") / name, TEXTS)
    assert served.predict(TEXTS).to_dict("records") == expected
    if name != "spam-full":
        drawn = {"temperature": 1.0, "max_tokens": 12, "seed": 5}
        texts = served.predict(TEXTS, params=drawn).to_dict("records")
        assert texts == serving.answer(Path("models") / name, TEXTS, drawn) != expected
        assert texts != served.predict(TEXTS, params=drawn | {"seed": 6}).to_dict("records")
    assert version.tags[CONTENT] == files.sha256_of(Path("models") / name)
    assert version.tags["tohum.run_uid"] == "c0ffee"
    assert version.tags["gate.raw"] == "passed"
    assert "CC0-1.0" in version.description


def test_the_served_model_needs_neither_this_checkout_nor_a_pickle(project: Registry, tmp_path: Path) -> None:
    version, _ = register(project, "spam-full")
    with project.stored(version) as copy:
        stored = Path(shutil.copytree(copy, tmp_path / "served"))
    assert not [p for p in stored.rglob("*") if p.suffix in (".pkl", ".pickle", ".bin", ".pt")]
    code = (
        "import sys, mlflow; model = mlflow.pyfunc.load_model(sys.argv[1]); "
        "import pipeline; print(pipeline.__file__); print(model.predict(['free prize'])['label'][0])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    done = subprocess.run(
        [sys.executable, "-c", code, str(stored)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    module, label = done.stdout.split()
    assert Path(module).is_relative_to(stored)
    assert label == serving.answer(Path("models/spam-full"), ["free prize"])[0]["label"]


def test_equal_bytes_are_one_version_uploaded_once(project: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = register(project, "base")
    monkeypatch.setattr(Registry, "_upload", lambda *a: pytest.fail("uploaded twice"))
    again, new = register(project, "base")
    assert (again.version, new) == (first.version, False)


def test_an_upload_orphaned_by_a_kill_is_used_by_the_next_try(
    project: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("base", seed=77)
    with monkeypatch.context() as patch:
        patch.setattr(model_card.lineage, "verdict_summary", lambda verdict: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(model_card, "render", lambda facts, name: "card")
        with pytest.raises(KeyboardInterrupt):
            register(project, "base")
    monkeypatch.setattr(Registry, "_upload", lambda *a: pytest.fail("uploaded twice"))
    version, new = register(project, "base")
    assert new
    assert version.tags[CONTENT] == files.sha256_of(Path("models/base"))


def test_approval_is_bound_to_the_reviewed_bytes_and_can_be_taken_back(
    project: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "load", params)
    with pytest.raises(UserError, match="no champion"):
        project.rollback("chat-full")
    first, _ = register(project, "chat-full")
    assert registry.main(["promote", "chat-full", str(first.version), "--sha256", "0" * 64]) == 1
    assert "approved was 000" in capsys.readouterr().err
    assert project.at("chat-full", CHAMPION) is None
    assert registry.main(["promote", "chat-full", str(first.version), "--sha256", first.tags[CONTENT]]) == 0
    with pytest.raises(UserError, match="nothing to go back to"):
        project.rollback("chat-full")

    make_model("chat-full", seed=2)
    second, _ = register(project, "chat-full")
    capsys.readouterr()
    assert registry.main(["review", "chat-full"]) == 0
    shown = capsys.readouterr().out
    assert f"promote chat-full {second.version} --sha256 {second.tags[CONTENT]}" in shown
    assert "# tohum-chat-full" in shown
    assert f"champion version {first.version}" in shown
    with pytest.raises(UserError, match="is not the candidate"):
        project.promote("chat-full", first.version, first.tags[CONTENT])
    project.promote("chat-full", second.version, second.tags[CONTENT])
    assert project.at("chat-full", CHAMPION).version == second.version  # type: ignore[union-attr]
    retired = next(v for v in project.versions("chat-full") if v.version == first.version)
    assert retired.tags["tohum.status"].startswith("retired")
    assert registry.main(["rollback", "chat-full"]) == 0
    assert project.at("chat-full", CHAMPION).version == first.version  # type: ignore[union-attr]
    assert registry.main(["list"]) == 0
    assert "champion" in capsys.readouterr().out


def test_stored_bytes_that_changed_are_neither_promoted_nor_downloaded(project: Registry) -> None:
    make_model("spam-full", seed=9)
    version, _ = register(project, "spam-full")
    name = f"models:/tohum-spam-full/{version.version}"
    folder = project.download(name)
    assert (folder.name, files.sha256_of(folder)) == ("spam-full", version.tags[CONTENT])
    (weights,) = (
        path for path in Path("mlartifacts").rglob("model.safetensors")
        if files.sha256_of(path.parent) == version.tags[CONTENT]
    )  # fmt: skip
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match="stored bytes"):
        project.promote("spam-full", version.version, version.tags[CONTENT])
    (folder / "config.json").write_text("{}")  # the cached copy is checked, too
    with pytest.raises(UserError, match="stored bytes"):
        registry.download(name, params())


def test_a_name_that_is_not_registered_is_an_error_with_a_next_step(project: Registry) -> None:
    with pytest.raises(UserError, match="registry list"):
        project.download("models:/tohum-nothing@candidate")
    with pytest.raises(UserError, match=r"stages\.register"):
        project.review("spam-layers")


def test_the_card_says_what_a_reviewer_must_know(project: Registry) -> None:
    make_model("spam-full", seed=3)
    entry = {"expectation": "expect_x", "column": "email", "waived": True,
             "waiver": {"reason": "known", "until": "2999-01-31"}}  # fmt: skip
    files.write_json(Path("reports/gates/raw/verdict.json"), {"passed": True, "results": [entry]})
    files.write_json(Path("reports/training/spam-full.json"), {"epsilon": 3.994, "delta": 1e-5})
    card = model_card.render(admission.admit("spam-full", params()), "tohum-spam-full")
    assert "epsilon 3.99 at delta 1e-05" in card
    assert "| accuracy | 0.75 | >= 0.95 |" in card
    assert r"| world | a\|b | CC0-1.0 | synthetic | labelled 9 |" in card
    assert "| raw | passed, 1 waived |" in card
    assert "| raw | expect_x | email | known | 2999-01-31 |" in card
    assert "| finetune@spam-full | 12.5 |" in card
    assert "pretrain → finetune@spam-full" in card
    assert files.sha256_of(Path("models/spam-full")) in card
    assert "not calibrated" in card


def test_the_card_of_a_merge_names_both_of_its_models(project: Registry) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    rule = {"name": "linear", "scales": [1.0, 1.0]}
    raw["merge"] = {"both": {"of": "base", "first": "chat-full", "second": "spam-full", "rule": rule}}
    raw["evaluations"]["both"] = raw["evaluations"]["spam-full"]
    task = {"objective": "instruct", "template": "chat", "labels": ["ham", "spam"], "max_tokens": 32}
    files.write_json(Path("models/both/tohum.json"), task)
    evaluate("both")
    card = model_card.render(model_card.gather("both", config.Params.model_validate(raw), "0" * 64), "tohum-both")
    assert "pretrain → finetune@chat-full → finetune@spam-full → merge@both" in card
    assert "name: linear" in card
    assert "not calibrated" in card
    assert "falsehoods" in card


def break_verdict(name: str) -> None:
    files.write_json(Path("reports/gates") / name / "verdict.json", {"passed": False, "results": []})


def break_waiver(name: str) -> None:
    entry = {
        "expectation": "e",
        "column": "c",
        "waived": True,
        "waiver": {"reason": "r", "until": "2020-01-31"},
    }
    files.write_json(Path("reports/gates") / name / "verdict.json", {"passed": True, "results": [entry]})


def break_weights(name: str) -> None:
    (Path("models") / name / "model.safetensors").write_bytes(b"other")


def replace_model(name: str) -> None:
    details = Path("reports/evaluation") / name / "details.json"
    before = details.read_text()
    make_model(name, seed=1234)
    details.write_text(before)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (break_verdict, "did not pass"),
        (lambda name: (Path("reports/gates") / name / "verdict.json").unlink(), "has not judged"),
        (lambda name: break_verdict("samples"), "gate samples did not pass"),
        (break_waiver, "ended on 2020-01-31"),
        (break_weights, "not what manifest.json says"),
        (lambda name: (Path("models") / name / "manifest.json").unlink(), "manifest.json: not there"),
        (replace_model, "measured"),
        (lambda name: (Path("reports/evaluation") / name / "details.json").unlink(), "measured None"),
    ],
)
def test_what_must_not_be_registered_is_refused(project: Registry, harm: Any, reason: str) -> None:
    make_model("base")
    admission.admit("base", params())
    harm("base")
    with pytest.raises(UserError, match=reason):
        admission.admit("base", params())
    make_model("base")


def test_a_champion_can_start_the_next_graph(project: Registry) -> None:
    """Lost otherwise: what serves could not be trained further without copying folders and hashes by hand."""
    make_model("chat-full", seed=11)
    version, _ = register(project, "chat-full")
    with pytest.raises(UserError, match="tohum-chat-lora: has no champion yet"):
        project.start("chat-lora")
    project.promote("chat-full", version.version, version.tags[CONTENT])
    lines = yaml.safe_load(project.start("chat-full").replace("<as its card says>", "CC0-1.0"))
    start = Start.model_validate(lines["pretrain.start"])
    assert checkpoint.fetch(start, Path("unused")) == Path(lines["tokenize"]["path"])
    with pytest.raises(UserError, match="these are other weights than were pinned"):
        checkpoint.fetch(start.model_copy(update={"sha256": "0" * 64}), Path("unused"))
