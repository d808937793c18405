"""POST /v1/classify of a reward model: a score for every answer."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.inference.predictor import Predictor
from pipeline.tasks import Request
from tests.served import Site, site

ASKED = {"model": "reward", "input": ["Merhaba", "Merhaba"], "answer": ["dünya", "free prize"]}


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of a reward model and a classifier, and the folder of its project."""
    folder = tmp_path_factory.mktemp("rewards")
    with site(folder, ("reward", "spam-full")) as running:
        yield running, folder


def test_classify_scores_the_answers_of_a_reward_model(rewards: tuple[Site, Path]) -> None:
    running, folder = rewards
    answer = httpx.post(f"{running.address}/v1/classify", json=ASKED)
    assert answer.status_code == 200, answer.text
    texts = [Request(text, answer=said) for text, said in zip(ASKED["input"], ASKED["answer"], strict=True)]
    expected = [row["reward"] for row in Predictor(folder / "models/reward").answer(texts)]
    assert [row["reward"] for row in answer.json()["data"]] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": ["dünya"]}, "1 answers to 2 inputs; a reward model scores one answer to each input"),
        ({"answer": None}, "0 answers to 2 inputs"),
        ({"model": "spam-full"}, "spam-full is no reward model; leave it out"),
        ({"store": True}, "the answers that a reward model scores are not kept"),
    ],
)
def test_classify_refuses_answers_that_do_not_fit(
    rewards: tuple[Site, Path], changes: dict[str, Any], words: str
) -> None:
    answer = httpx.post(f"{rewards[0].address}/v1/classify", json=ASKED | changes)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
