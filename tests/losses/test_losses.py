"""Auxiliary losses: a wrong term trains the model towards another goal while the loss falls."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pipeline.config import plugins
from pipeline.contracts import Learner
from pipeline.errors import UserError
from pipeline.losses.adversarial import perturbed, symmetric_kl
from pipeline.losses.attention import attention_mass, spellings, target_mask
from pipeline.losses.distill import similarity_loss
from pipeline.model.capture import Capture
from pipeline.model.layers import keep_layers
from pipeline.tasks import TaskContext
from tests.learners import COMPUTE, TOKENIZER, batch_of, chat_learner, classifier, judged_learner, small
from tests.models import network
from tests.variants import Variant, build, variants


def teacher(labels: int = 2) -> Any:
    """A wider and deeper model of the same vocabulary."""
    return small(labels, n_layers=3, d_model=32)


def losses_of(name: str, learner: Learner, **changes: Any) -> Any:
    return build("losses", name, learner, **changes).losses


def learners_of(variant: Variant) -> list[str]:
    """The tasks that a loss is tried with; losses of rollouts have tests of their own."""
    settings = plugins.settings_class("losses", variant.name)
    if getattr(settings, "source", "records") == "rollouts":
        return []
    if "pairs" in settings.takes:
        return ["reward" if settings.head == "scalar" else "preference"]
    return ["thumbs"] if "thumbs" in settings.takes else ["classify", "instruct"]


MAKES: dict[str, Any] = {"classify": classifier, "instruct": chat_learner}
CASES = [(variant, task) for variant in variants("losses") for task in learners_of(variant)]


@pytest.mark.parametrize(("variant", "task"), CASES, ids=str)
def test_every_loss_falls_with_every_kind_of_task(variant: Variant, task: str) -> None:
    """Lost otherwise: a combination that params allow would fail, or learn nothing."""
    if task in MAKES:
        learner = MAKES[task](reference=lambda: teacher(2 if task == "classify" else 0))
    else:
        learner = judged_learner(task)
    loss = variant.build(learner)
    losses, batch = loss.losses, batch_of(loss, learner, [0, 1])
    optimizer = torch.optim.Adam(learner.trainable_parameters(), lr=3e-3)
    torch.manual_seed(1)
    before = losses(learner.model, batch).detach()
    assert before.shape == (2,)
    for _ in range(20):
        losses(learner.model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses(learner.model, batch).detach().mean() < before.mean()


def test_distill_trains_the_student_to_the_teachers_outputs_when_all_weight_is_on_the_soft_loss() -> None:
    """Lost otherwise: distillation would be training on the labels under another name."""
    learner = chat_learner(keep_layers(teacher(0), 1), reference=lambda: teacher(0))
    losses = losses_of("distill", learner, soft_share=1.0, hidden=0.0, temperature=1.0)
    batch = learner.batch(range(2))
    with torch.no_grad():
        said = learner.task.predictions(teacher(0), batch).scores_NC.softmax(-1)
    optimizer = torch.optim.Adam(learner.trainable_parameters(), lr=1e-2)
    for _ in range(150):
        losses(learner.model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        learned = learner.task.predictions(learner.model, batch).scores_NC.softmax(-1)
    assert float((learned - said).abs().max()) < 0.01
    assert losses(learner.model, batch).detach().max() < 1e-3


def test_distill_is_the_papers_sum_of_hard_and_soft_loss() -> None:
    learner = classifier(reference=teacher)
    batch = learner.batch([0, 1, 2])
    mask = learner.token_mask(batch["inputs"])
    student = learner.model.classify(batch["inputs"], mask)
    wanted = teacher().classify(batch["inputs"], mask)
    hard = F.cross_entropy(student, batch["targets"], reduction="none")
    p, q = (wanted / 3).softmax(-1), (student / 3).log_softmax(-1)
    soft = (p * (p.log() - q)).sum(-1) * 9
    found = losses_of("distill", learner, temperature=3.0, soft_share=0.7, hidden=0.0)(learner.model, batch)
    torch.testing.assert_close(found, 0.3 * hard + 0.7 * soft)


def test_similarity_loss_is_zero_under_rotation_to_another_width() -> None:
    """Teacher and student of different widths can be compared, because only similarities between texts are."""
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    turn = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(2)))[0]
    assert float(similarity_loss(x, x @ turn.T).max()) < 1e-10
    assert float(similarity_loss(x, x.flip(0)).min()) > 1e-3


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        (classifier(), "pretraining has no `reference`"),
        (classifier(reference=lambda: teacher(3)), "has 3 classes, the student 2"),
        (classifier(reference=lambda: teacher(0)), "has no classes, the student 2"),
        (chat_learner(reference=network), "knows 30 tokens"),
    ],
)
def test_distill_refuses_a_teacher_without_the_students_classes_or_vocabulary(learner: Learner, words: str) -> None:
    with pytest.raises(UserError, match=words):
        losses_of("distill", learner)


def test_adversarial_perturbation_changes_outputs_more_than_random_ones_of_its_size() -> None:
    """Lost otherwise: regularisation against random noise, at the same cost and with little effect."""
    learner = classifier()
    adversarial = losses_of("adversarial", learner).__self__
    batch = learner.batch(range(6))
    clean = learner.task.predictions(learner.model, batch).scores_NC.detach()
    torch.manual_seed(0)
    worst = adversarial._perturbation(learner.model, batch, clean)
    size = 0.1 * learner.model.embed.weight.detach().square().mean().sqrt()
    assert float(worst.abs().max()) <= float(size) * 1.0001

    def divergence_under(change: torch.Tensor) -> float:
        with torch.no_grad(), perturbed(learner.model, change):
            said = learner.task.predictions(learner.model, batch).scores_NC
        return float(symmetric_kl(clean, said).mean())

    random = [divergence_under(torch.randn(worst.shape).sign() * size) for _ in range(20)]
    assert divergence_under(worst) > 2 * max(random)
    assert divergence_under(torch.zeros_like(worst)) == pytest.approx(0, abs=1e-9)


def test_adversarial_lowers_the_divergence_under_perturbation() -> None:
    """A radius of 0.1 changes outputs of a model of this size by less than float32 rounding, hence 1."""
    found = {}
    for name in ("cross_entropy", "adversarial"):
        learner = classifier()
        losses = losses_of(name, learner, **({"radius": 1.0} if name == "adversarial" else {}))
        batch = learner.batch(range(6))
        optimizer = torch.optim.Adam(learner.trainable_parameters(), lr=3e-3)
        torch.manual_seed(1)
        for _ in range(40):
            losses(learner.model, batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        adversarial = losses_of("adversarial", learner, radius=1.0).__self__
        with torch.enable_grad():
            clean = learner.task.predictions(learner.model, batch).scores_NC.detach()
            worst = adversarial._perturbation(learner.model, batch, clean)
        with torch.no_grad(), perturbed(learner.model, worst):
            said = learner.task.predictions(learner.model, batch).scores_NC
        found[name] = float(symmetric_kl(clean, said).mean())
    assert found["adversarial"] < 0.01 * found["cross_entropy"]


def test_attention_trains_the_named_head_alone_to_attend_to_the_words() -> None:
    """Lost otherwise: supervision of no head, or of heads that the settings do not name."""
    learner = classifier()
    batch = learner.batch([1, 3])  # "akşama gel" and "gel"
    losses = losses_of("attention", learner, heads={1: [0]})

    def masses() -> list[float]:
        with torch.no_grad(), learner.model.capturing(Capture(attentions=[1])) as seen:
            learner.task.losses(learner.model, batch)
        wanted = target_mask(batch["inputs"], "words", losses.__self__.spellings)
        return [float(seen.attentions[1][0, head, 10] @ wanted[0, 10].float()) for head in (0, 1)]

    before = masses()
    optimizer = torch.optim.Adam(learner.trainable_parameters(), lr=1e-2)
    for _ in range(60):
        losses(learner.model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = masses()
    assert after[0] > 0.9 > before[0]
    assert after[1] < 0.9


def test_target_mask_marks_a_word_for_later_tokens_and_not_for_padding() -> None:
    learner = classifier()
    batch = learner.batch([1, 3])
    wanted = target_mask(batch["inputs"], "words", spellings(learner.tokenizer.encode, ["gel"]))
    text = "akşama gel".encode()
    spans = [i for i in range(len(text)) if bool(wanted[0, -1, i])]
    assert bytes(text[i] for i in spans) == b" gel"
    assert not bool(wanted[0, : text.index(b" gel") + 1].any())  # later tokens are masked by causal attention
    with learner.model.capturing(Capture(attentions=[1])) as seen:
        learner.task.losses(learner.model, batch)
    _, counts = attention_mass(wanted, learner.token_mask(batch["inputs"]), seen, {1: [0, 1]})
    assert int(counts[1].sum()) == 3  # the rest of "gel" and the end-of-text token


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": {2: [0]}}, "names block 2"),
        ({"heads": {0: [2]}}, "heads of|heads 0 to 1"),
        ({"words": []}, "words go with"),
        ({"towards": "first"}, "words go with"),
    ],
)
def test_attention_refuses_heads_and_words_that_do_not_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises((UserError, ValueError), match=words):
        losses_of("attention", classifier(), **changes)


@pytest.mark.parametrize("towards", ["previous", "first"])
def test_target_mask_points_at_the_previous_or_the_first_token(towards: str) -> None:
    wanted = target_mask(torch.zeros(1, 4, dtype=torch.long), towards, [])[0]
    column = {"previous": [None, 0, 1, 2], "first": [None, 0, 0, 0]}[towards]
    assert [row.nonzero().flatten().tolist() for row in wanted] == [[] if c is None else [c] for c in column]


def test_cut_keeps_the_first_and_the_last_block() -> None:
    model = small(0, n_layers=5)
    first, middle, last = model.blocks[0], model.blocks[2], model.blocks[4]
    shallow = keep_layers(model, 3)
    assert list(shallow.blocks) == [first, middle, last]
    assert [block.attention.layer for block in shallow.blocks] == [0, 1, 2]  # type: ignore[union-attr]
    assert shallow(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, shallow.config.vocab_size)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="depth is 4, the model it starts from has 3 blocks"):
        keep_layers(shallow, 4)


def test_attention_has_no_target_in_another_document_of_a_window() -> None:
    """With a document mask it cannot be reached: a constant loss of 14 nats a token, without a gradient."""
    task = build("tasks", "next_token", TaskContext(TOKENIZER, 48, []), mask_documents=True)  # type: ignore[arg-type]
    model = small(0)
    learner = Learner(model, task, [], COMPUTE, TOKENIZER)  # type: ignore[arg-type]
    end = TOKENIZER.end_of_text
    batch = task.collate([task.example({"ids": torch.tensor([end, 5, 6, 7, end, 5, 6, 7, 8]).numpy()})])
    guided = losses_of("attention", learner, towards="first", words=[])(model, batch)
    assert 0 < float((guided - task.losses(model, batch)).detach()) < 5
