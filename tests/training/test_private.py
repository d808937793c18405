"""Private training: with wrong clipping, noise, sampling or accounting, records leak more than epsilon allows."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pipeline import config
from pipeline.config import plugins
from pipeline.config.recipe import Privacy, Schedule
from pipeline.errors import UserError
from pipeline.losses.cross_entropy import CrossEntropy
from pipeline.model.gpt import GPT
from pipeline.tasks import classify
from pipeline.training import private
from pipeline.training.loop import Parts, _accumulate, fit
from pipeline.training.private import Private
from pipeline.weighting.uniform import Uniform
from tests.fakes import ByteTokenizer
from tests.learners import records
from tests.models import network
from tests.training.test_recipe import ROOT, params_of, project, train
from tests.training.test_run import COMPUTE, Log, finished, trainer
from tests.tuners.test_tuners import TUNERS, encode
from tests.variants import Variant

__all__ = ["project"]  # a fixture
CPU = torch.device("cpu")
POISSON = plugins.load("ordering", "poisson").Poisson


class Always:
    """An ordering that draws the same examples at every step."""

    def __init__(self, rows: list[int], batch_size: int) -> None:
        self.chosen, self.batch_size = np.array(rows, dtype=np.int64), batch_size

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        return self.chosen


def plan_of(noise: float, clip_norm: float, ordering: Any, dropout: float = 0.0) -> Any:
    """A trainer with private gradients; 40 windows, 24 steps."""
    plan = trainer(Log())
    for module in plan.model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = dropout  # type: ignore[assignment]
    schedule = plan.parts.schedule.model_copy(update={"accumulate": 1, "clip_norm": 0.0})
    parts = replace(plan.parts, ordering=ordering, schedule=schedule)
    privacy = Privacy(epsilon=8.0, delta=1e-3, clip_norm=clip_norm)
    used = {id(p) for p in plan.model.parameters()}
    plan.train = plan.experience.examples
    plan.parts = replace(parts, gradients=Private(privacy, noise, len(plan.train), parts, used))
    plan.experience = records(plan.model, parts, plan.train)
    return plan


def gradients(plan: Any, step: int = 0) -> torch.Tensor:
    """The gradients of one private update, as one vector."""
    plan.model.train()
    plan.parts.gradients(plan.model, plan.parts, plan.experience, step, CPU)
    return torch.cat([p.grad.flatten() for p in plan.model.parameters()])


def by_hand(plan: Any, row: int) -> torch.Tensor:
    """The gradient of one example."""
    batch = plan.parts.task.collate([plan.train[row]])
    loss = plan.parts.task.losses(plan.model.train(), batch).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(plan.model.parameters()))])


def test_private_clips_each_gradient_before_the_sum() -> None:
    """Lost otherwise: one record could pull as hard as it likes, and no noise would hide it."""
    plan = plan_of(0.0, 0.5, Always([3, 5, 8], 4))
    alone = [by_hand(plan, row) for row in (3, 5, 8)]
    assert any(float(g.norm()) > 0.5 for g in alone)
    expected = sum(g * min(1.0, 0.5 / (float(g.norm()) + 1e-6)) for g in alone) / 4
    torch.testing.assert_close(gradients(plan), expected, atol=1e-6, rtol=1e-5)


def test_private_gives_the_plain_update_without_noise_and_clipping() -> None:
    """Lost otherwise: a private recipe would learn something else than its plain twin."""
    rows = [1, 4, 9, 16]
    quiet, plain = plan_of(0.0, 1e9, Always(rows, 4)), plan_of(0.0, 1e9, Always(rows, 4))
    plain.parts = replace(plain.parts, gradients=None)
    one, other = (
        next(fit(quiet.model, quiet.parts, records(quiet.model, quiet.parts, quiet.train))),
        next(fit(plain.model, plain.parts, records(plain.model, plain.parts, plain.train))),
    )
    assert float(one.loss) == pytest.approx(float(other.loss), abs=1e-6)
    assert one.tokens == other.tokens
    for a, b in zip(quiet.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_private_sum_changes_by_at_most_the_clip_norm_when_one_example_is_removed() -> None:
    """The sensitivity that the noise is measured by; plain training breaks it."""
    several, fewer = plan_of(0.0, 0.3, Always([1, 2, 3], 4)), plan_of(0.0, 0.3, Always([1, 2], 4))
    moved = 4 * (gradients(several) - gradients(fewer)).norm()
    assert 0.2 < float(moved) <= 0.3 + 1e-5
    with_it, without = (by_plain(Always(rows, 3)) for rows in ([1, 2, 3], [1, 2]))
    assert float((3 * with_it - 3 * without).norm()) > 0.3


def test_fit_changes_nothing_when_a_batch_is_empty() -> None:
    """The plain twin of a private recipe draws its batches in the same way."""
    plan = plan_of(0.0, 1.0, Always([], 4))
    plan.parts = replace(plan.parts, gradients=None)
    before = [p.detach().clone() for p in plan.model.parameters()]
    step = next(fit(plan.model, plan.parts, records(plan.model, plan.parts, plan.train)))
    assert (float(step.loss), step.tokens) == (0.0, 0)
    assert all(map(torch.equal, before, plan.model.parameters()))


def by_plain(ordering: Always) -> torch.Tensor:
    plan = plan_of(0.0, 0.3, ordering)
    _accumulate(plan.model.train(), plan.parts, plan.experience, 0, CPU)
    return torch.cat([p.grad.flatten() for p in plan.model.parameters()])


def test_private_noise_has_the_deviation_of_the_multiplier_also_for_an_empty_batch() -> None:
    """4,896 draws: mean within 0.06, deviation within 0.05 of the normal's (four standard errors)."""
    plan = plan_of(1.7, 0.3, Always([], 4))
    first, again, later = gradients(plan, 0), gradients(plan, 0), gradients(plan, 1)
    noise = first * 4 / (1.7 * 0.3)
    assert len(noise) > 4500
    assert abs(float(noise.mean())) < 0.06
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)
    assert 0.6 < float((noise.abs() < 1).float().mean()) < 0.76
    assert torch.equal(first, again)
    assert abs(float(torch.corrcoef(torch.stack([first, later]))[0, 1])) < 0.06
    full = gradients(plan_of(1.7, 0.3, Always([1, 2], 4)))
    quiet = gradients(plan_of(0.0, 0.3, Always([1, 2], 4)))
    torch.testing.assert_close(full - quiet, first, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("die_at", [5, 13])
def test_private_training_ends_with_the_same_bits_when_killed_and_resumed(tmp_path: Path, die_at: int) -> None:
    """Noise, sampling and dropout are functions of (seed, step)."""
    whole, _ = finished(tmp_path / "whole", plan_of(1.0, 0.5, POISSON(4), 0.1))
    broken = plan_of(1.0, 0.5, POISSON(4), 0.1)
    broken.log.die_at = die_at
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path / "cut", broken)
    torch.manual_seed(99)
    weights, progress = finished(tmp_path / "cut", plan_of(1.0, 0.5, POISSON(4), 0.1))
    assert progress.step == 24
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


def classifier(variant: Variant, noise: float) -> tuple[GPT, Parts, list[Any], dict[str, torch.Tensor]]:
    """A model with a head for three labels under one tuner, private parts, six examples, the weights before."""
    context: Any = SimpleNamespace(tokenizer=ByteTokenizer(), context_length=16, labels=["a", "b", "c"], where="task")
    task = classify.build(plugins.settings_class("tasks", "classify")(max_tokens=10), context)
    model, tuner = network("llama", vocab_size=300, tie_embeddings=False), variant.build()
    task.prepare(model, torch.Generator().manual_seed(1))
    tuner.apply(model, torch.Generator().manual_seed(3), encode)
    adamw = {"learning_rate": 0.01, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8}
    parts = Parts(
        task=task,
        loss=CrossEntropy(task),
        ordering=POISSON(3),
        weighting=Uniform(),
        optimizer=plugins.load("optimizers", "adamw").build(
            plugins.settings_class("optimizers", "adamw")(**adamw), tuner.groups(model)
        ),
        schedule=Schedule(
            shape="constant",
            steps=4,
            warmup_steps=0,
            final_share=0.0,
            accumulate=1,
            batch_warmup_steps=0,
            clip_norm=0.0,
        ),
        compute=COMPUTE,
        seed=3,
    )
    rows = [task.example({"text": text, "label": label}) for text, label in zip("abcdef", "abcabc", strict=True)]
    privacy = Privacy(epsilon=1.0, delta=1e-3, clip_norm=1.0)
    parts = replace(
        parts, gradients=Private(privacy, noise, len(rows), parts, private._reached_weights(model, parts, rows))
    )
    return model, parts, rows, {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("variant", TUNERS, ids=str)
def test_every_tuner_can_be_trained_privately(variant: Variant) -> None:
    """Frozen weights and weights without loss stay; all others change at every update."""
    model, parts, rows, before = classifier(variant, 0.5)
    moved: list[set[str]] = []
    for step in fit(model, parts, records(model, parts, rows)):
        assert np.isfinite(float(step.loss))
        moved.append({k for k, p in model.named_parameters() if not torch.equal(p, before[k])})
    free = {k for k, p in model.named_parameters() if p.requires_grad and k != "head.weight"}
    assert moved[-1] == free
    if variant.settings.get("unfrozen_after"):  # weights that are still frozen get no noise either
        assert moved[0] == {"score.weight", "final_norm.weight"}
    else:
        assert moved[0] == free


def test_private_noise_changes_an_unused_head_when_every_weight_counts_as_reached() -> None:
    """Broken on purpose: then noise reaches the language head of a classifier."""
    model, parts, rows, before = classifier(next(v for v in TUNERS if v.name == "full"), 0.5)
    every = {id(p) for p in model.parameters()}
    parts.gradients._optimizer.reached = every  # type: ignore[union-attr]
    next(fit(model, parts, records(model, parts, rows)))
    assert not torch.equal(model.head.weight, before["head.weight"])  # type: ignore[union-attr]


def recipe_of(**changes: Any) -> dict[str, Any]:
    """The raw params of a project whose spam-lora is private; `changes` are dotted paths below the recipe."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    recipe = raw["finetune"]["spam-lora"]
    recipe["privacy"] = {"epsilon": 4.0, "delta": 1e-3, "clip_norm": 1.0}
    recipe["ordering"] = {"name": "poisson", "batch_size": 4}
    recipe["schedule"] |= {"clip_norm": 0.0, "steps": 4, "warmup_steps": 1}
    recipe["validation"] |= {"every": 2}
    recipe["task"]["max_tokens"] = 40
    raw["runtime"]["progress"] = False
    for path, value in changes.items():
        place, *steps = recipe, *path.split("__")
        for step in steps[:-1]:
            place = place[step]
        place[steps[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ordering": {"name": "shuffled", "batch_size": 4}}, "privacy needs ordering.name poisson, not shuffled"),
        ({"schedule__accumulate": 2}, "privacy needs schedule.accumulate 1, not 2"),
        ({"schedule__clip_norm": 1.0}, "privacy needs schedule.clip_norm 0.0, not 1.0"),
        ({"few": 8}, "privacy needs few null, not 8"),
        ({"privacy__epsilon": 0.0}, "privacy.epsilon"),
        ({"privacy__delta": 1.0}, "privacy.delta"),
        ({"from": "spam-full"}, "is or comes from 'spam-full', trained on the same labelled"),
    ],
)
def test_check_refuses_params_that_break_the_privacy_guarantee(changes: dict[str, Any], words: str) -> None:
    """Lost otherwise: the report would name an epsilon that the run did not keep."""
    config.check(recipe_of())
    with pytest.raises(UserError, match=words):
        config.check(recipe_of(**changes))


def test_check_refuses_a_start_model_that_was_trained_on_the_private_records() -> None:
    raw = recipe_of(data="documents", task={"name": "next_token", "mask_documents": False, "logits_at_once": None})
    with pytest.raises(UserError, match="is or comes from 'base', trained on the same documents"):
        config.check(raw)
    raw["pretrain"]["schedule"]["steps"] = 0
    config.check(raw)


@pytest.mark.usefixtures("project")
def test_train_reports_the_epsilon_spent() -> None:
    """From params to reports/training: the budget is kept, and early stopping spends less."""
    params = config.check(recipe_of())
    train(params)
    summary = json.loads(Path("reports/training/spam-lora.json").read_text(encoding="utf-8"))
    assert 3.98 < summary["epsilon"] <= 4.0
    assert summary["delta"] == 1e-3
    assert summary["noise_multiplier"] > 0
    assert summary["sample_rate"] == pytest.approx(4 / 12)
    privacy, parts = Privacy(epsilon=4.0, delta=1e-3, clip_norm=1.0), plan_of(1.0, 1.0, POISSON(4)).parts
    account = Private(privacy, summary["noise_multiplier"], 12, parts, set())
    assert account.spent(4)["epsilon"] == summary["epsilon"]
    assert 0 == account.spent(0)["epsilon"] < account.spent(2)["epsilon"] < account.spent(4)["epsilon"]
    train(params_of({"name": "classify", "max_tokens": 40}, {"name": "full"}))
    assert "epsilon" not in json.loads(Path("reports/training/spam-lora.json").read_text(encoding="utf-8"))


def test_private_account_agrees_with_a_published_one() -> None:
    """Abadi et al. 2016, section 5.1: q = 0.01, sigma = 4, delta = 1e-5, 10,000 steps cost epsilon 1.26 (their figure);
    the tighter conversion of today's accountants may say less, never more."""
    parts = plan_of(1.0, 1.0, POISSON(4)).parts
    account = Private(Privacy(epsilon=1.0, delta=1e-5, clip_norm=1.0), 4.0, 400, parts, set())
    assert 0.9 < account.spent(10_000)["epsilon"] <= 1.27


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ordering__batch_size": 64}, "ordering.batch_size is 64, the training split has 12; lower it"),
        ({"privacy__delta": 0.1}, "delta is 0.1; it must be below 1 / 12"),
        ({"privacy__epsilon": 1e-6}, "epsilon is 1e-06: no noise keeps 4 steps within it"),
    ],
)
def test_train_refuses_privacy_settings_that_do_not_fit_the_data(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        train(config.check(recipe_of(**changes)))


@pytest.mark.usefixtures("project")
def test_train_refuses_a_weighting_that_depends_on_other_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Uniform, "by_example", False)
    with pytest.raises(UserError, match=r"weighting.name is uniform; with privacy a weight may depend on its own"):
        train(config.check(recipe_of()))


def test_stages_do_not_import_opacus_without_privacy() -> None:
    """Three seconds in every training stage, and a dependency of a bare GPU box."""
    code = "import sys, stages.finetune, stages.pretrain; print('opacus' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
