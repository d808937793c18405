"""KL of sampled answers, beside its exact value by enumeration of every answer that a tiny vocabulary can give."""

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.inference.divergence import Drawn, divergences, draw
from pipeline.inference.engine import RowSettings
from pipeline.model.gpt import GPT
from tests.learners import COMPUTE
from tests.models import network, shape

V, STOP, LONGEST = 4, 0, 3
PROMPT = (1, 2)


def two(scale: float = 12.0) -> tuple[GPT, GPT]:
    """A model and its reference, whose distributions differ."""
    made = [GPT(shape(vocab_size=V), torch.Generator().manual_seed(seed)).eval() for seed in (0, 1)]
    with torch.no_grad():
        for one in made:
            one.embed.weight.mul_(scale)
    return made[0], made[1]


def every_answer() -> list[Drawn]:
    ended = [
        Drawn(0, PROMPT, (*body, STOP), ended=True)
        for length in range(LONGEST)
        for body in itertools.product(range(1, V), repeat=length)
    ]
    return ended + [Drawn(0, PROMPT, body, ended=False) for body in itertools.product(range(1, V), repeat=LONGEST)]


@torch.no_grad()
def log_probability(model: GPT, answer: Drawn, temperature: float) -> float:
    ids = [*answer.prompt, *answer.ids]
    logits_TV = model.logits(model.hidden(torch.tensor([ids[:-1]]))[0]).double() / temperature
    logprobs_TV = logits_TV.log_softmax(-1)
    return float(sum(logprobs_TV[place - 1, ids[place]] for place in range(len(PROMPT), len(ids))))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_divergences_have_the_expectation_of_the_exact_kl_when_every_answer_is_enumerated(temperature: float) -> None:
    """Lost otherwise: a KL without the step of the stop id, at another temperature or over the drawn ids alone."""
    model, reference = two()
    answers = every_answer()
    p = np.array([math.exp(log_probability(model, one, temperature)) for one in answers])
    ratio = np.array([log_probability(model, one, temperature) - log_probability(reference, one, temperature)
                      for one in answers])  # fmt: skip
    assert p.sum() == pytest.approx(1)
    exact = float(p @ ratio)
    assert exact > 0.3
    measured = divergences(model, reference, answers, COMPUTE, temperature)
    assert measured.log_ratio_nats == pytest.approx(ratio, abs=1e-5)
    assert float(p @ measured.kl_nats) == pytest.approx(exact, abs=1e-6)
    assert measured.kl_nats.min() >= 0
    spread = [float(p @ np.square(values - exact)) for values in measured]
    assert spread[0] < 0.5 * spread[1]
    assert not np.any(divergences(model, model, answers, COMPUTE, temperature).kl_nats)


def test_draw_samples_answers_by_their_probability_with_the_stop_id_and_the_same_alone() -> None:
    model, _ = two()
    settings = RowSettings(LONGEST, temperature=1.0, stop=frozenset({STOP}))
    drawn = draw(model, [(PROMPT, settings), ((3,), settings)], 400, COMPUTE)
    assert [one.ids for one in draw(model, [((3,), settings)], 2, COMPUTE)] == [one.ids for one in drawn[400:402]]
    assert all((one.ids[-1] == STOP) == one.ended and STOP not in one.said for one in drawn)
    assert all(len(one.ids) == LONGEST for one in drawn if not one.ended)
    for answer in every_answer()[:4]:
        share = math.exp(log_probability(model, answer, 1.0))
        found = sum(one.ids == answer.ids for one in drawn[:400]) / 400
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / 400)


def test_divergences_refuse_a_reference_of_another_vocabulary() -> None:
    model, _ = two()
    with pytest.raises(UserError, match=r"a vocabulary of 5 tokens, the model of 4; .* name a model that"):
        divergences(model, network(vocab_size=5), every_answer()[:1], COMPUTE)
