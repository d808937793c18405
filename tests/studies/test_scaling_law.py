"""The law and what follows from it: a wrong exponent spends a week of training on the wrong size."""

import itertools
import math
import re

import pytest

from pipeline import config
from pipeline.errors import UserError
from pipeline.paths import CODE
from pipeline.reporting import report
from pipeline.reporting.wording import load
from pipeline.studies import budget, scaling
from pipeline.studies.budget import Proposal, proposal, sized
from pipeline.studies.scaling_law import Law, ScalingRule, best, fit, rule
from pipeline.studies.trials import Result, Trial, recipe_of
from tests.prose import english

TRUE = Law(1.5, 40.0, 300.0, 0.45, 0.5)
PARAMS = config.load(CODE / "params.yaml")
RECIPE = PARAMS.pretrain


def found(law: Law, known: float | None = None) -> list[Result]:
    return [
        Result(law.loss(n, d), 1.0, known, int(d), int(n), 6 * n * d, 1.0)
        for n, d in itertools.product((8e4, 3e5, 7e5, 2.6e6), (2e5, 4e5, 8e5, 1.6e6))
    ]


@pytest.mark.parametrize("known", [None, 1.5])
def test_fit_recovers_a_known_law(known: float | None) -> None:
    law = fit(found(TRUE, known))
    for n, d in ((8e4, 1.6e6), (2.6e6, 2e5), (1e7, 1e7)):
        assert law.loss(n, d) == pytest.approx(TRUE.loss(n, d), abs=0.002)
    assert pytest.approx(1.5, abs=0.02) == law.E
    assert (law.alpha, law.beta) == pytest.approx((0.45, 0.5), abs=0.03)


def test_fit_resists_one_outlier() -> None:
    trials = found(TRUE, 1.5)
    trials[5] = trials[5]._replace(loss_nats=trials[5].loss_nats + 0.5)
    assert fit(trials).loss(1e7, 1e7) == pytest.approx(TRUE.loss(1e7, 1e7), abs=0.01)


def test_fit_refuses_too_few_sizes_or_tokens() -> None:
    with pytest.raises(UserError, match="2 sizes, 4 numbers of tokens; a law needs three"):
        fit([one for one in found(TRUE) if one.weights < 5e5])


def test_best_is_the_minimum_within_the_range_tried() -> None:
    assert best([(f, (math.log2(f) - 0.5) ** 2) for f in (0.5, 1.0, 2.0)]) == pytest.approx(2**0.5)
    assert best([(0.5, 3.0), (1.0, 2.0), (2.0, 1.2)]) == 2.0  # still falling: no further than that
    assert best([(0.5, 1.0), (1.0, 2.0), (2.0, 1.5)]) == 0.5  # a hill: the lowest there is
    assert best([(1.0, 2.0)]) == 1.0
    assert best([(0.5, 1.0), (1.0, 2.0), (2.0, math.inf)]) == 0.5  # one diverged
    with pytest.raises(UserError, match="every trial of a rate or a batch diverged"):
        best([(1.0, math.inf)])


def test_rule_gives_rates_by_a_power_of_size_and_batch_by_the_root_of_tokens() -> None:
    valley = {n: [(f, (math.log(f) - math.log((n / 1e6) ** -0.25)) ** 2) for f in (0.5, 1.0, 2.0)] for n in (1e5, 1e6)}
    made = rule(valley, [(0.5, 2.0), (1.0, 1.0), (2.0, 2.0)], 1e6)
    assert made.rate(1e6) == pytest.approx(1.0)
    assert made.rate(4e6) == pytest.approx(0.5**0.5)
    assert made.rate(4e6, batch=2.0) == pytest.approx(1.0)
    assert made.rate(1e15) == 0.5  # no further than the rates that were tried
    assert made.rate(1e6, batch=100.0) == 2.0
    assert made.batch_for(1e6) == pytest.approx(1.0)
    assert made.batch_for(4e6) == pytest.approx(2.0)


def test_summary_names_the_worst_error_and_the_edges() -> None:
    """A best rate that is also the highest one tried is none yet, and an average hides the trial that fits no law."""
    valley = [(0.5, 2.0), (1.0, 1.0), (2.0, 2.0)]
    inside = rule({1e5: valley, 1e6: valley}, valley, 1e6)
    trials = found(TRUE, 1.5)
    trials[5] = trials[5]._replace(loss_nats=trials[5].loss_nats + 0.5)
    said = " ".join(scaling.summary(fit(trials), inside, trials))
    assert "half of the trials are within 0.00" in said
    assert re.search(r"the furthest, 300,000 weights on 400,000 tokens, has an error of 0\.(49|50)", said)
    assert "edge" not in said
    falling = [(0.5, 3.0), (1.0, 2.0), (2.0, 1.0)]
    outside = rule({1e5: falling, 1e6: valley}, falling, 1e6)
    said = " ".join(scaling.summary(fit(trials), outside, trials))
    assert "best at the edge of the range tried" in said
    assert "rates of 100,000 weights (x 2), batch (x 2)" in said


@pytest.mark.parametrize("language", ["en", "tr"])
def test_page_is_in_the_language_of_the_report(language: str) -> None:
    words, falling = load(language), [(0.5, 3.0), (1.0, 2.0), (2.0, 1.0)]
    trials = found(TRUE, 1.5)
    law = fit(trials)
    sentences = scaling.summary(law, rule({1e5: falling}, falling, 1e6), trials, words)
    page = report.render_scaling([trial._asdict() for trial in trials], law.loss, sentences, words)
    assert f'<html lang="{language}">' in page
    assert (english(page) == []) == (language == "tr")
    assert ("1,500" in page, "1,500 +" in page) == (language == "tr",) * 2


def test_fit_leaves_out_diverged_trials() -> None:
    trials = found(TRUE, 1.5)
    wild = [*trials, trials[0]._replace(loss_nats=math.inf)]
    assert fit(wild) == fit(trials)


def test_shape_scales_width_depth_and_mlp_together() -> None:
    names = ("n_heads", "n_kv_heads", "n_layers", "d_model", "d_ff")
    own = {f"model.{name}": getattr(RECIPE.model, name) for name in names}
    assert budget.shape(RECIPE, RECIPE.model.n_heads) == own
    sizes = [sized(RECIPE, heads, 2048) for heads in (1, 2, 3, 5, 8)]
    assert sizes == sorted(sizes)
    wide = RECIPE.model_copy(update={"model": RECIPE.model.model_copy(update={"d_model": 48})})
    assert budget.shape(wide, 3)["model.d_model"] == 48  # heads together wider than the stream, as in Qwen3
    assert budget.shape(wide, 6)["model.d_model"] == 96
    for heads in (1, 2, 5, 8):
        recipe_of(PARAMS, Trial("any", 1, budget.shape(RECIPE, heads)))


@pytest.mark.parametrize("flops", [1e11, 1e12, 1e14])
def test_proposal_is_better_than_its_neighbours(flops: float) -> None:
    chosen = proposal(TRUE, RECIPE, 2048, lambda _: flops)
    for heads in (chosen.heads - 1, chosen.heads + 1):
        if heads:
            n, a_token = sized(RECIPE, heads, 2048)
            assert TRUE.loss(n, flops / a_token) >= chosen.loss
    assert chosen.tokens * sized(RECIPE, chosen.heads, 2048)[1] == pytest.approx(flops)
    assert proposal(TRUE, RECIPE, 2048, lambda _: 30 * flops).heads >= chosen.heads


def test_changes_spend_the_proposal() -> None:
    made = ScalingRule(((1e5, 1.0), (1e6, 0.5)), 2.0, 1e6, (0.25, 4.0), (0.5, 4.0))
    chosen = Proposal(5, *sized(RECIPE, 5, 2048)[:1], 4e6, 1e13, 1.2)
    changes = budget.changes(RECIPE, chosen, made)
    recipe = recipe_of(PARAMS, Trial("proposal", 1, changes))
    batch = recipe.part("ordering", "pretrain").batch_size * recipe.schedule.accumulate
    assert batch == 16  # 4 windows, twice as many at a million tokens, twice that at four million
    assert batch * recipe.model.context_length * recipe.schedule.steps == pytest.approx(4e6, rel=0.001)
    assert recipe.part("ordering", "pretrain").batch_size == 4  # memory stays what it was
    rate = made.rate(chosen.weights, 4.0)
    before = RECIPE.optimizer.model_dump()
    assert changes["optimizer.learning_rate"] == pytest.approx(before["learning_rate"] * rate, rel=0.01)
    assert changes["optimizer.matrix_learning_rate"] == pytest.approx(before["matrix_learning_rate"] * rate, rel=0.01)
    share = recipe.schedule.warmup_steps / recipe.schedule.steps
    assert share == pytest.approx(RECIPE.schedule.warmup_steps / RECIPE.schedule.steps, rel=0.05)
    small = budget.changes(RECIPE, chosen._replace(tokens=1e4), made)
    assert small["ordering.batch_size"] == 1  # fewer tokens than a batch of four would use well
    rate = made.rate(chosen.weights, 1 / 4)  # by the batch that is written, not by the one that was wanted
    assert small["optimizer.learning_rate"] == pytest.approx(before["learning_rate"] * rate, rel=0.01)
