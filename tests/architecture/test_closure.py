"""A changed file makes a stage stale if and only if it is in the stage's closure: every stage of every profile.

Lost otherwise: a model that keeps an old result after its code changed, or an hour of training for a reworded message.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import closure, syntax
from pipeline.config import plugins
from pipeline.config.check import check
from pipeline.config.recipe import AXES
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.paths import CODE_OF_STAGES
from tests.architecture.import_graph import PROFILES, dvc_yaml, params_of, path_of, reached

PACKAGE = sorted((ROOT / "pipeline").rglob("*.py"))
# Modules imported by a computed name, and why no closure needs to know.
COMPUTED = {
    "pipeline/cli/_command.py": "the verbs of the command line, which belong to no closure",
    "pipeline/config/plugins.py": "the door itself",
    "pipeline/gates/_expectations.py": "other packages, loaded when first used",
    "pipeline/registry/_pyfunc.py": "a registered version's own files, outside the graph",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the code that may be changed."""
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("profile", PROFILES)
def test_closure_of_every_stage_is_what_grimp_reaches_from_its_script_and_parts(profile: str) -> None:
    params = params_of(profile)
    compared = set()  # recipes of one method have one closure
    for stage, module in closure.stage_modules(params, dvc_yaml()).items():
        if module == "stages.code":
            continue
        parts = closure.stage_parts(stage, params)
        if (key := json.dumps([module, parts])) in compared:
            continue
        compared.add(key)
        taken = [f"pipeline.{folder.replace('/', '.')}.{name}" for folder, names in parts.items() for name in names]
        expected = frozenset().union(*(reached(start) for start in [module, *taken]))
        found = closure.code([module], parts)
        assert {path for path in found if path.endswith(".py")} == {path_of(name) for name in expected}, stage


@pytest.mark.parametrize("profile", PROFILES)
def test_closure_of_a_training_holds_the_named_part_of_every_axis_and_no_sibling(profile: str) -> None:
    """By hand, without `stage_parts`: the file of each axis, and of its siblings only those that are imported."""
    params = params_of(profile)
    found = closure.stages(params, dvc_yaml())
    recipes = {"pretrain": params.pretrain} | {f"finetune@{name}": recipe for name, recipe in params.finetune.items()}
    for stage, recipe in recipes.items():
        for axis, folder in AXES.items():
            own = path_of(f"pipeline.{folder}.{getattr(recipe, axis).name}")
            files = {path for path in found[stage] if path.startswith(f"pipeline/{folder}/")}
            assert own in files, (stage, axis)
            assert not files - reached_files("stages.pretrain", "stages.finetune") - {own} - imported_by(own), stage
    for model, evaluation in params.evaluations.items():
        measures = {f"pipeline/evaluation/{name}.py" for name in evaluation.measures}
        code = found[f"evaluate@{model}"]
        assert measures <= {path for path in code if path.startswith("pipeline/evaluation/")}
        siblings = {path for path in code if re.fullmatch(r"pipeline/evaluation/[a-z]\w*\.py", path)}
        assert siblings == measures
    for name, merge in params.merge.items():
        assert f"pipeline/merging/{merge.rule.name}.py" in found[f"merge@{name}"]


@functools.cache
def reached_files(*modules: str) -> frozenset[str]:
    return frozenset(path_of(module) for start in modules for module in reached(start))


def imported_by(path: str) -> frozenset[str]:
    return reached_files(path.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."))


def test_closure_of_rollouts_holds_their_judge_and_the_engine_and_that_of_records_does_not() -> None:
    """An edit of the decoding engine may change answers that are drawn in training, and nothing else."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["search"], raw["finetune"]["drawn"] = {}, raw["finetune"]["chat-lora"] | {
        "judge": {"name": "rule", "reads": "models/base", "check": "number"},
        "task": {"name": "prompts", "template": "chat", "max_tokens": 128, "max_prompt_tokens": 96},
        "experience": {"name": "rollouts"} | plugins.example("experience", "rollouts"),
        "loss": {"name": "grpo"} | plugins.example("losses", "grpo"),
    }  # fmt: skip
    raw["evaluations"]["drawn"] = raw["evaluations"]["chat-lora"]
    params = check(raw)
    found = closure.stages(params, dvc_yaml())
    drawn = {
        "pipeline/inference/engine.py", "pipeline/experience/rollouts/buffer.py", "pipeline/judges/rule.py",
        "pipeline/tasks/prompts.py",
    }  # fmt: skip
    assert drawn <= found["finetune@drawn"].keys()
    assert not drawn & found["finetune@chat-lora"].keys()
    assert not drawn & found["pretrain"].keys()
    assert {"pipeline/judges/none.py", "pipeline/experience/records.py"} <= found["finetune@chat-lora"].keys()
    assert "pipeline/tasks/instruct.py" in found["evaluate@drawn"]  # tohum.json names it


def test_data_stages_take_the_named_sources_formats_and_gates() -> None:
    found = closure.stages(params_of("files"), dvc_yaml())
    formats = {path for path in found["download"] if path.startswith("pipeline/data/formats/") and "/_" not in path}
    settings = [source.settings("data/sources", "") for source in params_of("files").download.sources.values()]
    named = {f"pipeline/data/formats/{one.format.name}.py" for one in settings}
    assert formats == named
    for gate in ("raw", "tokens", "samples"):
        gates = {path for path in found[f"validate@{gate}"] if re.fullmatch(r"pipeline/gates/[a-z]\w*\.py", path)}
        assert gates == {f"pipeline/gates/{gate}.py"}
    assert "pipeline/gates/model.py" in found["validate-model@base"]


@pytest.mark.parametrize(
    "path",
    [
        "pipeline/model/gpt.py", "pipeline/tokenizer/encoders.py", "pipeline/training/loop.py",
        "pipeline/tuners/lora.py", "pipeline/data/sources/world/grammar.py",
        "pipeline/losses/cross_entropy.py", "pipeline/evaluation/classification.py", "pipeline/gates/raw.py",
        "pipeline/reporting/pages/gate.html", "pipeline/reporting/pages/base.html",
        "pipeline/merging/ties.py", "pipeline/tracking/tracker.py", "stages/evaluate.py", "pipeline/kept_results.py",
    ],
)  # fmt: skip
def test_a_changed_file_changes_exactly_the_stages_that_list_it(path: str, project: Path) -> None:
    before = closure.stages(params_of("merged"), dvc_yaml(), project)
    with (project / path).open("a", encoding="utf-8") as file:
        file.write("\nCHANGED = 1\n")
    after = closure.stages(params_of("merged"), dvc_yaml(), project)
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed == {stage for stage, code in before.items() if path in code}
    exempt = any(path.startswith(f"{name.replace('.', '/')}/") for name in closure.EXEMPT)
    assert bool(changed) != exempt


def test_a_comment_a_docstring_or_an_unused_file_changes_no_stage(project: Path) -> None:
    before = closure.stages(params_of("merged"), dvc_yaml(), project)
    for path in project.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(f"{text}\n# a comment\n", encoding="utf-8")
    for folder in (
        *AXES.values(),
        "evaluation",
        "merging",
        "data/sources",
        "data/formats",
        "data/augment",
        "gates",
        "model",
    ):
        (project / "pipeline" / folder / "unused.py").write_text("UNUSED = 1\n", encoding="utf-8")
    assert closure.stages(params_of("merged"), dvc_yaml(), project) == before


def test_closure_of_download_holds_the_named_augmentations_and_the_prompts_of_its_sources() -> None:
    """A changed prompt or augmentation would otherwise leave old records in place."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    rights = {"licence": "CC0-1.0", "consent": "synthetic", "weight": 1.0}
    noise = [{"name": "typos", "share": 1.0, "rate": 0.1}, {"name": "paraphrase", "share": 1.0, "templates": None}]
    twins = {"name": "augmented", **rights, "of": "world", "kind": "labelled", "seed": 1, "augment": noise}
    raw["download"]["sources"]["noisy"] = twins
    code = closure.stages(check(raw), dvc_yaml())["download"]
    assert {f"pipeline/data/augment/{name}" for name in ("typos.py", "paraphrase.py", "paraphrases.yaml")} <= set(code)
    assert "pipeline/data/augment/back_translation.py" not in code
    assert not [path for path in code if "question_prompts" in path or "_chat" in path]
    assert not [path for path in closure.stages(params_of("embedded"), dvc_yaml())["download"] if "augment" in path]


def test_no_closure_holds_exempt_code() -> None:
    """`orchestration` and `cli` above all: they start stages, and no stage starts them."""
    for profile in PROFILES:
        for stage, code in closure.stages(params_of(profile), dvc_yaml()).items():
            modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in code}
            assert not [name for name in modules if any(f"{name}.".startswith(f"{one}.") for one in closure.EXEMPT)], (
                stage
            )


def test_every_exemption_names_a_module_and_a_reason() -> None:
    for name, reason in closure.EXEMPT.items():
        assert (ROOT / path_of(name)).is_file()
        assert len(reason.split()) > 3


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.relative_to(ROOT / "pipeline").as_posix())
def test_every_call_of_plugins_load_is_for_a_folder_that_closures_know(path: Path) -> None:
    """A part taken by a name that the owner does not see would change without making anything stale."""
    text = path.read_text(encoding="utf-8")
    known = {
        syntax.AXES,
        *AXES.values(),
        "evaluation",
        "merging",
        "gates",
        "data/sources",
        "data/formats",
        "data/augment",
    }
    loads = syntax.read(path).loads  # a folder that cannot be read from the source is a UserError
    assert set(loads) <= known
    relative = path.relative_to(ROOT).as_posix()
    assert ("plugins.load(" in text) == bool(loads) or relative in {"pipeline/syntax.py", "pipeline/closure.py"}
    if re.search(r"import_module\(|__import__\(|plugins import load|run_module\(", text):
        assert relative in COMPUTED


def test_a_folder_without_names_is_refused(project: Path) -> None:
    """Broken on purpose: a new call of `plugins.load` in a stage's closure."""
    (project / "stages/sample.py").write_text(
        'from pipeline.config import plugins\nplugins.load("tuners", "lora")\n', encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"sample\.py: it calls plugins\.load for tuners"):
        closure.stages(params_of("embedded"), dvc_yaml(), project)
    (project / "stages/sample.py").write_text(
        "from pipeline.config import plugins\nplugins.load(f(), 'lora')\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"sample\.py:2: plugins\.load\(\"folder\", \.\.\.\) or"):
        closure.stages(params_of("embedded"), dvc_yaml(), project)


def test_a_part_without_a_file_is_named(project: Path) -> None:
    (project / "pipeline/tuners/lora.py").unlink()
    with pytest.raises(UserError, match=r"params\.yaml names 'lora', expected a file pipeline/tuners/lora\.py"):
        closure.stages(params_of("embedded"), dvc_yaml(), project)


def test_a_file_that_is_no_python_is_named_with_its_line(project: Path) -> None:
    (project / "pipeline/model/gpt.py").write_text("x = 1\nif\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"model/gpt\.py:2: .*fix the file"):
        closure.stages(params_of("embedded"), dvc_yaml(), project)


def test_closure_for_packing_keeps_exempt_modules() -> None:
    """A registered version runs elsewhere: it needs every file that it imports."""
    found = closure.closure("pipeline.inference.predictor")
    assert {"pipeline", "pipeline.config.recipe", "pipeline.errors", "pipeline.files"} <= set(found)
    assert all(path.is_file() for path in found.values())


def test_stage_code_writes_a_file_per_stage_and_the_next_process_parses_nothing(tmp_path: Path) -> None:
    """Training asks for its closure at every start: parsing seventy files would cost it half a second."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.code"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    written = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "data/code").glob("*.json")}
    assert written == closure.stages(params_of("embedded"), dvc_yaml())
    script = (
        "from pipeline import closure, syntax\n"
        "def refuse(*_): raise AssertionError('parsed')\n"
        "syntax.parsed = refuse\n"
        "print(closure.digest(closure.code(['stages.sample'], {})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == closure.digest(closure.code(["stages.sample"], {}))
    cache = tmp_path / ".tohum/code.json"
    cache.write_bytes(cache.read_bytes().replace(b'"fingerprint": "', b'"fingerprint": "0', 1))
    damaged = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "AssertionError: parsed" in damaged.stderr  # a damaged file is not believed


def test_the_module_of_a_stage_is_the_one_in_dvc_yaml() -> None:
    for stage, module in closure.stage_modules(params_of("merged"), dvc_yaml()).items():
        assert closure._module(stage) == module


def test_a_stage_refuses_code_that_changed_since_stage_code_ran(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: an edit while `dvc repro` runs makes outs that dvc.lock gives to the code before the edit."""
    monkeypatch.chdir(project)
    params = params_of("embedded")
    closure.require_current("finetune@spam-lora", params, project)  # stage code never ran: nothing to compare with
    for stage, code in closure.stages(params, dvc_yaml(), project).items():
        path = CODE_OF_STAGES / f"{stage}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(closure.rendered(code), encoding="utf-8")
        closure.require_current(stage, params, project)
    with (project / "pipeline/tuners/lora.py").open("a", encoding="utf-8") as file:
        file.write("\nCHANGED = 1\n")
    closure.require_current("finetune@spam-full", params, project)
    with pytest.raises(UserError, match=r"finetune@spam-lora: pipeline/tuners/lora\.py changed .* run `dvc repro`"):
        closure.require_current("finetune@spam-lora", params, project)
    (CODE_OF_STAGES / "report.json").write_text("[", encoding="utf-8")
    with pytest.raises(UserError, match=r"report\.json: it is damaged"):
        closure.require_current("report", params, project)


@pytest.mark.parametrize(
    "line",
    [
        "from pipeline.config.plugins import load",
        "from pipeline.config import plugins as p",
        "import pipeline.config.plugins",
    ],
)
def test_a_second_name_of_plugins_is_refused(project: Path, line: str) -> None:
    """Lost otherwise: a part that is taken by it belongs to no closure."""
    (project / "stages/sample.py").write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"sample\.py:1: plugins under another name"):
        closure.code(["stages.sample"], {}, project)


def test_templates_of_one_name_all_count(project: Path) -> None:
    before = closure.code(["stages.report"], {}, project)
    other = project / "pipeline/reporting/pages/other"
    other.mkdir()
    shutil.copy2(project / "pipeline/reporting/pages/report.html", other)
    both = closure.code(["stages.report"], {}, project)
    assert set(both) - set(before) == {"pipeline/reporting/pages/other/report.html"}


def test_a_file_with_a_nul_byte_is_a_sentence(project: Path) -> None:
    (project / "stages/sample.py").write_bytes(b"a = 1\0")
    with pytest.raises(UserError, match=r"sample\.py"):
        closure.code(["stages.sample"], {}, project)


def test_an_evaluation_holds_the_task_of_its_own_model_alone() -> None:
    """With those of its ancestors an edit of next_token would evaluate every model again."""
    params = params_of("merged")
    found = closure.stages(params, dvc_yaml())

    def tasks(model: str) -> set[str]:
        return {path for path in found[f"evaluate@{model}"] if re.fullmatch(r"pipeline/tasks/[a-z]\w*\.py", path)}

    own = {model: {f"pipeline/tasks/{recipe.task.name}.py"} for model, recipe in params.finetune.items()}
    assert {model: tasks(model) for model in own} == own
    assert tasks("base") == {"pipeline/tasks/next_token.py"}
    for name, merge in params.merge.items():
        assert tasks(name) == tasks(merge.first) | tasks(merge.second)


def test_the_samples_gate_alone_holds_the_tasks_of_the_recipes() -> None:
    """In another stage's file a changed prompt limit would make that stage stale, pretraining included."""
    found = closure.stages(params_of("merged"), dvc_yaml())
    holding = {stage for stage, code in found.items() if any(key.startswith("params.yaml") for key in code)}
    assert holding == {"validate@samples"}
