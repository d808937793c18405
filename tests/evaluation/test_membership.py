"""Membership inference: a wrong rank would call a model that gives its training data away private."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import plugins
from pipeline.errors import UserError
from pipeline.evaluation import membership
from tests.evaluation.splits import learn, subject_of, told, write_documents

WORDS = ["ev", "yol", "deniz", "kedi", "sabah", "akşam", "masa", "kitap", "kalem", "su", "çay", "ekmek", "taş", "dağ"]


def settings_of(**changes: Any) -> Any:
    fields = plugins.example("evaluation", "membership") | {"records": 60, "batch_size": 64}
    return plugins.settings_class("evaluation", "membership")(**fields | changes)


def texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(8)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_auc_equals_scikit_learns_with_ties(seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    inside, outside = rng.integers(0, 9, 40) + 1.0, rng.integers(0, 9, 30) * 1.0
    found = membership.auc(inside, outside)
    labels = [1] * 40 + [0] * 30
    assert found.value == pytest.approx(roc_auc_score(labels, np.concatenate([inside, outside])))
    assert found.by_member.mean() == pytest.approx(found.value)
    assert found.low < found.value < found.high


def test_auc_interval_covers_chance_in_95_of_100_null_worlds() -> None:
    """At least 89 of 100: three standard errors below 95."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(100):
        found = membership.auc(rng.normal(size=80), rng.normal(size=80))
        covered += found.low <= 0.5 <= found.high
    assert covered >= 89


def test_true_positives_allow_one_in_a_hundred_non_members() -> None:
    outside = np.arange(200.0)  # the two highest may be taken for members: 199 and 198
    assert membership.true_positives(np.array([197.0, 197.5, 198.0, 500.0]), outside) == 0.75
    assert membership.true_positives(np.array([98.0, 99.0, 99.5]), np.arange(99.0)) == pytest.approx(2 / 3)


def test_membership_finds_a_model_that_has_learned_its_half_and_clears_one_that_has_not(tmp_path: Path) -> None:
    train, test = texts(40, 1), texts(40, 2)
    write_documents(tmp_path, train=train, test=test)
    subject = subject_of(tmp_path, d_model=32, head_dim=16, d_ff=64)
    before, _, _ = membership.measure(settings_of(), subject)
    learn(subject, told(train), 90)
    metrics, details, _ = membership.measure(settings_of(), subject)
    for attacker in ("", "_min_k", "_zlib"):
        assert before[f"membership_auc{attacker}_low"] <= 0.5 <= before[f"membership_auc{attacker}_high"]
        assert metrics[f"membership_auc{attacker}_low"] > 0.5, attacker
    assert metrics["membership_refused"] == before["membership_refused"] == 0.0
    assert metrics["membership_auc"] > 0.7
    assert metrics["members"] == metrics["non_members"] == 40.0
    by_record = [float(value) for value in details["by_record"].split()]
    assert sum(by_record) / 40 == pytest.approx(metrics["membership_auc"], abs=1e-3)


def test_membership_is_refused_when_words_alone_tell_the_halves_apart(tmp_path: Path) -> None:
    """Lost otherwise: newer test records would pass for a leak of the training data."""
    write_documents(tmp_path, train=texts(40, 1), test=[f"{text} kar" for text in texts(40, 2)])
    metrics, details, _ = membership.measure(settings_of(), subject_of(tmp_path))
    assert metrics["membership_refused"] == 1.0
    assert metrics["membership_words_auc"] > 0.95
    assert not [name for name in metrics if name.startswith(("membership_auc", "membership_tpr"))]
    assert "the halves differ" in details["refused"]


def test_words_do_not_tell_random_halves_apart() -> None:
    """20 splits of one population: none may be refused."""
    for seed in range(20):
        found = membership.words_auc(texts(50, seed), texts(50, 1000 + seed), seed)
        assert found.value < 0.5 + 3 * found.error


def test_attackers_read_the_tokens_that_they_name(tmp_path: Path) -> None:
    """By hand from the probabilities of one text."""
    write_documents(tmp_path, train=["çay masa"], test=["çay masa"])
    subject = subject_of(tmp_path)
    settings = settings_of(least_likely=0.25)
    members, others = (
        membership.record_texts(tmp_path, split, membership.Choice("documents", None, None, 1), subject.tokenizer, None)
        for split in ("train", "test")
    )
    scores = membership.attacks(settings, subject, members, others)
    ids = [*members[0].ids.prompt, *members[0].ids.scored]
    logits = subject.model(torch.tensor([ids[:-1]]))[0].log_softmax(-1).detach()
    nats = sorted(-float(logits[i, target]) for i, target in enumerate(ids[1:]))
    assert scores["loss"][0][0] == pytest.approx(-sum(nats) / len(nats), abs=1e-4)
    worst = nats[-math.ceil(len(nats) / 4) :]
    assert scores["min_k"][0][0] == pytest.approx(-sum(worst) / len(worst), abs=1e-4)
    size = len(membership.zlib.compress("çay masa".encode(), 9))
    assert scores["zlib"][1][0] == pytest.approx(-sum(nats) / size, abs=1e-4)


def test_membership_refuses_a_model_whose_loss_is_not_finite(tmp_path: Path) -> None:
    write_documents(tmp_path, train=texts(6, 1), test=texts(6, 2))
    subject = subject_of(tmp_path)
    with torch.no_grad():
        subject.model.embed.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="the loss of record train0 is not finite"):
        membership.measure(settings_of(), subject)
