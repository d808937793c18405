"""The command `tohum`: its list of verbs, help, usage errors, and the project whose code it runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pipeline.cli import _command
from pipeline.cli._command import FOLDER, descriptions
from pipeline.cli._command import tohum as verbs
from pipeline.paths import CODE as ROOT
from tests.commands import tohum

SHIM = FOLDER / "tohum.sh"
HEAVY = {
    "torch",
    "mlflow",
    "prefect",
    "great_expectations",
    "datasets",
    "pandas",
    "optuna",
    "dvc",
    "sklearn",
    "pyarrow",
}


def test_help_lists_every_verb_in_one_line_under_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert tohum("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    for name, verb in descriptions().items():
        assert verb.group != "Other", f"pipeline/cli/{verb.module}.py has no GROUP"
        assert any(re.fullmatch(rf"  {name} +{re.escape(verb.summary)}", line) for line in lines), name
    groups = list(dict.fromkeys(verb.group for verb in descriptions().values()))
    assert [line[:-1] for line in lines if line.endswith(":") and line[:-1] in groups] == groups


def test_verbs_load_no_heavy_library_before_they_run() -> None:
    """Help in half a second, and an error in a command line as soon."""
    program = (
        "import importlib, sys\nfrom pipeline.cli._command import descriptions, tohum\n"
        "print(tohum.get_help(__import__('click').Context(tohum)))\n"
        "listed = set(sys.modules)\n"
        "for verb in descriptions().values():\n    importlib.import_module(f'pipeline.cli.{verb.module}')\n"
        "print('listed', *{name for name in listed if name.startswith('pipeline.')})\n"
        "print('loaded', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    *_, listed, loaded = done.stdout.splitlines()
    assert not HEAVY.intersection(loaded.split()[1:])
    assert set(listed.split()[1:]) <= {
        "pipeline.cli", "pipeline.cli._command", "pipeline.entry",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(descriptions()))
def test_help_of_a_verb_shows_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An example that its own verb refuses would be worse than none."""
    assert tohum(name, "--help") == 0
    _, _, text = capsys.readouterr().out.partition("Examples:\n")
    examples = [words for line in text.splitlines() if "tohum" in (words := shlex.split(line))]
    assert examples, f"tohum {name} --help has no example"
    for example in examples:
        words = example[example.index("tohum") + 1 :]
        words = words[: next((i for i, word in enumerate(words) if word in ("&&", ">", "|")), len(words))]
        context = click.Context(verbs)
        command = verbs.get_command(context, words[0])
        assert command is not None, example
        command.make_context(words[0], words[1:], parent=context)


def test_command_names_the_nearest_verb_when_one_is_mistyped(capsys: pytest.CaptureFixture[str]) -> None:
    assert tohum("pormote") == 2
    error = capsys.readouterr().err
    assert "no verb 'pormote'; did you mean 'promote'? one of: plan, profile" in error


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("fastest", "--aply"), "Did you mean '--apply'?"),
        (("chat", "--top-p", "2"), "2.0 is not in the range 0<=x<=1"),
        (("promote", "base"), "Missing argument 'VERSION'"),
        (("flow", "--set", "x"), "'x', expected a dotted path and a value, such as pretrain.schedule.steps=50"),
        (("flow", "--max-parallel", "0"), "0 is not in the range x>=1"),
    ],
)
def test_command_exits_with_2_when_an_option_is_wrong(
    words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tohum(*words) == 2
    assert text in capsys.readouterr().err


def test_verb_prints_one_sentence_and_exits_with_1_on_a_user_error(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline.cli", "plan"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: params\.yaml: no such file.*\n", done.stderr)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose command line prints where it runs, with the shim of another environment on the PATH."""
    folder = tmp_path / "a project"
    (folder / "pipeline/cli").mkdir(parents=True)
    (folder / "inputs").mkdir()
    (folder / "dvc.yaml").touch()
    (folder / "pipeline/cli/__main__.py").write_text(
        "import os, sys\nprint(os.getcwd(), os.environ['TOHUM_FROM'], sys.executable, *sys.argv[1:], sep='|')\n"
    )
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    shutil.copy(SHIM, bin_folder / "tohum")
    (bin_folder / "python").symlink_to(sys.executable)
    return folder


def shim(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{folder_of_bin(folder)}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["tohum", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def folder_of_bin(folder: Path) -> Path:
    return next(parent / "bin" for parent in folder.parents if (parent / "bin/tohum").exists())


def test_shim_runs_the_project_found_upwards(project: Path) -> None:
    """With the words and the folder as the user gave them."""
    for folder in (project, project / "inputs"):
        done = shim(folder, "try", "my file.csv")
        assert done.stderr == ""
        here, called_in, python, *words = done.stdout.strip().split("|")
        assert (Path(here), Path(called_in), words) == (project, folder, ["try", "my file.csv"])
        assert Path(python).parent == project.parent / "bin"


def test_shim_prefers_the_innermost_project_and_its_environment(project: Path) -> None:
    """A folder below .tohum/try, or another checkout, runs its own code."""
    inner = project / ".tohum/try"
    shutil.copytree(project / "pipeline", inner / "pipeline")
    (inner / "dvc.yaml").touch()
    (inner / ".venv/bin").mkdir(parents=True)
    (inner / ".venv/bin/python").symlink_to(sys.executable)
    here, _, python, *_ = shim(inner / "pipeline", "plan").stdout.split("|")
    assert Path(here) == inner
    assert Path(python) == inner / ".venv/bin/python"


def test_shim_exits_with_1_where_there_is_no_project(project: Path) -> None:
    done = shim(project.parent / "bin", "plan")
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: .*/bin: no folder from here upwards holds a dvc\.yaml and pipeline/cli.*\n", done.stderr
    )


def test_shim_names_make_setup_where_there_is_no_environment(project: Path) -> None:
    (project.parent / "bin/python").unlink()
    done = shim(project, "plan")
    assert done.returncode == 1
    assert done.stderr == f"error: {project}/.venv: no Python environment; run `make setup` in {project}\n"


def test_shim_exits_with_1_where_the_folder_was_deleted(project: Path) -> None:
    """Lost otherwise: it looked upwards for ever."""
    command = [
        "sh",
        "-c",
        'mkdir gone && cd gone && rmdir ../gone && exec "$0" plan',
        str(project.parent / "bin/tohum"),
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "error: the working folder no longer exists; go into a project and run the command again\n"
    )


def test_shim_finds_its_python_when_called_by_a_relative_path_or_a_link(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(tmp_path / "bin/tohum")
    for called in ("../../bin/tohum", str(link)):
        command = [called, "plan"]
        done = subprocess.run(command, cwd=project / "inputs", capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert Path(done.stdout.split("|")[2]) == tmp_path / "bin/python"


def test_shim_finds_the_projects_modules_under_pythonsafepath(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    assert shim(project, "plan").stderr == ""


def test_makefile_removes_pythonsafepath_from_its_commands(tmp_path: Path) -> None:
    """`make plan` calls `python -m pipeline.cli`, not the shim."""
    (tmp_path / "Makefile").write_text(f'include {ROOT}/Makefile\nshow:\n\t@echo "[$$PYTHONSAFEPATH]"\n')
    command = ["make", "--no-print-directory", "show"]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_command_prints_no_error_when_its_output_is_closed(tmp_path: Path) -> None:
    """`tohum fsck | head`."""
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(CLOSED)} | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "128 + 13\n"


# Prints until the pipe is closed, then the exit code.
CLOSED = """
import sys
from pipeline.cli import profile
from pipeline.cli._command import run
profile.command.callback = lambda **_: [print("x" * 1000, flush=True) for _ in range(100_000)] and None
print("128 +", run(["profile"]) - 128, file=sys.stderr)
"""


def test_user_path_counts_from_the_folder_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []

    @click.command()
    @click.argument("path", type=_command.UserPath())
    def show(path: Path) -> None:
        seen.append(path)

    for called_in in (None, tmp_path, tmp_path / "inputs", Path("/elsewhere")):
        with show.make_context("show", ["a.csv"], obj=called_in) as context:
            show.invoke(context)
    assert seen == [Path("a.csv"), Path("a.csv"), Path("inputs/a.csv"), Path("/elsewhere/a.csv")]


@pytest.fixture
def inner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A try's project below the working folder; its profile list and params are its own."""
    folder = tmp_path / ".tohum/try"
    folder.mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("option", [["--project", ".tohum/try"], ["--project=.tohum/try"]])
def test_project_option_runs_the_verb_in_that_project(
    inner: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its paths are shown from the user's folder, its commands with the same option."""
    assert tohum(*option, "report") == 0
    assert (inner / "reports/costs.html").is_file()
    assert capsys.readouterr().out == ".tohum/try/reports/costs.html\n"
    assert Path.cwd() == inner


def test_project_option_counts_from_the_users_folder_then_from_the_root(inner: Path, tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    assert tohum("--project", "../.tohum/try", "report", called_in=tmp_path / "inputs") == 0
    os.chdir(tmp_path)
    assert tohum("--project", ".tohum/try", "report", called_in=tmp_path / "inputs") == 0
    assert Path.cwd() == inner


def test_project_option_refuses_a_folder_without_a_project(inner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tohum("--project", "nowhere", "report") == 2
    assert "--project nowhere: no project there (no dvc.yaml); `tohum try FILE` makes .tohum/try" in (
        capsys.readouterr().err
    )
    assert tohum("--project") == 2
    assert inner.is_dir()


def test_spoken_repeats_the_project_option(inner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "pipeline.cli.report.command.callback", lambda: said.extend([_command.spoken("ui"), _command.shown(Path("a"))])
    )
    tohum("report")
    tohum("--project", ".tohum/try", "report")
    assert said == ["tohum ui", "a", "tohum --project .tohum/try ui", ".tohum/try/a"]
    assert Path.cwd() == inner


def test_main_takes_the_project_option_out_of_the_command_line(inner: Path) -> None:
    """`tohum search` and `tohum flow` start themselves anew with the words after the verb."""
    program = (
        "import sys\nfrom pipeline.cli import _command, report\n"
        "report.command.callback = lambda: print(sys.argv[1:])\n_command.main()\n"
    )
    command = [sys.executable, "-c", program, "--project", str(inner), "report"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "['report']\n", done.stderr


def test_run_gives_a_command_the_folder_of_the_call_and_its_own_options(project: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TOHUM_FROM": str(project / "inputs")}
    program = "import os, sys; print(os.getcwd(), sys.argv[1:], 'TOHUM_FROM' in os.environ)"
    command = [sys.executable, "-m", "pipeline.cli", "run", sys.executable, "-c", program, "--help", "-x"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"{project / 'inputs'} ['--help', '-x'] False\n", done.stderr
