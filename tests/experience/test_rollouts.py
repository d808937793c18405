"""Rollouts: blocks are a function of weights, seed and number, and no prompt or answer is lost, repeated or moved."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import policy
from pipeline.errors import UserError
from pipeline.tasks import IGNORED
from tests.learners import TOKENIZER, small
from tests.rollouts import QUESTIONS, Lengths, learner, rollouts


def batches(experience: Any, number: int, **ranks: int) -> list[dict[str, torch.Tensor]]:
    return [micro_batch() for micro_batch in experience.batches(number, **ranks)]


def equal(ours: list[dict[str, torch.Tensor]], theirs: list[dict[str, torch.Tensor]]) -> bool:
    return len(ours) == len(theirs) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_blocks_are_equal_for_equal_weights_seed_and_number_and_only_then() -> None:
    one, other = rollouts(), rollouts()
    model = one._learner.model
    one.begin(model, 0)
    other.begin(other._learner.model, 1)  # the second update of the same block
    assert equal(batches(one, 1), batches(other, 1))
    before = [rollout.answer for rollout in one._full().rollouts]
    one.begin(model, 1)
    assert [rollout.answer for rollout in one._full().rollouts] == before
    one.begin(model, 2)
    assert [rollout.answer for rollout in one._full().rollouts] != before
    assert len({rollout.answer for rollout in one._full().rollouts[:3]}) > 1  # the samples of a group differ


def test_blocks_ask_every_prompt_once_in_a_pass() -> None:
    experience = rollouts(prompts=5)
    asked: list[str] = []
    for number in range(0, 8, 2):
        experience.begin(experience._learner.model, number)
        asked += [rollout.record["id"] for rollout in experience._full().rollouts[::3]]
    every = Counter(row["id"] for row in QUESTIONS)
    assert Counter(asked[:10]) == every == Counter(asked[10:])
    assert asked[:10] != asked[10:]


def test_updates_of_a_block_read_every_rollout_once_when_their_batches_add_up_to_it() -> None:
    experience = rollouts(batch_size=3, accumulate=2)
    for block in (0, 1):
        seen: list[int] = []
        for number in (2 * block, 2 * block + 1):
            experience.begin(experience._learner.model, number)
            seen += [row for batch in experience.batches(number) for row in batch.rows.tolist()]
        assert sorted(seen) == list(range(12))


@pytest.mark.parametrize("world", [2, 3])
def test_batches_of_all_ranks_are_those_of_one_process(world: int) -> None:
    experience = rollouts(batch_size=5)
    experience.begin(experience._learner.model, 0)
    (whole,) = batches(experience, 0)
    parts = [batches(experience, 0, rank=rank, world=world)[0] for rank in range(world)]
    assert torch.cat([part["rows"] for part in parts]).tolist() == whole["rows"].tolist()
    for name in ("score", "advantages", "group"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


def test_batches_align_behaviour_logprobs_with_the_answers() -> None:
    """Shifted by one token, every ratio of PPO would be wrong."""
    experience = rollouts()
    model = experience._learner.model
    experience.begin(model, 0)
    for batch in batches(experience, 0):
        mask_BT = batch["targets"] != IGNORED
        assert bool(((batch["behaviour_logprobs"] != 0) == mask_BT).all())
        with torch.no_grad():
            found_N = policy.logprobs_of(experience._task.predictions(model.eval(), batch))
        torch.testing.assert_close(found_N, batch["behaviour_logprobs"][mask_BT], atol=2e-6, rtol=0)
        for row, number in enumerate(batch["rows"].tolist()):
            rollout = experience._full().rollouts[number]
            assert batch["targets"][row][mask_BT[row]].tolist() == list(rollout.answer)
            assert int(batch["group"][row]) == rollout.group == number // 3
            assert float(batch["score"][row]) == len(rollout.answer) % 3
            assert rollout.ended == (rollout.answer[-1] == experience._task.stop)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_logprobs_are_those_of_the_training_forward_at_the_temperature_of_the_draws(temperature: float) -> None:
    experience = rollouts(temperature=temperature)
    model = experience._learner.model
    experience.begin(model, 0)
    for rollout in experience._full().rollouts[:4]:
        ids = [*rollout.prompt, *rollout.answer]
        with torch.no_grad():
            logits_TV = model.eval()(torch.tensor([ids[:-1]]))[0] / temperature
        scores_TV = logits_TV.log_softmax(-1)
        places = range(len(rollout.prompt) - 1, len(ids) - 1)
        expected = [float(scores_TV[t, ids[t + 1]]) for t in places]
        assert rollout.logprobs == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "nanochat"])
def test_engine_gives_the_logprobs_of_the_training_forward_in_every_family(family: str) -> None:
    """The first update of a block would otherwise not be on-policy; that pass is without dropout too."""
    experience = rollouts(learner(small(0, family, dropout=0.3)))
    experience._learner.model.train()
    experience.begin(experience._learner.model, 0)
    ours = [value for rollout in experience._full().rollouts for value in rollout.logprobs]
    again = experience._with_logprobs(experience._learner.model, experience._full())
    assert ours == pytest.approx([value for rollout in again for value in rollout.logprobs], abs=2e-6)


def test_drawing_together_as_on_a_gpu_gives_answers_that_end_alike() -> None:
    from pipeline.experience.rollouts.drawing import Draws, _together, draw

    of = learner()
    prompts = [of.examples[i].ids for i in range(4)]
    draws = Draws(2, 5, 1.0, 3)
    for drawing in (draw, _together):
        found = drawing(of.model, of.task, prompts, draws, of.compute)  # type: ignore[arg-type]
        assert len(found) == 8
        for answer in found:
            assert answer.ended == (answer.ids[-1] == of.task.stop)  # type: ignore[attr-defined]
            assert len(answer.ids) <= 5
            assert answer.ended or len(answer.ids) == 5


def test_drawing_together_ends_answers_at_end_of_text_where_the_template_ends_turns_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the engine's do: else a GPU would learn from the text behind the end."""
    from pipeline.experience.rollouts import drawing

    of = learner()
    end, turn = TOKENIZER.end_of_text, TOKENIZER.special["<|end|>"]
    monkeypatch.setattr(type(of.task), "stop", turn)
    drawn = [[7, end, 9], [7, 8, 9, 6, 5], [7], [8, 9, 6, 5, end]]
    monkeypatch.setattr(drawing, "generate", lambda *_, stop, **__: drawn if stop == {turn} else None)
    prompts = [of.examples[i].ids for i in range(4)]
    found = drawing._together(of.model, of.task, prompts, drawing.Draws(1, 5, 1.0, 3), of.compute)  # type: ignore[arg-type]
    assert [answer.ids for answer in found] == [(7, end), (7, 8, 9, 6, 5), (7, turn), (8, 9, 6, 5, end)]
    assert [answer.ended for answer in found] == [True, False, True, True]


def test_restored_buffer_gives_the_same_batches() -> None:
    one, other = rollouts(), rollouts()
    one.begin(one._learner.model, 2)
    saved = {name: tensor.clone() for name, tensor in one.memory.items()}
    judge: Any = other._learner.judge
    assert other.problem(saved) is None
    other.restore(saved)
    other.begin(other._learner.model, 3)
    assert judge.calls == 0
    assert equal(batches(one, 3), batches(other, 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: saved.pop("answers"), "answers is missing"),
        (lambda saved: saved.update(other=torch.zeros(12)), "other is not part of it"),
        (lambda saved: saved.update(scores=torch.zeros(5)), "scores is of 5 rollouts, a block of this run has 12"),
        (lambda saved: saved.update(records=torch.full((12,), 99)), "it names prompt 99 of 10"),
        (lambda saved: saved.update(logprobs=torch.zeros(12, 1)), "answers and logprobs do not fit"),
        (lambda saved: saved.update(ended=torch.zeros(12, 2)), r"ended has shape \[12, 2\]"),
    ],
)
def test_problem_names_the_tensor_of_a_saved_buffer_that_does_not_fit(change: Any, words: str) -> None:
    import re

    experience = rollouts(max_tokens=4)
    experience.begin(experience._learner.model, 0)
    saved = dict(experience.memory)
    change(saved)
    assert re.search(words, str(experience.problem(saved)))


def test_held_out_answers_are_the_same_at_every_call_and_never_of_training_draws() -> None:
    experience = rollouts()
    model = experience._learner.model
    first = experience.held_out(model, experience.examples, 1)
    experience.begin(model, 0)
    second = experience.held_out(model, experience.examples, 1)
    assert first.figures == second.figures
    assert equal(list(first.batches), list(second.batches))
    assert first.figures["loss"] == -first.figures["reward"]


def test_begin_warns_of_prompts_with_only_empty_answers_and_of_blocks_without_spread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    experience = rollouts(learner(judge=Lengths(lambda _: 1.0)))
    experience._task.answer = lambda _: " "  # type: ignore[method-assign]
    experience.begin(experience._learner.model, 0)
    said = capsys.readouterr().err
    assert "finetune.tried: block 0: 4 of 4 prompts got only empty answers, the first record r" in said
    assert "the answers to each prompt all have one score, 1 for record r" in said
    assert experience.figures["groups_without_spread"] == experience.figures["empty_share"] == 1.0
    plain = rollouts()
    plain.begin(plain._learner.model, 0)
    assert "only empty" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        (Lengths(lambda _: float("nan")), r"finetune.tried.judge scores an answer to record r\d .* with nan"),
        (Lengths(lambda _: float("inf")), "with inf; expected a finite number; the answer is"),
    ],
)
def test_begin_names_the_record_of_a_score_that_is_no_number(judge: Lengths, words: str) -> None:
    experience = rollouts(learner(judge=judge))
    with pytest.raises(UserError, match=words):
        experience.begin(experience._learner.model, 0)


def test_begin_names_the_shape_of_scores_that_are_not_one_an_answer() -> None:
    judge = Lengths()
    judge.scores = lambda judged: torch.zeros(len(judged), 1)  # type: ignore[method-assign]
    experience = rollouts(learner(judge=judge))
    with pytest.raises(UserError, match=r"judge gives scores of shape \[12, 1\] to 12 answers"):
        experience.begin(experience._learner.model, 0)


def test_build_refuses_answers_for_which_the_context_has_no_room() -> None:
    with pytest.raises(UserError, match=r"experience.max_tokens is 40 and task.max_prompt_tokens 30; the model"):
        rollouts(max_tokens=40)


def test_sized_examples_are_as_long_as_rollouts_can_be() -> None:
    experience = rollouts()
    experience.begin(experience._learner.model, 0)
    longest = max(len(r.prompt) + len(r.answer) for r in experience._full().rollouts)
    assert len(experience.sized) == 12
    assert max(len(ids) for ids, _ in experience.sized) >= longest
    assert np.isclose(experience.seen(3), 8)
