"""dvc.yaml against the imports: a missing dep is a stage that keeps an old result after its code changed."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from tests.architecture import import_graph

STAGES, PARAMS = import_graph.read()
LIGHT = ["download", "tokenize", "sample"]
# Each costs seconds at every start of a stage, or opens a second door to a service.
NEVER = {"mlflow", "prefect", "peft", "transformers"}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_every_file_that_the_stage_runs(stage: str) -> None:
    """Change a file and every stage that can feel it runs again."""
    missing = import_graph.uncovered(STAGES[stage], PARAMS)
    assert not missing, f"dvc.yaml: {stage}.deps lack {missing}"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_no_exempt_file(stage: str) -> None:
    """Rewording an error of config.py, or a line of the tracker, must not retrain a model."""
    exempt = {import_graph._path(name).relative_to(import_graph.ROOT).as_posix() for name in import_graph.EXEMPT}
    assert not exempt.intersection(STAGES[stage].deps)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_in_the_code_exist(stage: str) -> None:
    """A renamed file would stop the whole graph with DVC's own, less helpful words."""
    code = [dep for dep in STAGES[stage].deps if re.match(r"(pipeline|stages)/", dep)]
    assert [dep for dep in code if not (import_graph.ROOT / dep).exists()] == []


def test_every_stage_runs_under_the_guard() -> None:
    """One without it trains on when dvc is killed."""
    raw = yaml.safe_load((import_graph.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    commands = [stage.get("do", stage)["cmd"] for stage in raw.values()]
    assert [c for c in commands if not c.startswith("python -m pipeline.orchestration.guard stages.")] == []


def test_a_forgotten_dep_is_found() -> None:
    """Broken on purpose: the check itself must see a missing module, helper and sibling."""
    stage = next(one for name, one in STAGES.items() if name.startswith("finetune@"))
    needed = import_graph.needed(stage, PARAMS)
    for forgotten in ("pipeline/model/gpt.py", "pipeline/training/loop.py", "stages/finetune.py"):
        assert forgotten in needed
        bare = replace(stage, deps=tuple(needed - {forgotten}))
        assert import_graph.uncovered(bare, PARAMS) == [forgotten]
    tuner = f"pipeline/tuners/{PARAMS['finetune'][stage.key]['tuner']['name']}.py"
    assert tuner in import_graph.uncovered(replace(stage, deps=()), PARAMS)


def test_a_folder_covers_its_files_and_no_namesake() -> None:
    """`pipeline/data` does not cover `pipeline/data_other.py`."""
    stage = import_graph.Instance("x", "stages.download", "x", ("pipeline/data", "stages/download.py"))
    assert not [f for f in import_graph.uncovered(stage, PARAMS) if f.startswith("pipeline/data/")]
    stage = replace(stage, deps=("pipeline/dat", "stages/download.py"))
    assert [f for f in import_graph.uncovered(stage, PARAMS) if f.startswith("pipeline/data/")]


def test_foreach_is_resolved_as_dvc_does() -> None:
    """Keys and items, from a mapping in place or from params."""
    stages = {
        "a": {
            "foreach": "${recipes}",
            "do": {
                "cmd": "python -m pipeline.orchestration.guard stages.a ${key}",
                "deps": ["x/${item.tuner.name}.py"],
            },
        }
    }
    found = import_graph.instances(stages, {"recipes": {"one": {"tuner": {"name": "lora"}}}})
    assert found == {"a@one": import_graph.Instance("a@one", "stages.a", "one", ("x/lora.py",))}


@pytest.mark.parametrize("stage", sorted({one.module for one in STAGES.values()}))
def test_no_stage_imports_a_heavy_service(stage: str) -> None:
    """Seconds of start-up in every stage, and a second door to mlflow or prefect; lazy imports count."""
    assert not NEVER.intersection(import_graph.external(stage))


@pytest.mark.parametrize("stage", [*LIGHT, "validate"])
def test_data_stages_never_reach_torch(stage: str) -> None:
    """They run on machines that have no torch, and start without its seconds; lazy imports count."""
    siblings = [import_graph.siblings(one, PARAMS) for one in STAGES.values() if one.module == f"stages.{stage}"]
    for module in {f"stages.{stage}"}.union(*siblings):
        assert "torch" not in import_graph.external(module), module


@pytest.mark.parametrize("stage", LIGHT)
def test_data_stages_load_no_torch_when_they_start(stage: str) -> None:
    """The same, seen from the interpreter: no third library drags it in."""
    code = f"import sys, stages.{stage}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=import_graph.ROOT, capture_output=True, encoding="utf-8", check=True
    )
    heavy = NEVER | {"torch", "great_expectations", "sklearn", "dvc"}
    assert not heavy.intersection(done.stdout.split())


def test_the_guard_loads_nothing_of_ours() -> None:
    """The guard starts before every stage; pydantic and yaml would cost each half a second."""
    code = "import sys, pipeline.orchestration.guard; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=import_graph.ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert not {"pydantic", "yaml", "pipeline.config"}.intersection(done.stdout.split())
