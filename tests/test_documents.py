"""Documents agree with the code: every command, link, profile, benchmark and key that they name exists."""

import re
import subprocess
import sys

import pytest
import yaml

from pipeline import config
from pipeline.config import profiles
from pipeline.paths import CODE as ROOT

READMES = ("README.md", "README.tr.md")
PAGES = (
    *READMES,
    "pipeline/README.md",
    "pipeline/config/README.md",
    "pipeline/orchestration/README.md",
    "pipeline/registry/README.md",
    "pipeline/serving/README.md",
    "infra/profiles/README.md",
    "tests/bench/README.md",
    "tests/torture/README.md",
)
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
ALL = "\n".join(TEXTS.values())


def blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks of a page: language and content."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)


def commands(text: str) -> list[str]:
    """Command lines in code blocks (without comments) and in backticks."""
    shell = [content for language, content in blocks(text) if language in ("", "sh")]
    lines = [line.partition("#")[0].removeprefix("$ ") for content in shell for line in content.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M))
    return [line.strip() for line in [*lines, *inline]]


def called(program: str, text: str) -> list[str]:
    """The words that follow a program's name at the start of a command or after &&."""
    found = [re.findall(rf"(?:^|&& ){program} ([a-z]+)\b", line) for line in commands(text)]
    return sorted({word for words in found for word in words})


@pytest.mark.parametrize("verb", called("tohum", ALL))
def test_every_verb_in_the_documents_answers_help(verb: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", verb, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("Usage: tohum")


@pytest.mark.parametrize("target", called("make", ALL))
def test_every_make_target_in_the_documents_exists(target: str) -> None:
    process = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (tests[a-z_.]+)(?![A-Za-z_.])", ALL))))
def test_every_module_of_the_tests_in_the_documents_exists(module: str) -> None:
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file(page: str) -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page])]
    assert [link for link in links if link and not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", READMES)
def test_yaml_of_a_readme_is_valid_in_params(page: str) -> None:
    """The lines for a user's own data and for a waiver are copied from there."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings = [content for language, content in blocks(TEXTS[page]) if language == "yaml"]
    assert len(settings) == 2
    for content in settings:
        for section, fields in yaml.safe_load(content).items():
            raw[section] = raw[section] | fields if isinstance(fields, dict) else fields
    params = config.check(raw)
    assert list(params.download.sources) == ["letters"]
    assert params.waivers[0].gate == "raw"


def test_the_turkish_readme_has_the_commands_links_and_headings_of_the_english_one() -> None:
    english, turkish = (TEXTS[page] for page in READMES)
    for program in ("tohum", "make", "dvc"):
        assert called(program, turkish) == called(program, english)
    links = [sorted(re.findall(r"\]\(([^)\s]+)\)", text)) for text in (english, turkish)]
    assert [link for link in links[0] if link not in READMES] == [link for link in links[1] if link not in READMES]
    marks = [re.findall(r"^#+", text, re.M) for text in (english, turkish)]
    assert marks[0] == marks[1]
    languages = [[language for language, _ in blocks(text)] for text in (english, turkish)]
    assert languages[0] == languages[1]


@pytest.mark.parametrize("page", READMES)
def test_a_readme_fits_its_first_readers(page: str) -> None:
    """A page that grows without end is read by few: details belong on the pages beside the code."""
    assert TEXTS[page].count("\n") < 300


def test_every_profile_stands_in_the_table_of_profiles() -> None:
    assert re.findall(r"^\| `([\w-]+)` \|", TEXTS["infra/profiles/README.md"].partition("## ")[0], re.M)
    rows = set(re.findall(r"^\| `([\w-]+)` \|", TEXTS["infra/profiles/README.md"], re.M))
    assert set(profiles.available()) <= rows


def test_every_profile_that_a_document_applies_exists() -> None:
    named = [line.split()[2:] for line in commands(ALL) if re.match(r"tohum profile [a-z]", line)]
    options = ("--data", "--base", "--text", "--label", "--kind")  # their value is the next word
    names = {
        word
        for words in named
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and before not in options
    }
    assert names
    assert names <= set(profiles.available())


def test_every_benchmark_is_described() -> None:
    benchmarks = {path.name for path in (ROOT / "tests/bench").glob("*.py") if not path.name.startswith("test_")}
    assert benchmarks <= set(re.findall(r"`(\w+\.py)`", TEXTS["tests/bench/README.md"]))


def test_every_program_of_fault_injection_is_described() -> None:
    programs = {path.stem for path in (ROOT / "tests/torture/results").glob("*.json")}
    assert programs == set(re.findall(r"^\| `(\w+)` \|", TEXTS["tests/torture/README.md"], re.M))


def test_the_readme_shows_one_whole_variant_that_fits_the_page() -> None:
    """tests/stages/test_new_method.py trains with it."""
    (example,) = [content for language, content in blocks(TEXTS["README.md"]) if language == "python"]
    assert example.count("\n") < 40
    compile(example, "norms.py", "exec")


def test_the_measure_in_the_map_of_the_code_is_the_one_that_is_tested() -> None:
    (example,) = [
        content
        for language, content in blocks(TEXTS["pipeline/README.md"])
        if language == "python" and "def measure(" in content
    ]
    assert example in (ROOT / "tests/test_new_variants.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_machine_and_no_index(page: str) -> None:
    assert not re.search(r"/(work|root|home|tmp)/|https?://(?!mlflow\.example\.org)", TEXTS[page])
