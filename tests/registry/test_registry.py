"""The registry: the served model is the reviewed one, byte for byte, and answers as the checkpoint does."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pipeline import config, files, registry
from pipeline.closure import closure
from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import InitialWeights
from pipeline.errors import UserError
from pipeline.inference import predictor
from pipeline.model import open_weights
from pipeline.prompts.spec import TaskSpec
from pipeline.registry import CANDIDATE, CHAMPION, MODEL, VERSION, Registry, admission, contents, uploads
from pipeline.registry import card as model_card
from pipeline.registry.packing import SERVED, pack
from tests.commands import tohum
from tests.registries import ROOT, evaluate, make_model, params, register
from tests.specs import ANSWERS, SPAM, written

TEXTS = ["Merhaba, İzmir nasıl?", "free prize now", "ı"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project with three models and a store; making the store's tables takes seconds."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("project")
    os.chdir(folder)
    for name in ("base", "spam-full", "chat-full"):
        make_model(name)
    yield Registry(params())
    os.chdir(before)


@pytest.mark.parametrize("name", ["base", "spam-full", "chat-full"])
def test_predict_answers_as_the_checkpoint_does(project: Registry, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    version, new = register(project, name)
    assert new
    served = mlflow.pyfunc.load_model(f"models:/tohum-{name}@{CANDIDATE}")
    expected = predictor.answer(Path("models") / name, TEXTS)
    table = pd.DataFrame({"text": TEXTS})
    given = served.predict(table).to_dict("records")
    if name == "spam-full":
        for answer, row in zip(expected, given, strict=True):
            shares = row.pop("probabilities")
            assert answer == row == {"label": max(shares, key=shares.get), "score": max(shares.values())}
            assert set(shares) == {"ham", "spam"}
            assert sum(shares.values()) == pytest.approx(1)
    assert given == expected
    if name != "spam-full":
        drawn = {"temperature": 1.0, "max_tokens": 12, "seed": 5}
        texts = served.predict(table, params=drawn).to_dict("records")
        assert texts == predictor.answer(Path("models") / name, TEXTS, drawn) != expected
        assert texts != served.predict(table, params=drawn | {"seed": 6}).to_dict("records")
    assert version.tags[MODEL] == files.sha256_of(Path("models") / name)
    assert version.tags["tohum.run_uid"] == "c0ffee"
    assert version.tags["gate.raw"] == "passed"
    assert "CC0-1.0" in version.description


def test_predict_needs_neither_this_checkout_nor_a_pickle(project: Registry, tmp_path: Path) -> None:
    version, _ = register(project, "spam-full")
    with project.opened(version) as (copy, sealed):
        stored = Path(shutil.copytree(copy, tmp_path / "served"))
    assert not [p for p in stored.rglob("*") if p.suffix in (".pkl", ".pickle", ".bin", ".pt")]
    code = (
        "import sys, mlflow, pandas; model = mlflow.pyfunc.load_model(sys.argv[1]); "
        "import pipeline; print(pipeline.__file__); table = pandas.DataFrame({'text': ['free prize']}); "
        "print(model.predict(table)['label'][0])"
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
    assert contents.check(stored, version.name, version.version) == sealed  # loading in place leaves nothing behind
    assert label == predictor.answer(Path("models/spam-full"), ["free prize"])[0]["label"]


def test_register_uploads_once_when_the_bytes_are_equal(project: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = register(project, "base")
    monkeypatch.setattr(uploads, "upload", lambda *a: pytest.fail("uploaded twice"))
    again, new = register(project, "base")
    assert (again.version, new) == (first.version, False)


def killed(*arguments: Any, **settings: Any) -> None:
    raise KeyboardInterrupt


def test_register_uses_a_complete_upload_when_the_first_try_was_killed(
    project: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    make_model("base", seed=77)
    with monkeypatch.context() as patch:
        patch.setattr(
            mlflow.MlflowClient, "create_model_version", lambda *a, **b: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            register(project, "base")
    monkeypatch.setattr(uploads, "upload", lambda *a: pytest.fail("uploaded twice"))
    version, new = register(project, "base")
    assert new
    assert version.tags[MODEL] == files.sha256_of(Path("models/base"))


def test_promote_needs_the_reviewed_hash_and_rollback_restores_the_previous_champion(
    project: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "load", params)
    with pytest.raises(UserError, match="no champion"):
        project.rollback("chat-full", "worse")
    first, _ = register(project, "chat-full")
    with pytest.raises(UserError, match="approved was 000"):
        tohum("promote", "chat-full", str(first.version), "--sha256", "0" * 64, "--reason", "good")
    assert project.at("chat-full", CHAMPION) is None
    assert tohum("promote", "chat-full", str(first.version), "--sha256", first.tags[VERSION], "--reason", "good") == 0
    with pytest.raises(UserError, match="there is none to roll back to"):
        project.rollback("chat-full", "worse")

    make_model("chat-full", seed=2)
    second, _ = register(project, "chat-full")
    capsys.readouterr()
    assert tohum("review", "chat-full") == 0
    shown = capsys.readouterr().out
    assert f"promote chat-full {second.version} --sha256 {second.tags[VERSION]}" in shown
    assert "# tohum-chat-full" in shown
    assert f"champion version {first.version}" in shown
    with pytest.raises(UserError, match="is not the candidate"):
        project.promote("chat-full", first.version, first.tags[VERSION], "reviewed")
    project.promote("chat-full", second.version, second.tags[VERSION], "reviewed")
    assert project.at("chat-full", CHAMPION).version == second.version  # type: ignore[union-attr]
    retired = next(v for v in project.versions("chat-full") if v.version == first.version)
    assert retired.tags["tohum.status"].startswith("retired")
    assert tohum("rollback", "chat-full", "--reason", "worse") == 0
    assert project.at("chat-full", CHAMPION).version == first.version  # type: ignore[union-attr]
    assert tohum("list") == 0
    assert "champion" in capsys.readouterr().out


def test_promote_and_download_refuse_when_stored_bytes_changed(project: Registry) -> None:
    make_model("spam-full", seed=9)
    version, _ = register(project, "spam-full")
    name = f"models:/tohum-spam-full/{version.version}"
    folder = project.download(name)
    assert (folder.name, files.sha256_of(folder)) == ("spam-full", version.tags[MODEL])
    (weights,) = (
        path for path in Path("mlartifacts").rglob("model.safetensors")
        if files.sha256_of(path.parent) == version.tags[MODEL]
    )  # fmt: skip
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors has sha256"):
        project.promote("spam-full", version.version, version.tags[VERSION], "reviewed")
    (folder / "config.json").write_text("{}")  # the cached copy is checked, too
    with pytest.raises(UserError, match=r"model\.safetensors has sha256"):
        registry.download(name, params())


def test_register_makes_a_new_version_when_the_known_one_is_damaged(
    project: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: the advice is to register again, and equal hashes would say that it is already there."""
    make_model("spam-full", seed=10)
    version, _ = register(project, "spam-full")
    for path in Path("mlartifacts").rglob("model.safetensors"):
        if files.sha256_of(path.parent) == version.tags[MODEL]:
            path.unlink()
    again, new = register(project, "spam-full")
    assert new
    assert again.version != version.version
    assert "it is registered again" in capsys.readouterr().err
    assert project.verify(again).version_sha256 == version.tags[VERSION]
    monkeypatch.setattr(config, "load", params)
    assert tohum("verify") == 1


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("sqlite:///{}/garbage.db", "file is not a database"), ("http://ada:secret@127.0.0.1:9", "Max retries exceeded")],
)
def test_reachable_explains_a_damaged_or_absent_store(
    project: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, reason: str
) -> None:
    """Also: a password in the address is not printed."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "garbage.db").write_bytes(b"garbage" * 1000)
    monkeypatch.setattr(config, "load", lambda: params(uri.format(tmp_path)))
    try:
        with pytest.raises(UserError) as refused:
            tohum("list")
        with pytest.raises(UserError, match=reason):
            registry.download("models:/tohum-base@candidate", params(uri.format(tmp_path)))
    finally:
        Registry(params())  # MLflow's address is one for the whole process
    said = str(refused.value)
    assert reason in said
    assert "runtime.tracking.uri" in said
    assert "secret" not in said


def test_pack_gives_the_same_bytes_twice(project: Registry, tmp_path: Path) -> None:
    """Lost otherwise: an upload that a kill orphaned could not be recognised, and no hash could be compared."""
    make_model("chat-full", seed=12)
    facts = admission.admit("chat-full", params())
    first, second = (pack(Path("models/chat-full"), tmp_path / name, facts, "card") for name in ("a", "b"))
    assert first == second
    text = (tmp_path / "a/MLmodel").read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert str(tmp_path) not in text
    make_model("chat-full", seed=13)
    with pytest.raises(UserError, match="changed while it was being registered"):
        pack(Path("models/chat-full"), tmp_path / "c", facts, "card")


def test_pack_holds_the_closure_of_the_served_module(project: Registry) -> None:
    """Lost otherwise: a version would carry, and its approval cover, code that cannot change an answer."""
    import grimp

    graph = grimp.build_graph("pipeline", cache_dir=None, exclude_type_checking_imports=True)
    expected, waiting = set(), [SERVED]
    while waiting:  # the packages on the way run too
        module = waiting.pop()
        if module and module not in expected:
            expected.add(module)
            waiting += [module.rpartition(".")[0], *graph.find_modules_directly_imported_by(module)]
    assert set(closure(SERVED)) == expected
    version, _ = register(project, "base")
    with project.opened(version) as (folder, _):
        packed = {path.relative_to(folder / "code").as_posix() for path in (folder / "code").rglob("*.py")}
    modules = [SERVED, *(f"pipeline.tasks.{name}" for name in plugins.choices("tasks"))]  # tasks are loaded by name
    assert packed == {path.relative_to(ROOT).as_posix() for module in modules for path in closure(module).values()}
    assert not any(name.startswith("pipeline/registry/") for name in packed)


def test_export_copies_all_files_and_checks_them(project: Registry, tmp_path: Path) -> None:
    version, _ = register(project, "base")
    sealed = project.export("base", tmp_path / "out")
    assert contents.check(tmp_path / "out", version.name, version.version) == sealed == project.verify(version)
    with pytest.raises(UserError, match="there already"):
        project.export("base", tmp_path / "out")


def test_register_makes_a_new_version_when_the_known_one_has_no_manifest(project: Registry) -> None:
    """Lost otherwise: what nobody could check would be shown, promoted and loaded."""
    import mlflow

    folder = make_model("chat-full", seed=14)
    client = mlflow.MlflowClient()
    old = client.create_logged_model(str(uploads.experiment_of(project)), "old")
    client.log_model_artifacts(old.model_id, str(folder), "artifacts/chat-full")
    client.finalize_logged_model(old.model_id, "READY")
    tags = {"content_sha256": files.sha256_of(folder), "tohum.model": "chat-full"}
    made = client.create_model_version("tohum-chat-full", f"models:/{old.model_id}", tags=tags, model_id=old.model_id)
    client.set_registered_model_alias("tohum-chat-full", CANDIDATE, made.version)
    for use in (
        lambda: project.review("chat-full"),
        lambda: project.promote("chat-full", made.version, tags["content_sha256"], "reviewed"),
        lambda: project.download(f"models:/tohum-chat-full/{made.version}"),
    ):
        with pytest.raises(UserError, match=r"registered before .* register the model again"):
            use()
    version, new = register(project, "chat-full")
    assert new
    project.verify(version)


def test_download_refuses_a_champion_that_was_not_approved(project: Registry) -> None:
    """Lost otherwise: an alias that was moved past `promote` would serve."""
    import mlflow

    make_model("base", seed=15)
    version, _ = register(project, "base")
    mlflow.MlflowClient().set_registered_model_alias("tohum-base", CHAMPION, version.version)
    with pytest.raises(UserError, match="the ledger holds no approval of it"):
        project.download(f"models:/tohum-base@{CHAMPION}")
    assert "not shown: tohum-base version" in project.review("base")
    mlflow.MlflowClient().delete_registered_model_alias("tohum-base", CHAMPION)
    project.promote("base", version.version, version.tags[VERSION], "reviewed")
    assert project.download(f"models:/tohum-base@{CHAMPION}").name == "base"
    assert "not shown" not in project.review("base")


def test_find_names_the_next_step_when_the_name_is_unknown(project: Registry) -> None:
    with pytest.raises(UserError, match="tohum list"):
        project.download("models:/tohum-nothing@candidate")
    with pytest.raises(UserError, match="tohum register"):
        project.review("spam-layers")


def test_render_shows_scores_data_gates_costs_and_limits(project: Registry) -> None:
    make_model("spam-full", seed=3)
    entry = {"expectation": "expect_x", "column": "email", "waived": True,
             "waiver": {"reason": "known", "until": "2999-01-31"}}  # fmt: skip
    files.write_json(Path("reports/gates/raw/verdict.json"), {"passed": True, "results": [entry]})
    files.write_json(Path("reports/training/spam-full.json"), {"epsilon": 3.994, "delta": 1e-5})
    card = model_card.render(admission.admit("spam-full", params()), "tohum-spam-full")
    assert "epsilon 3.99 at delta 1e-05" in card
    assert "| accuracy | 0.75 |  | >= 0.95 |" in card
    assert r"| world | a\|b | CC0-1.0 | synthetic | labelled 9 |" in card
    assert "| raw | passed, 1 waived |" in card
    assert "| raw | expect_x | email | known | 2999-01-31 |" in card
    assert "| finetune@spam-full | 12.5 |" in card
    assert "pretrain → finetune@spam-full" in card
    assert files.sha256_of(Path("models/spam-full")) in card
    assert "not calibrated" in card


def test_render_names_unchanged_open_weights(project: Registry) -> None:
    """Lost otherwise: a copied encoder is called a language model that was trained on this project's sources."""
    make_model("base")
    shape = {"model_type": "distilbert", "n_layers": 6, "dim": 768, "vocab_size": 100}
    facts = dataclasses.replace(admission.admit("base", params()), tasks=(TaskSpec(name="unchanged"),), shape=shape)
    card = model_card.render(facts, "tohum-base")
    assert "Unchanged open weights of the distilbert family: 6 layers, 768 wide, vocabulary 100." in card
    assert "on none of the sources above" in card


def test_render_counts_the_records_of_each_consent(project: Registry) -> None:
    """Lost otherwise: a reviewer would see the source's consent, which some of its records do not have."""
    make_model("spam-full", seed=3)
    provenance = files.read_json(Path("data/raw/provenance.json"))
    provenance["sources"]["world"] |= {"consent": "contract", "consents": {"contract": 7, "synthetic": 2}}
    files.write_json(Path("data/raw/provenance.json"), provenance)
    card = model_card.render(model_card.gather("spam-full", params(), "0" * 64), "tohum-spam-full")
    assert "| CC0-1.0 | contract 7, synthetic 2 | labelled 9 |" in card
    assert "trained on synthetic text" in card


def test_render_shows_the_baseline_and_the_amount_of_training(project: Registry) -> None:
    """Lost otherwise: a reviewer would promote a classifier below a linear model, or a hardly trained one."""
    make_model("spam-full", seed=3)
    beside = {"accuracy": 0.96, "baseline_accuracy": 0.98, "majority_accuracy": 0.5, "examples": 50.0}
    metrics = beside | {"only_model_right": 1.0, "only_baseline_right": 2.0}
    files.write_json(Path("reports/evaluation/spam-full/metrics.json"), metrics)
    files.write_json(Path("reports/training/spam-full.json"), {"epochs": 0.2, "records": 9599, "tokens": 153600})
    card = model_card.render(model_card.gather("spam-full", params(), "0" * 64), "tohum-spam-full")
    assert "accuracy 0.960, and 0.980 of TF-IDF with logistic regression on the same 50 held-out records;" in card
    assert "the baseline alone on 2: cannot tell which is better, and the baseline is cheaper (McNemar's exact" in card
    assert "| accuracy | 0.96 | 0.865 to 0.989 | >= 0.95 |" in card
    assert "0.2 epochs of 9,599 records, 153,600 tokens in finetune@spam-full." in card


def test_render_names_records_that_a_model_or_an_augmentation_made(project: Registry) -> None:
    make_model("spam-full", seed=3)
    facts = model_card.gather("spam-full", params(), "0" * 64)
    twins = {"of": "sms", "records": 200, "twins": {"case": 40, "typos": 60}, "share_of_records": 0.5}
    answers = {"models": ["tiny-1"], "asked": "llm.example.org", "prompts_sha256": "ab" * 32}
    made = {"noisy": {"name": "augmented", "details": twins}, "faq": {"name": "synthesised", "details": answers}}
    card = model_card.render(dataclasses.replace(facts, sources=made), "tohum-spam-full")
    assert (
        "- noisy: 100 changed copies (40 by case, 60 by typos) of the 200 records of sms, 50% of their number;" in card
    )
    assert "- faq: questions and answers written by tiny-1 (llm.example.org), prompts `abababababab`" in card
    assert "changed copies" not in model_card.render(facts, "tohum-spam-full")


def test_render_names_both_models_of_a_merge(project: Registry) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    rule = {"name": "linear", "scales": [1.0, 1.0]}
    raw["merge"] = {"both": {"of": "base", "first": "chat-full", "second": "spam-full", "rule": rule}}
    raw["evaluations"]["both"] = raw["evaluations"]["spam-full"]
    files.write_json(Path("models/both/tohum.json"), written([ANSWERS, SPAM]))
    evaluate("both")
    card = model_card.render(model_card.gather("both", Params.model_validate(raw), "0" * 64), "tohum-both")
    assert "pretrain → finetune@chat-full → finetune@spam-full → merge@both" in card
    assert "name: linear" in card
    assert "not calibrated" in card
    assert "may make false statements" in card.lower()


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
def test_admit_refuses_an_unfit_model(project: Registry, harm: Any, reason: str) -> None:
    make_model("base")
    admission.admit("base", params())
    harm("base")
    with pytest.raises(UserError, match=reason):
        admission.admit("base", params())
    make_model("base")


def test_start_prints_params_that_load_the_champion(project: Registry) -> None:
    """Lost otherwise: what serves could not be trained further without copying folders and hashes by hand."""
    make_model("chat-full", seed=11)
    version, _ = register(project, "chat-full")
    with pytest.raises(UserError, match="tohum-chat-lora: has no champion yet"):
        project.start("chat-lora")
    project.promote("chat-full", version.version, version.tags[VERSION], "reviewed")
    lines = yaml.safe_load(project.start("chat-full").replace("<as its card says>", "CC0-1.0"))
    start = InitialWeights.model_validate(lines["pretrain.start"])
    assert open_weights.fetch(start, Path("unused")) == Path(lines["tokenize"]["path"])
    with pytest.raises(UserError, match="these are other weights than were pinned"):
        open_weights.fetch(start.model_copy(update={"sha256": "0" * 64}), Path("unused"))
