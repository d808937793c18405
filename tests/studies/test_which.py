"""The table and the advice that a user chooses a method by."""

import sys
from pathlib import Path

import pytest
import yaml

from pipeline import config, files
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.reporting.methods import Cost, Method, cost
from pipeline.studies import which
from stages import evaluate, finetune
from tests.commands import tohum
from tests.prose import english


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two methods of two seeds each, as if they had run."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    recipe, judged = raw["finetune"]["spam-full"], raw["evaluations"]["spam-full"]
    names = ["full-s1", "full-s2", "lora-s1", "lora-s2", "ia3-s1", "ia3-s2"]
    raw["finetune"] = dict.fromkeys(names, recipe)
    raw["evaluations"] = {"base": raw["evaluations"]["base"]} | dict.fromkeys(names, judged)
    raw["register"]["models"], raw["search"] = ["base"], {}
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    scores = dict(zip(names, (0.95, 0.97, 0.90, 0.92, 0.80, 0.81), strict=True)) | {"base": 0.0}
    for name, score in scores.items():
        metrics = {"bits_per_byte": 0.5} if name == "base" else {"accuracy": score, "examples": 400.0}
        files.write_json(Path(f"reports/evaluation/{name}/metrics.json"), metrics | {"loss_nats": 1.0})
        files.write_json(Path(f"reports/evaluation/{name}/details.json"), {})
        files.write_json(Path(f"reports/training/{name}.json"), {"trainable_share": 0.5})
        files.write_text(Path(f"reports/training/{name}.csv"), '"step"\n1\n')
        spent = {"seconds_work": 3.0, "peak_memory_mib": 300.0, "energy_wh_measured": None, "energy_wh_estimated": 0.5}
        files.write_json(Path(f"reports/runs/finetune@{name}.json"), spent)
    return tmp_path


def test_show_ranks_methods_with_costs_and_scores_the_probe(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lost otherwise: the advice would not follow from the figures, or nobody would learn how good a probe is."""
    config.load()
    files.write_json(which.PREDICTION, {"data": "own.csv", "score": "accuracy", "ranking": ["full", "lora", "ia3"]})
    assert [method.name for method in which.show(Path())] == ["full", "lora", "ia3"]
    shown = capsys.readouterr().out
    assert "Best: full, accuracy 0.960 (2 seeds, 95 % interval 0.936 to 0.975)." in " ".join(shown.split())
    last = " ".join(shown.rstrip().rpartition("\n\n")[2].split())
    assert last == (
        "Cannot tell full (0.960) from lora on 400 held-out records: take full, which is also the cheapest (50 % of "
        "the weights trained)."
    )
    assert "predicted this ranking of 3 methods with a rank correlation of +1.00" in " ".join(shown.split())
    page = (project / which.PAGE).read_text(encoding="utf-8")
    assert "0.9600" in page
    assert "0.5000 est." in page
    assert "<svg" in page


def test_show_ends_with_not_to_fine_tune_when_the_baseline_is_better(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: a method at 0.96 would be recommended where a linear model has 0.98."""
    for path in project.glob("reports/evaluation/*-s?/metrics.json"):
        files.write_json(path, files.read_json(path) | {"baseline_accuracy": 0.98, "majority_accuracy": 0.86})
    sentence = (
        "Don't fine-tune: the TF-IDF baseline is at 0.980, no method is better (the best, full, is at 0.960, on 400 "
        "held-out records)"
    )
    which.show(Path())
    shown = " ".join(capsys.readouterr().out.split())
    assert "│ TF-IDF │ 0.980 │ 0.96 to 0.99 │" in " ".join(shown.split())
    assert "│ majority │ 0.860 │ 0.82 to 0.89 │" in " ".join(shown.split())
    assert shown.endswith(f"{sentence}.")
    which.show(Path(), lambda _: "A note.")
    assert " ".join(capsys.readouterr().out.split()).endswith(f"{sentence}; a full run may still beat it.")
    page = (project / which.PAGE).read_text(encoding="utf-8")
    assert "0.9800" in page
    assert "fine-tune: the TF-IDF baseline is at 0.980" in page
    assert "A note." in page


@pytest.mark.parametrize("take", ["lora", "full", "TF-IDF", None])
def test_page_is_in_the_language_of_the_report_and_the_terminal_in_english(
    project: Path, take: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    raw["report"]["language"] = "tr"
    (project / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    means = {"TF-IDF": 0.99, "lora": 0.96, "full": 0.9}
    prediction = {"data": "own.csv", "score": "accuracy", "ranking": list(means), "means": means, "take": take}
    if take == "full":
        del prediction["means"]
        prediction["ranking"] = ["full", "lora", "ia3"]
    files.write_json(project / which.PREDICTION, prediction)
    which.show(Path(), lambda words: words("which.probe", command="tohum profile files"))
    assert "A probe has a small model and few steps" in " ".join(capsys.readouterr().out.split())
    page = (project / which.PAGE).read_text(encoding="utf-8")
    assert english(page) == []
    assert '<html lang="tr">' in page
    assert "0,9600" in page
    assert "0,5000 (kestirim)" in page
    assert "sıra korelasyonuyla" in page or "ölçülen 0,960" in page


@pytest.mark.parametrize(("take", "advised"), [
    ("lora", "it advised lora, and full is best here."), ("full", "it advised full, the best here."),
    ("TF-IDF", "it advised TF-IDF (0.990) and not to fine-tune."),
])  # fmt: skip
def test_show_scores_a_comparison_beside_a_released_model(
    project: Path, take: str, advised: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: a user would never learn how far few updates are from a full run."""
    means = {"TF-IDF": 0.99, "lora": 0.96, "full": 0.9}
    prediction = {"data": "own.csv", "score": "accuracy", "ranking": list(means), "means": means, "take": take}
    files.write_json(project / which.PREDICTION, prediction)
    which.show(Path())
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        f"The comparison on own.csv predicted full 0.900 (measured 0.960), lora 0.960 (measured 0.910); {advised}"
    ) in shown


@pytest.mark.parametrize("predicted", [{"score": "chrf"}, {}])
def test_show_scores_no_probe_of_other_records(
    project: Path, predicted: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: a ranking on instructions would be held against a run on messages."""
    files.write_json(which.PREDICTION, predicted | {"data": "own.json", "ranking": ["full", "lora", "ia3"]})
    which.show(project)
    assert "predicted this" not in capsys.readouterr().out


def test_show_refuses_a_project_without_seeds(project: Path) -> None:
    raw = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    raw["finetune"], raw["evaluations"] = {}, {"base": raw["evaluations"]["base"]}
    (project / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(UserError, match="no recipe is one of several seeds"):
        which.show(Path())


@pytest.fixture
def folder(project: Path) -> Path:
    """A probe's folder whose runs write down who they are and where; `bad` fails."""
    which.FOLDER.mkdir(parents=True)
    (which.FOLDER / "one_recipe.py").write_text(
        "import sys\nname = sys.argv[1]\nopen(name, 'w').write('ran')\n"
        "sys.exit('error: no memory' if name == 'bad' else 0)\n",
        encoding="utf-8",
    )
    return project / which.FOLDER


def one_recipe(name: str) -> list[str]:
    return ["one_recipe", name]


def test_probe_runs_every_recipe_in_its_folder(folder: Path) -> None:
    which.probe(["full-s1", "lora-s1", "ia3-s1"], one_recipe)
    assert [(folder / name).read_text() for name in ("full-s1", "lora-s1", "ia3-s1")] == ["ran"] * 3
    assert Path.cwd() == folder.parents[1]


def test_probe_ends_with_the_error_of_a_failed_recipe(folder: Path) -> None:
    """Lost otherwise: a probe would show a table of what is left, or a traceback of its pool."""
    with pytest.raises(UserError, match="stopped at bad: no memory"):
        which.probe(["bad", *[f"full-s{seed}" for seed in range(50)]], one_recipe)
    assert len(list(folder.glob("full-s*"))) < 50
    assert Path.cwd() == folder.parents[1]


def test_which_run_trains_and_measures_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(finetune, "main", lambda: done.append(("finetune", sys.argv[1:])))
    monkeypatch.setattr(evaluate, "main", lambda: done.append(("evaluate", sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", sys.argv)
    assert tohum("which", "--run", "lora-s1") == 0
    assert done == [("finetune", ["lora-s1"]), ("evaluate", ["lora-s1"])]


def test_cost_estimates_energy_when_runs_were_side_by_side() -> None:
    method = Method("full", "", "accuracy", (0.9,), 1.0, (), ("full-s1",))
    record = {"seconds_work": 1.0, "peak_memory_mib": 1.0, "energy_wh_measured": 8.0, "energy_wh_estimated": 1.0}
    assert cost(method, {"full-s1": record}) == Cost(1.0, 1.0, 8.0, True)
    assert cost(method, {"full-s1": record}, metered=False) == Cost(1.0, 1.0, 1.0, False)
