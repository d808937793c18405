"""The README tells the truth: every file is on the map, every command it names exists and answers."""

import re
import subprocess
import sys

import pytest

from pipeline.paths import CODE as ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.M)))
MODULES = sorted(set(re.findall(r"bin/python -m ((?:stages|pipeline)\.[a-z_.]+)", README)))


def sources() -> list[str]:
    tracked = subprocess.run(["git", "ls-files", "pipeline", "stages"], cwd=ROOT, capture_output=True, text=True)
    paths = tracked.stdout.split() or [str(p.relative_to(ROOT)) for p in (ROOT / "pipeline").rglob("*.py")]
    return [p for p in paths if p.endswith(".py") and (ROOT / p).exists() and (ROOT / p).read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", sources())
def test_every_file_is_on_the_map_with_its_purpose(path: str) -> None:
    assert f"`{path}`" in README, f"{path} is missing from the map in README.md"


def test_the_map_names_no_file_that_is_gone() -> None:
    named = re.findall(r"^\| `((?:pipeline|stages)/[^`]+\.py)` \|", README, re.M)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("target", COMMANDS)
def test_every_make_command_exists(target: str) -> None:
    found = subprocess.run(["make", "-n", target, "DATA=x", "MODEL=x", "NAME=embedded"], cwd=ROOT, capture_output=True)
    assert found.returncode == 0, found.stderr.decode()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_is_named_starts(module: str) -> None:
    found = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "usage" in found.stdout


def test_the_yaml_it_shows_is_valid() -> None:
    """The ten lines of params for a user's own data are copied from here."""
    import yaml

    from pipeline import config

    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for block in re.findall(r"```yaml\n(.*?)```", README, re.S):
        for key, value in yaml.safe_load(block).items():
            raw[key] = value
    raw["evaluations"] |= dict.fromkeys(raw["merge"], raw["evaluations"]["base"])
    params = config.check(raw)
    assert "letters" in params.download.sources
    assert params.waivers[0].gate == "raw"


def test_every_profile_is_in_its_table() -> None:
    assert [p.stem for p in (ROOT / "infra/profiles").glob("*.yaml") if f"| `{p.stem}` |" not in README] == []


@pytest.mark.parametrize(
    "axis", ["objectives", "auxiliary", "tuners", "weighting", "ordering", "optimizers", "merging"]
)
def test_the_table_of_siblings_is_the_folder(axis: str) -> None:
    """Lost otherwise: users would miss a method that is there, or look for one that is not."""
    from pipeline.config import plugins

    row = re.search(rf"^\| `{axis}` \| (.*) \|$", README, re.M)
    assert row
    assert sorted(re.findall(r"`(\w+)`", row[1])) == plugins.choices(axis)
