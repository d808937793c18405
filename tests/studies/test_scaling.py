"""From trials to a law to a proposal in params.yaml, on a small project."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from pipeline import config, files
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import CODE
from pipeline.studies import budget, fastest, scaling, trials
from pipeline.studies.budget import Proposal, summary
from pipeline.studies.scaling import Plan, Study, planned, rule_of
from pipeline.studies.scaling_law import Law
from pipeline.studies.trials import Result, Trial
from tests.commands import tohum
from tests.projects import small

PLAN = "widths: [0.33, 0.67, 1.0]\ntokens: [0.5, 1.0, 2.0]\nrates: [0.5, 2.0]\nbatches: [0.5, 2.0]\nseed: 1\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Samples, a recipe of a dozen updates, a plan; trials run in this process."""
    monkeypatch.chdir(tmp_path)
    small(tmp_path)
    raw = yaml.safe_load(config.PARAMS.read_text(encoding="utf-8"))
    raw["pretrain"]["schedule"] |= {"steps": 12, "warmup_steps": 2}
    config.PARAMS.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    files.write_text(tmp_path / scaling.PLAN, PLAN)

    def here(commands: Mapping[str, list[str]], lanes: int) -> None:
        for command in commands.values():
            monkeypatch.setattr("sys.argv", command)
            trials.work()

    monkeypatch.setattr(trials, "beside", here)
    return tmp_path


def test_scaling_study_gives_a_law_a_page_and_proposals(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tohum("scaling") == 0
    said = capsys.readouterr().out
    assert "fitted without the largest trial it predicts" in " ".join(said.split())
    page = (project / scaling.PAGE).read_text(encoding="utf-8")
    assert "<svg" in page
    assert page.count("</tr>") == 1 + 9
    assert len(list(trials.FOLDER.glob("*.json"))) == 9 + 6 + 2  # rates x 1 and batch x 1 are in the grid

    assert tohum("budget", "--flops", "1e10", "--apply") == 0
    said = capsys.readouterr().out
    assert "pretrain.model.n_heads: " in said
    assert "+++ b/params.yaml" in said
    applied = config.load()
    assert applied.pretrain.schedule.steps != 12
    assert (
        tohum("budget", "--flops", "1e10", "--apply") == 0
    )  # of the recipe that the law is of, not of its own proposal
    assert config.load() == applied

    monkeypatch.setattr(fastest, "measure", lambda params, seconds: (0.1, 0.01, 32, (0.01, 0.01)))
    assert tohum("budget", "--minutes", "0.001") == 0
    assert "operations a second at that size" in capsys.readouterr().out

    (trials.SAMPLES / "documents/other.json").write_text("{}")
    with pytest.raises(UserError, match="is of other documents, code, precision or recipe; run `tohum scaling` again"):
        tohum("budget", "--flops", "1e10")


def test_planned_trials_vary_one_setting_at_a_time(project: Path) -> None:
    params = config.load()
    plan = Plan.model_validate(yaml.safe_load(PLAN))
    grid, rates, batches = planned(params, plan)
    assert [len(part) for part in (grid, rates, batches)] == [9, 9, 3]

    def spent(one: Trial) -> int:
        recipe = trials.recipe_of(params, one)
        return recipe.part("ordering", "pretrain").batch_size * recipe.schedule.steps

    assert {spent(one) for one in rates} == {24}  # the middle of the tokens
    assert {spent(one) for one in batches} == {24}
    assert sorted({spent(one) for one in grid}) == [12, 24, 48]
    before = params.pretrain.optimizer.model_dump()["learning_rate"]
    factors = [one.changes.get("optimizer.learning_rate", before) / before for one in batches]
    assert factors == pytest.approx([1.0, 0.5**0.5, 2**0.5], rel=1e-4)


def test_timed_uses_the_speed_of_the_proposed_shape(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large network does more operations a second than a small one; its own speed must count."""
    timed: list[int] = []

    def measure(params: Params, seconds: float) -> tuple[float, float, int, tuple[float, float]]:
        timed.append(params.pretrain.model.n_heads)
        step_s = 0.001 * params.pretrain.model.n_heads
        return 0.1, step_s, 32, (step_s, step_s)

    monkeypatch.setattr(fastest, "measure", measure)
    law = Law(1.0, 40.0, 30.0, 0.45, 0.5)
    found, speed = budget.timed(config.load(), law, 300, 60.0)
    assert timed[-1] == found.heads
    assert found.flops == pytest.approx(60 * speed)


def test_summary_names_extrapolation_and_repeated_documents() -> None:
    found = Proposal(3, 1000, 9e6, 1e15, 1.3)
    lines = summary(found, 2e10, 1e13, 1_000_000)
    assert any("100 times the largest trial" in line for line in lines)
    assert any("1,000,000 tokens: 9.0 epochs; get more documents" in line for line in lines)
    assert len(summary(found._replace(tokens=1e5), None, 1e15, 1_000_000)) == 1


def test_budget_refuses_a_proposal_without_a_law(project: Path) -> None:
    with pytest.raises(UserError, match="`tohum scaling` makes it"):
        tohum("budget", "--flops", "1e10")


@pytest.mark.parametrize(
    ("options", "words"),
    [((), "give one of"), (("--minutes", "1", "--flops", "1"), "give one of"), (("--minutes", "0"), "more than 0")],
)
def test_budget_refuses_wrong_options(options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tohum("budget", *options) == 2
    assert words in capsys.readouterr().err


def test_rule_of_pairs_results_with_their_trials() -> None:
    """A result beside the wrong trial would put the wrong rate into params.yaml."""
    one = Result(1.0, 1.0, None, 100, 10, 1.0, 1.0)
    grid = [(Trial("a", 1, {}), one)]
    batches = [(Trial("b", 1, {"ordering.batch_size": size}), one._replace(loss_nats=loss)) for size, loss in
               ((4, 1.0), (2, 0.5), (8, 2.0))]  # fmt: skip
    rates = [(Trial("r", 1, {"optimizer.learning_rate": rate}), one._replace(loss_nats=loss)) for rate, loss in
             ((0.02, 1.0), (0.01, 0.5), (0.04, 2.0))]  # fmt: skip
    found = rule_of(config.load(CODE / "params.yaml"), Study(grid, rates, batches))
    assert found.rate(10) < 1
    assert found.batch < 1
    assert found.tokens == 100
