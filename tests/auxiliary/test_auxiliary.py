"""What is asked besides the objective: a wrong term pulls the model somewhere nobody wanted, and the loss falls."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pipeline.auxiliary.adversarial import divergence, moved
from pipeline.auxiliary.attention import mass, spellings, targets
from pipeline.auxiliary.distill import unlike
from pipeline.config import plugins
from pipeline.contracts import Learner
from pipeline.errors import UserError
from pipeline.model.depth import cut
from pipeline.model.gpt import Shown
from tests.learners import classifier, small, talker
from tests.models import network

GUIDED = {"weight": 1.0, "heads": {1: [0, 1]}, "towards": "words", "words": ["gel"]}
SETTINGS: dict[str, dict[str, Any]] = {
    "adversarial": {"weight": 1.0, "radius": 0.1},
    "attention": GUIDED,
    "distill": {"temperature": 2.0, "soft_share": 0.5, "hidden": 0.5},
    "none": {},
}


def teacher(labels: int = 2) -> Any:
    """A wider and deeper model of the same vocabulary."""
    return small(labels, n_layers=3, d_model=32)


def losses_of(name: str, learner: Learner, **changes: Any) -> Any:
    settings = plugins.settings_class("auxiliary", name)(**SETTINGS[name] | changes)
    return plugins.load("auxiliary", name).build(settings, learner)


def test_every_auxiliary_loss_is_tested_here() -> None:
    assert sorted(SETTINGS) == plugins.choices("auxiliary")


@pytest.mark.parametrize("make", [classifier, talker])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_term_goes_with_every_objective_and_downhill(name: str, make: Any) -> None:
    """Lost otherwise: a combination that params allow would fail, or learn nothing."""
    learner = make(reference=lambda: teacher(2 if make is classifier else 0))
    losses = losses_of(name, learner)
    batch = learner.batch(range(2))
    optimizer = torch.optim.Adam(learner.moving(), lr=3e-3)
    torch.manual_seed(1)
    before = losses(learner.model, batch).detach()
    assert before.shape == (2,)
    for _ in range(20):
        losses(learner.model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses(learner.model, batch).detach().mean() < before.mean()


def test_a_student_with_all_weight_on_the_teacher_becomes_the_teacher() -> None:
    """Lost otherwise: distillation would be training on the labels under another name."""
    learner = talker(cut(teacher(0), 1), reference=lambda: teacher(0))
    losses = losses_of("distill", learner, soft_share=1.0, hidden=0.0, temperature=1.0)
    batch = learner.batch(range(2))
    with torch.no_grad():
        said = learner.objective.predictions(teacher(0), batch).scores_NC.softmax(-1)
    optimizer = torch.optim.Adam(learner.moving(), lr=1e-2)
    for _ in range(150):
        losses(learner.model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        learned = learner.objective.predictions(learner.model, batch).scores_NC.softmax(-1)
    assert float((learned - said).abs().max()) < 0.01
    assert losses(learner.model, batch).detach().max() < 1e-3


def test_distillation_is_the_papers_sum() -> None:
    learner = classifier(reference=teacher)
    batch = learner.batch([0, 1, 2])
    student = learner.model.classify(batch["inputs"], batch["mask"])
    wanted = teacher().classify(batch["inputs"], batch["mask"])
    hard = F.cross_entropy(student, batch["targets"], reduction="none")
    p, q = (wanted / 3).softmax(-1), (student / 3).log_softmax(-1)
    soft = (p * (p.log() - q)).sum(-1) * 9
    found = losses_of("distill", learner, temperature=3.0, soft_share=0.7, hidden=0.0)(learner.model, batch)
    torch.testing.assert_close(found, 0.3 * hard + 0.7 * soft)


def test_likeness_knows_no_width_and_no_rotation() -> None:
    """Teacher and student of different widths can be compared, because only likeness between texts is."""
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    turn = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(2)))[0]
    assert float(unlike(x, x @ turn.T).max()) < 1e-10
    assert float(unlike(x, x.flip(0)).min()) > 1e-3


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        (classifier(), "pretraining has no `reference`"),
        (classifier(reference=lambda: teacher(3)), "has 3 classes, the student 2"),
        (classifier(reference=lambda: teacher(0)), "has no classes, the student 2"),
        (talker(reference=network), "knows 30 tokens"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(learner: Learner, words: str) -> None:
    with pytest.raises(UserError, match=words):
        losses_of("distill", learner)


def test_the_worst_change_hurts_more_than_any_other_of_its_size() -> None:
    """Lost otherwise: smoothing against noise, which costs as much and teaches little."""
    learner = classifier()
    smoothed = losses_of("adversarial", learner).__self__
    batch = learner.batch(range(6))
    clean = learner.objective.predictions(learner.model, batch).scores_NC.detach()
    torch.manual_seed(0)
    worst = smoothed._worst(learner.model, batch, clean)
    size = 0.1 * learner.model.embed.weight.detach().square().mean().sqrt()
    assert float(worst.abs().max()) <= float(size) * 1.0001

    def hurt(change: torch.Tensor) -> float:
        with torch.no_grad(), moved(learner.model, change):
            said = learner.objective.predictions(learner.model, batch).scores_NC
        return float(divergence(clean, said).mean())

    random = [hurt(torch.randn(worst.shape).sign() * size) for _ in range(20)]
    assert hurt(worst) > 2 * max(random)
    assert hurt(torch.zeros_like(worst)) == pytest.approx(0, abs=1e-9)


def test_smoothing_makes_the_model_smoother() -> None:
    """With a radius of 0.1 no model of this size is moved by more than float32 rounds; a radius of 1 moves it."""
    found = {}
    for name in ("none", "adversarial"):
        learner = classifier()
        losses = losses_of(name, learner, **({"radius": 1.0} if name == "adversarial" else {}))
        batch = learner.batch(range(6))
        optimizer = torch.optim.Adam(learner.moving(), lr=3e-3)
        torch.manual_seed(1)
        for _ in range(40):
            losses(learner.model, batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        smoothed = losses_of("adversarial", learner, radius=1.0).__self__
        with torch.enable_grad():
            clean = learner.objective.predictions(learner.model, batch).scores_NC.detach()
            worst = smoothed._worst(learner.model, batch, clean)
        with torch.no_grad(), moved(learner.model, worst):
            said = learner.objective.predictions(learner.model, batch).scores_NC
        found[name] = float(divergence(clean, said).mean())
    assert found["adversarial"] < 0.01 * found["none"]


def test_guided_heads_come_to_look_at_the_words() -> None:
    """Lost otherwise: guidance that moves no head, or moves heads that nobody named."""
    learner = classifier()
    batch = learner.batch([1, 3])  # "akşama gel" and "gel"
    losses = losses_of("attention", learner, heads={1: [0]})

    def masses() -> list[float]:
        with torch.no_grad(), learner.model.shown(Shown(attentions=[1])) as seen:
            learner.objective.losses(learner.model, batch)
        wanted = targets(batch["inputs"], "words", losses.__self__.spellings)
        return [float(seen.attentions[1][0, head, 10] @ wanted[0, 10].float()) for head in (0, 1)]

    before = masses()
    optimizer = torch.optim.Adam(learner.moving(), lr=1e-2)
    for _ in range(60):
        losses(learner.model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = masses()
    assert after[0] > 0.9 > before[0]
    assert after[1] < 0.9


def test_a_word_is_found_behind_itself_and_on_no_padding() -> None:
    learner = classifier()
    batch = learner.batch([1, 3])
    wanted = targets(batch["inputs"], "words", spellings(learner.tokenizer.encode, ["gel"]))
    text = "akşama gel".encode()
    spans = [i for i in range(len(text)) if bool(wanted[0, -1, i])]
    assert bytes(text[i] for i in spans) == b" gel"
    assert not bool(wanted[0, : text.index(b" gel") + 1].any())  # the future is not there to look at
    with learner.model.shown(Shown(attentions=[1])) as seen:
        learner.objective.losses(learner.model, batch)
    _, counts = mass(wanted, learner.real(batch["inputs"]), seen, {1: [0, 1]})
    assert int(counts[1].sum()) == 3  # "gel" and the end: three tokens behind its first one


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": {2: [0]}}, "names block 2"),
        ({"heads": {0: [2]}}, "heads of|heads 0 to 1"),
        ({"words": []}, "words go with"),
        ({"towards": "first"}, "words go with"),
    ],
)
def test_guidance_that_cannot_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        losses_of("attention", classifier(), **changes)


@pytest.mark.parametrize("towards", ["previous", "first"])
def test_patterns_point_where_they_say(towards: str) -> None:
    wanted = targets(torch.zeros(1, 4, dtype=torch.long), towards, [])[0]
    column = {"previous": [None, 0, 1, 2], "first": [None, 0, 0, 0]}[towards]
    assert [row.nonzero().flatten().tolist() for row in wanted] == [[] if c is None else [c] for c in column]


def test_a_cut_model_keeps_first_and_last() -> None:
    model = small(0, n_layers=5)
    first, middle, last = model.blocks[0], model.blocks[2], model.blocks[4]
    shallow = cut(model, 3)
    assert list(shallow.blocks) == [first, middle, last]
    assert [block.attention.layer for block in shallow.blocks] == [0, 1, 2]  # type: ignore[union-attr]
    assert shallow(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, shallow.config.vocab_size)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="depth is 4, the model it starts from has 3 blocks"):
        cut(shallow, 4)
