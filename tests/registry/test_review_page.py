"""`tohum review MODEL --page`: the candidate's page beside its champion, of the checkout that registered it."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline import files, outcomes
from pipeline.cli import review as verb
from pipeline.errors import UserError
from pipeline.outcomes import Outcomes
from pipeline.registry import Registry, review_page
from pipeline.registry.store import VERSION
from tests.registries import make_model, params, register


def trained(name: str, right: int) -> None:
    """Makes a model whose evaluation is right on so many of 40 records, with the files of its training."""
    make_model(name, seed=right)
    files.write_json(Path(f"reports/evaluation/{name}/metrics.json"), {"accuracy": right / 40, "examples": 40.0})
    rows = [{"id": str(i), "text": "x", "language": "tr"} for i in range(40)]
    values = [float(i < right) for i in range(40)]
    table = outcomes.table({"classification": [outcomes.plain(Outcomes("accuracy", rows, values))]})
    files.write_table(Path(f"reports/evaluation/{name}/outcomes.parquet"), table)
    figures = {"parameters": 10, "trainable_parameters": 10, "trainable_share": 1.0, "steps": 2, "best_step": 2}
    files.write_json(Path(f"reports/training/{name}.json"), figures)
    curve = '"step","train_loss_nats","validation_loss_nats"\n1,3.0,3.1\n'
    files.write_text(Path(f"reports/training/{name}.csv"), curve)
    stage = "pretrain" if name == "base" else f"finetune@{name}"
    path = Path(f"reports/runs/{stage}.json")
    files.write_json(path, files.read_json(path) | {"stage": stage, "status": "FINISHED", "seconds_work": 11.0})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("review"))
        trained("base", 20)
        trained("spam-full", 30)
        yield Registry(params(f"sqlite:///{Path.cwd()}/mlflow.db"))


def text(page: Path) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8")).split())


def test_write_shows_the_candidate_and_its_command(project: Registry) -> None:
    candidate, _ = register(project, "spam-full")
    page = review_page.write(project, "spam-full")
    assert page == Path("reports/review/spam-full.html")
    said = text(page)
    assert "No champion is in service yet" in said
    assert f"tohum promote spam-full {candidate.version} --sha256 {candidate.tags[VERSION]} --reason TEXT" in said
    assert "Energy of these stages: 0.020 Wh (estimated)." in said


def test_write_says_why_a_champion_was_not_evaluated(project: Registry) -> None:
    """The champion is another version; the project has no samples on which it could be evaluated."""
    candidate, _ = register(project, "spam-full")
    project.promote("spam-full", candidate.version, candidate.tags[VERSION], "first")
    trained("spam-full", 35)
    register(project, "spam-full")
    said = text(review_page.write(project, "spam-full"))
    assert "0.875 accuracy" in said
    assert "A person decides" in said
    assert "open champion not evaluated on these records:" in said
    assert "No champion is in service yet" not in said


def test_write_refuses_a_checkout_with_another_model(project: Registry) -> None:
    """Lost otherwise: samples of another model would stand beside the candidate's figures."""
    trained("spam-full", 36)
    with pytest.raises(UserError, match=r"models/spam-full: has sha256 [0-9a-f]{64}, version \d+ was registered from"):
        review_page.write(project, "spam-full")


def test_review_writes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened:
        def __enter__(self) -> str:
            return "registry"

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("pipeline.cli._registry.opened", Opened)
    monkeypatch.setattr(review_page, "write", lambda registry, model: Path(f"reports/review/{registry}-{model}.html"))
    done = CliRunner().invoke(verb.command, ["spam-full", "--page"])
    assert (done.exit_code, done.output) == (0, "reports/review/registry-spam-full.html\n")


def test_review_shows_both_models_on_real_requests_when_the_journal_has_some(project: Registry) -> None:
    """The candidate is another random model than the champion; the labels are the champion's own answers."""
    from pipeline.data.journal import Journal
    from pipeline.inference.predictor import Predictor

    champion = project.download(f"models:/{project.name('spam-full')}@champion")
    trained("spam-full", 37)
    register(project, "spam-full")
    texts = [f"free prize {i} Merhaba dünya" for i in range(25)]
    journal = Journal()
    for i, answer in enumerate(Predictor(champion).answer(texts)):
        entry = {"kind": "request", "id": f"req-{i}", "model": "spam-full", "model_sha256": "ab", "task": "classify"}
        journal.append(entry | {"user": f"u{i}", "consent": "store", "text": texts[i], "answers": []})
        journal.append({"kind": "label", "request": f"req-{i}", "label": answer["label"], "by": "file"})
    said = text(review_page.write(project, "spam-full"))
    assert "On real requests Candidate and champion were replayed over the newest 25 consented requests" in said
    assert re.search(r"accuracy by late labels [\d.]+ 1\.0000 [-+]", said)
    assert "on the newest 25 consented requests" in project.review("spam-full")
