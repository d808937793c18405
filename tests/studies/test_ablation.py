"""The table that defaults are chosen by: a variation that is better must be called so, on the same tokens alone."""

import math
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.studies import ablation
from pipeline.studies import trials as studies
from pipeline.studies.ablation import BETTER, DEFAULT, compared, fitting, markdown, planned, table
from pipeline.studies.trials import Result, Trial, recipe_of
from tests.commands import tohum


def result(loss: float, tokens: int = 1000) -> Result:
    return Result(loss, 1.0, None, tokens, 50, 1e6, 2.0)


def test_committed_variations_fit_the_committed_params_and_their_tokens() -> None:
    """Found in a second here, otherwise after an hour of training."""
    params = config.load(ROOT / "params.yaml")
    trials = planned(ROOT / ablation.VARIATIONS, 2)
    assert [trial.seed for trial in trials] == [1] * (len(trials) // 2) + [2] * (len(trials) // 2)
    assert trials[0] == Trial(DEFAULT, 1, {})
    assert fitting(params, trials) == (trials, [])
    steps = recipe_of(params, trials[0]).schedule.steps
    assert studies.tokens_of(params.pretrain) == steps * 4 * params.pretrain.model.context_length


def test_compared_judges_variations_over_the_same_seeds() -> None:
    found = {
        DEFAULT: [result(1.0), result(2.0), result(3.0)],
        "worse": [result(1.2), result(2.1), result(3.3)],
        "better": [result(0.8), result(1.82), result(2.78)],
        "wild": [result(1.0), result(math.inf), result(1.0)],
        "alike": [result(1.1), result(1.9), result(3.01)],
    }
    rows = compared(found)
    assert [row.name for row in rows] == ["better", DEFAULT, "alike", "worse", "wild"]
    assert {row.name: row.verdict for row in rows} == {
        "better": BETTER, DEFAULT: "", "alike": "no significant difference", "worse": "no significant difference",
        "wild": "diverged",
    }  # fmt: skip
    worse = rows[-2]
    assert worse.gain == pytest.approx(0.2)
    assert worse.error == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert worse.deviation == pytest.approx(1.0536, abs=1e-4)
    assert table(rows).row_count == 5
    assert markdown(rows).count("\n") == 7
    assert "+0.2000 ± 0.2484" in markdown(rows)
    clear = compared({DEFAULT: found[DEFAULT], "clear": [result(1.2), result(2.2), result(3.21)]})
    assert clear[-1].verdict == "default significantly better"
    with pytest.raises(UserError, match="as it is diverges"):
        compared({DEFAULT: found["wild"]})


def test_compared_gives_no_verdict_for_one_seed() -> None:
    rows = compared({DEFAULT: [result(1.0)], "other": [result(0.5)]})
    assert rows[0].verdict == "one seed"
    assert "nan" not in markdown(rows)


def test_fitting_refuses_a_variation_with_other_tokens() -> None:
    """More text is better whatever was changed."""
    params = config.load(ROOT / "params.yaml")
    longer = Trial("longer", 1, {"schedule.steps": {"times": 1.02}})
    with pytest.raises(UserError, match=r"'longer' trains on 689,152 tokens, params\.yaml on 675,840"):
        fitting(params, [longer])


def test_fitting_leaves_out_a_variation_that_does_not_fit() -> None:
    """On another family's params the others can still be compared."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["pretrain"]["model"]["family"] = "gpt2"
    trials = planned(ROOT / ablation.VARIATIONS, 2)
    there, left_out = fitting(config.check(raw), trials)
    assert len(left_out) == 1
    assert "attention: one key-value head for three: pretrain.model" in left_out[0]
    assert len(there) == len(trials) - 2


def test_planned_refuses_a_file_without_variations(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("- cosine\n")
    with pytest.raises(UserError, match="expected names, each with the settings"):
        planned(tmp_path / "odd.yaml", 1)
    with pytest.raises(UserError, match="no such file; it names the variations"):
        planned(tmp_path / "none.yaml", 1)
    with pytest.raises(UserError, match="has no cosinus; one of: norms"):
        planned(ROOT / ablation.VARIATIONS, 1, ["cosinus"])


def test_ablation_prints_the_table_and_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/ablation.yaml").write_text("tied: {model.tie_embeddings: true}\n")
    for folder in ("data/samples/documents", "data/tokens/tokenizer"):
        (tmp_path / folder).mkdir(parents=True)
    losses = {(DEFAULT, 1): 1.0, (DEFAULT, 2): 1.1, ("tied", 1): 0.8, ("tied", 2): 0.85}
    monkeypatch.setattr(studies, "run", lambda params, trials: [result(losses[one.name, one.seed]) for one in trials])
    assert tohum("ablation", "--seeds", "2") == 0
    said = capsys.readouterr().out
    assert "no variation is better than params.yaml (95 % intervals of 1 differences" in said  # two seeds prove little
    assert "| tied | 0.8250 (0.0354) | -0.2250 ± 0.3177 |" in (tmp_path / ablation.PAGE).read_text(encoding="utf-8")
