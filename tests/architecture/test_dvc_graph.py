"""dvc.yaml and the stages: each depends on its own code, runs under the guard and loads no service without need."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import closure
from pipeline.config import profiles
from tests.architecture import import_graph

GRAPH = import_graph.dvc_yaml()
DEFAULT = import_graph.params_of(profiles.BASE)
MODULES = closure.stage_modules(DEFAULT, GRAPH)
COMMANDS = [stage.get("do", stage)["cmd"] for stage in GRAPH["stages"].values()]
SCRIPTS = sorted({command.split()[3] for command in COMMANDS})
LIGHT = ["code", "download", "tokenize", "sample"]
# Each costs seconds at every start of a stage, or opens a second door to a service.
NEVER = {"mlflow", "prefect", "peft", "transformers"}
# Imported where a folder's architecture is none of our families, and not before (tests/model/test_library.py).
OPTIONAL = {"transformers"}


def deps_of(profile: str, folder: Path) -> dict[str, set[str]]:
    """Stage -> dependencies, as DVC itself resolves dvc.yaml with the params of a profile."""
    from dvc.repo import Repo

    (folder / "params.yaml").write_text(profiles.rendered([profile]), encoding="utf-8")
    (folder / "dvc.yaml").write_bytes((import_graph.ROOT / "dvc.yaml").read_bytes())
    with Repo.init(str(folder), no_scm=True) as repo:
        return {stage.name: {dep.def_path for dep in stage.deps} for stage in repo.index.stages}


@pytest.mark.parametrize("profile", [profiles.BASE, "merged", "methods"])
def test_every_stage_depends_on_its_own_code_and_on_no_source_file(profile: str, tmp_path: Path) -> None:
    """A stage without its file keeps an old result; one with a source file as well reruns for a comment."""
    found = deps_of(profile, tmp_path)
    code = found.pop("code")
    assert {"pipeline", "stages"} <= code
    assert set(found) == set(closure.stages(import_graph.params_of(profile), GRAPH))
    for stage, deps in found.items():
        assert {dep for dep in deps if dep.startswith(("data/code", "pipeline", "stages"))} == {
            f"data/code/{stage}.json"
        }


def test_every_stage_runs_under_the_guard() -> None:
    """One without it trains on when dvc is killed."""
    assert [c for c in COMMANDS if not c.startswith("python -m pipeline.orchestration.guard stages.")] == []


def test_every_script_in_stages_is_a_stage() -> None:
    """A script that dvc.yaml does not name is a command of the project and stands in pipeline/cli."""
    scripts = {f"stages.{path.stem}" for path in (import_graph.ROOT / "stages").glob("[!_]*.py")}
    assert scripts == set(SCRIPTS)


@pytest.mark.parametrize("stage", SCRIPTS)
def test_stage_imports_no_heavy_service(stage: str) -> None:
    """Seconds of start-up in every stage, and a second door to mlflow or prefect; lazy imports count."""
    assert not (NEVER - OPTIONAL).intersection(import_graph.external(stage))


@pytest.mark.parametrize("stage", [*LIGHT, "validate"])
def test_data_stage_never_reaches_torch(stage: str) -> None:
    """They run on machines that have no torch, and start without its seconds; lazy imports count."""
    parts = [closure.stage_parts(name, DEFAULT) for name, module in MODULES.items() if module == f"stages.{stage}"]
    taken = {f"pipeline.{f.replace('/', '.')}.{name}" for part in parts for f, names in part.items() for name in names}
    for module in {f"stages.{stage}"} | taken:
        assert "torch" not in import_graph.external(module), module


@pytest.mark.parametrize("stage", LIGHT)
def test_data_stage_loads_no_torch_when_it_starts(stage: str) -> None:
    """The same, seen from the interpreter: no third library drags it in."""
    code = f"import sys, stages.{stage}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=import_graph.ROOT, capture_output=True, encoding="utf-8", check=True
    )
    heavy = NEVER | {"torch", "great_expectations", "sklearn", "dvc"}
    assert not heavy.intersection(done.stdout.split())


def test_guard_loads_nothing_of_ours() -> None:
    """The guard starts before every stage; pydantic and yaml would cost each half a second."""
    code = "import sys, pipeline.orchestration.guard; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=import_graph.ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert not {"pydantic", "yaml", "pipeline.config"}.intersection(done.stdout.split())
