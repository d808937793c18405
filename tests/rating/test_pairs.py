"""Pairs of answers: different texts, drawn again by their settings alone, with the model's own log-probabilities."""

from pathlib import Path

import pytest
import torch

from pipeline.config.params import Split
from pipeline.data import judgements, language
from pipeline.data.conversations import Message
from pipeline.data.split import split_of
from pipeline.errors import UserError
from pipeline.inference.answers import Sampling
from pipeline.model import checkpoint
from pipeline.rating import prompts
from pipeline.rating.pairs import Model, Pair, key_of
from pipeline.rating.prompts import Asked
from tests.rating.conftest import HELD_OUT, QUESTIONS, write_records

SAMPLING = Sampling(max_tokens=2, temperature=1.0)
SPLIT = Split(by="record", seed=1, validation=0.05, test=0.05)
ASKED = [Asked((Message("user", text),)) for text in QUESTIONS]


@pytest.fixture
def pairs(model: Model) -> list[Pair]:
    return [pair for pair in model.draw(ASKED, SAMPLING, seed=1) if pair is not None]


def test_draw_gives_two_different_whole_texts(pairs: list[Pair]) -> None:
    assert len(pairs) >= 10
    for pair in pairs:
        first, second = (answer.text for answer in pair.answers)
        assert first.strip() != second.strip()
        assert "\ufffd" not in first + second
        assert first.strip()
        assert second.strip()
        assert pair.settings["seeds"][0] != pair.settings["seeds"][1]


def test_draw_gives_equal_pairs_alone_and_beside_others(model: Model, pairs: list[Pair]) -> None:
    """Lost otherwise: a rerun would ask about other answers than those that were rated."""
    for pair in pairs[:3]:
        assert model.draw([pair.asked], SAMPLING, seed=1) == [pair]
    assert model.draw([pairs[0].asked], SAMPLING, seed=2) != [pairs[0]]


def test_draw_shuffles_the_sides(model: Model, pairs: list[Pair]) -> None:
    """The answer that was drawn first stands first about as often as second, so that no side is favoured."""
    first = [pair.settings["seeds"][0] == model._seed(1, pair.asked, 0) for pair in pairs if 0 in _numbers(model, pair)]
    assert 0.2 < sum(first) / len(first) < 0.8


def _numbers(model: Model, pair: Pair) -> list[int]:
    return [number for number in range(8) if model._seed(1, pair.asked, number) in pair.settings["seeds"]]


def test_draw_keeps_ids_with_the_models_own_logprobs(project: Path, model: Model, pairs: list[Pair]) -> None:
    """At temperature 2, so that the distribution that was sampled from is another one."""
    hot = next(pair for pair in model.draw(ASKED, Sampling(max_tokens=2, temperature=2.0), seed=1) if pair is not None)
    network = checkpoint.load(project / "models/chat-full", "cpu").eval()
    prompt = model.task.prompt(hot.asked.request)
    for answer in hot.answers:
        with torch.no_grad():
            logprobs_TV = network(torch.tensor([[*prompt, *answer.ids]]))[0].log_softmax(-1)
        expected = [float(logprobs_TV[len(prompt) - 1 + place, token]) for place, token in enumerate(answer.ids)]
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)
        assert model.task.tokenizer.decode(answer.ids) == answer.text


def test_draw_does_not_ask_again_about_a_judged_pair(model: Model, pairs: list[Pair]) -> None:
    """Lost otherwise: a second round repeats records of the first, and the gate on duplicates stops it."""
    judged = {key_of(pair.asked, [answer.text for answer in pair.answers]) for pair in pairs}
    again = [pair for pair in model.draw(ASKED, SAMPLING, 1, judged) if pair is not None]
    assert again
    assert not judged & {key_of(pair.asked, [answer.text for answer in pair.answers]) for pair in again}


def test_draw_leaves_out_a_prompt_whose_answers_are_all_equal(model: Model) -> None:
    assert model.draw(ASKED[:2], Sampling(max_tokens=2, temperature=1.0, top_k=1), seed=1) == [None, None]


def test_model_refuses_a_classifier(project: Path) -> None:
    with pytest.raises(UserError, match="answers with labels or a number"):
        Model.read(project / "models/spam-full")


def test_prompts_leave_out_those_of_test_records(project: Path) -> None:
    write_records("preferences", "train", [{"instruction": HELD_OUT.upper(), "chosen": "a", "rejected": "b"}])
    asked = prompts.of_records(Path("data/samples"), SPLIT, 1).prompts
    assert sorted(one.text for one in asked) == sorted(QUESTIONS)
    again = prompts.of_records(Path("data/samples"), SPLIT, 2).prompts
    assert [one.text for one in asked] != [one.text for one in again]
    given = prompts.of_texts(["Yeni?", HELD_OUT, "Yeni?", " "], Path("data/samples"))
    assert ([one.text for one in given.prompts], given.left_out) == (["Yeni?"], 1)
    with pytest.raises(UserError, match="every prompt is empty or that of a test record"):
        prompts.of_texts([HELD_OUT], Path("data/samples"))


def test_prompts_are_held_out_for_every_eighth_rating(project: Path) -> None:
    """Lost otherwise: where all prompts have their ratings in training, no gate could tell a round from chance."""
    texts = [f"Which is {number}?" for number in range(400)]
    by_split: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for text in texts:
        by_split[split_of(judgements.prompt_id(text, language.guess(text)), SPLIT)].append(
            {"instruction": text, "chosen": "a", "rejected": "b"}
        )
    for split, rows in by_split.items():
        write_records("preferences", split, rows)
    asked = [one.text for one in prompts.of_records(Path("data/samples"), SPLIT, 1).prompts]
    validated = {row["instruction"] for row in by_split["validation"]}
    assert validated <= set(asked)
    places = sorted(asked.index(text) for text in asked if text in validated)
    assert [place % 8 for place in places] == [7] * len(validated)
    assert places[0] <= 23
    assert not {row["instruction"] for row in by_split["test"]} & set(asked)


def test_prompts_name_the_next_step_without_records(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--prompts FILE"):
        prompts.of_records(tmp_path, SPLIT, 1)
