"""Answers to one prompt computed together: hidden states and gradients of a row for each answer."""

import pytest
import torch
from torch import Tensor

from pipeline.model import shared_prompts
from pipeline.model.gpt import GPT
from tests.models import network

PROMPTS = [[3, 4, 5, 6, 7], [3, 4, 5], [9]]


def batch_of(order: list[int]) -> tuple[Tensor, Tensor]:
    """inputs_BT and wanted_BT of seven answers of several lengths, the last one without a wanted position."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(7):
        prompt = PROMPTS[number % 3]
        answer = torch.randint(0, 30, (1 + number,), generator=generator).tolist()
        rows.append(([*prompt, *answer], len(prompt) - 1 if number < 6 else 16))
    inputs_BT = torch.zeros(7, 16, dtype=torch.long)
    wanted_BT = torch.zeros(7, 16, dtype=torch.bool)
    for place, number in enumerate(order):
        ids, first = rows[number]
        inputs_BT[place, : len(ids)] = torch.tensor(ids)
        wanted_BT[place, first : len(ids)] = True
    return inputs_BT, wanted_BT


@pytest.fixture
def computed_together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of rows of every pass."""
    rows: list[int] = []
    pass_of = GPT.hidden

    def counted(model: GPT, ids_BT: Tensor, **inputs: object) -> Tensor:
        rows.append(len(ids_BT))
        return pass_of(model, ids_BT, **inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(GPT, "hidden", counted)
    return rows


@pytest.mark.parametrize("family", ["gpt2", "mistral", "qwen3", "nanochat"])
@pytest.mark.parametrize("order", [[0, 3, 6, 1, 4, 2, 5], [0, 1, 2, 3, 4, 5, 6]])
def test_hidden_gives_states_and_gradients_of_a_row_for_each_answer(
    family: str, order: list[int], computed_together: list[int]
) -> None:
    model = network(family)
    inputs_BT, wanted_BT = batch_of(order)
    states, gradients = [], []
    for shares in (False, True):
        if shares:
            x_ND = shared_prompts.hidden(model, inputs_BT, wanted_BT)
        else:
            x_ND = model.hidden(inputs_BT, wanted_BT=wanted_BT)
        (x_ND * torch.linspace(-1, 1, x_ND.numel()).view_as(x_ND)).sum().backward()  # type: ignore[no-untyped-call]
        states.append(x_ND.detach())
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        model.zero_grad(set_to_none=True)
    assert computed_together == [7, 5]  # of the prompts of five, of three and of one id: one, two and two
    torch.testing.assert_close(states[1], states[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-4)


def test_hidden_shares_no_more_than_the_given_first_ids() -> None:
    """A reward model wants only the last state of each answer: the ids before it are not all of the prompt."""
    model = network("qwen3")
    inputs_BT, wanted_BT = batch_of([0, 3, 1, 4, 2, 5, 6])
    last_BT = wanted_BT & (wanted_BT.flip(1).cumsum(1).flip(1) == 1)
    prompts_B = wanted_BT.int().argmax(1)
    expected = model.hidden(inputs_BT, wanted_BT=last_BT)
    torch.testing.assert_close(
        shared_prompts.hidden(model, inputs_BT, last_BT, prompts_B), expected, atol=1e-5, rtol=1e-5
    )


def test_hidden_splits_long_rows(monkeypatch: pytest.MonkeyPatch, computed_together: list[int]) -> None:
    monkeypatch.setattr(shared_prompts, "_longest", lambda _prompt, _d_model: 10)
    monkeypatch.setattr(shared_prompts, "_LEAST_SAVED", 0.0)
    model = network("qwen3")
    inputs_BT, wanted_BT = batch_of([0, 3, 1, 4, 2, 5, 6])
    expected = model.hidden(inputs_BT, wanted_BT=wanted_BT)
    together = shared_prompts.hidden(model, inputs_BT, wanted_BT)
    assert computed_together == [7, 6]
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)


def test_hidden_computes_rows_by_themselves_where_nothing_is_saved(computed_together: list[int]) -> None:
    inputs_BT, wanted_BT = batch_of([0, 1, 2, 3, 4, 5, 6])
    model = network("qwen3")
    shared_prompts.hidden(model, inputs_BT[:3], wanted_BT[:3])  # three prompts
    model.static_shapes = True
    shared_prompts.hidden(model, inputs_BT, wanted_BT)
    assert computed_together == [3, 7]


@pytest.mark.parametrize(("prompt", "answer", "d_model"), [(17, 13, 96), (30, 22, 96), (44, 15, 576), (5, 40, 96)])
def test_longest_row_takes_the_least_time_for_an_answer(prompt: int, answer: int, d_model: int) -> None:
    """Time of a row of S ids: S (2 D + S)."""

    def time_of(answers: float) -> float:
        ids = prompt + answers * answer
        return ids * (2 * d_model + ids) / answers

    best = (shared_prompts._longest(prompt, d_model) - prompt) / answer
    assert time_of(best) <= min(time_of(0.9 * best), time_of(1.1 * best))
