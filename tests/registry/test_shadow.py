"""Shadow: both models on the same consented requests; a candidate that is worse on them is shown as worse."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import tokenizer
from pipeline.config.recipe import Compute
from pipeline.data.journal import Journal
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.registry import shadow
from tests.data.test_journal import rating, request
from tests.models import shape
from tests.specs import ANSWERS, SPAM, TaskSpec, labels_of, written

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)
WORDS = "Ayşe İzmir'de yaşıyor. Merhaba dünya, free prize now! Where is the bus?"


def model(folder: Path, task: TaskSpec, seed: int, *, inverted: bool = False, sure: float = 1.0) -> Path:
    """A tiny random model.

    `inverted`: a classifier that answers the other label to every text; `sure`: factor of a text model's logits, which
    makes it certain of tokens that nobody wants.
    """
    words = folder / "tokenizer"
    if not words.is_dir():
        tokenizer.train([WORDS * 20], 300, "gpt2").save(words)
    size, draw = tokenizer.Tokenizer.load(words).vocab_size, torch.Generator().manual_seed(seed)
    made = GPT(shape(n_layers=1, n_kv_heads=2, context_length=64, vocab_size=size), draw)
    if task.labels:
        made.add_score(2, draw)
        assert made.score is not None
        with torch.no_grad():
            made.score.weight.mul_(-1.0 if inverted else 1.0)
    with torch.no_grad():
        made.get_parameter("embed.weight").mul_(sure)
    target = folder / f"{task.name}-{seed}-{inverted}-{sure}"
    checkpoint.save(made, target, tokenizer=words, labels=labels_of(task), metadata=written([task]))
    return target


def entries(texts: list[str], form: str, consent: str | None = "store") -> list[dict[str, Any]]:
    common = {"kind": "request", "model": "m", "consent": consent, "time": "2026-11-29T20:40:00.000Z"}
    asked = [{"text": text} if form == "text" else {"messages": [{"role": "user", "content": text}]} for text in texts]
    return [
        common | {"id": f"req-{i}", "user": f"u{i}", "answers": [{"text": "evet"}]} | one for i, one in enumerate(asked)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shadow")


TEXTS = [" ".join([*WORDS.split()[i % 9 :], str(i)]) for i in range(30)]


def test_replayed_shows_a_classifier_as_worse_when_labels_of_requests_say_so(folder: Path) -> None:
    from pipeline.inference.predictor import Predictor

    champion, candidate = model(folder, SPAM, 1), model(folder, SPAM, 1, inverted=True)
    right = [str(answer["label"]) for answer in Predictor(champion).answer(TEXTS)]
    late = [{"kind": "label", "request": f"req-{i}", "label": label} for i, label in enumerate(right)]
    found = shadow.replayed(candidate, champion, [*entries(TEXTS, "text"), *late], {"m"}, COMPUTE)
    (compared,) = found["comparisons"]
    assert (found["same"], found["judged"], found["requests"]) == (0.0, 30, 30)
    assert (compared["candidate"], compared["champion"], compared["verdict"]) == (0.0, 1.0, "worse")
    assert "accuracy: 0 beside 1, difference -1" in shadow.in_words(found)
    twin = shadow.replayed(champion, champion, [*entries(TEXTS, "text"), *late], {"m"}, COMPUTE)
    assert (twin["same"], twin["comparisons"][0]["verdict"]) == (1.0, "cannot tell")


def test_replayed_says_how_many_labels_are_needed_when_there_are_few(folder: Path) -> None:
    late = [{"kind": "label", "request": f"req-{i}", "label": "spam"} for i in range(19)]
    champion = model(folder, SPAM, 1)
    found = shadow.replayed(champion, champion, [*entries(TEXTS, "text"), *late], {"m"}, COMPUTE)
    assert found["comparisons"] == []
    assert "19 of them have a label or a correction; 20 are needed" in shadow.in_words(found)


def test_replayed_shows_a_text_model_as_worse_when_its_loss_on_corrections_is_higher(folder: Path) -> None:
    champion, candidate = model(folder, ANSWERS, 1), model(folder, ANSWERS, 1, sure=50.0)
    corrections = [
        {"kind": "rating", "id": f"rat-{i}", "request": f"req-{i}", "rater": "a", "form": "correction", "value": "Ayşe"}
        for i in range(len(TEXTS))
    ]
    found = shadow.replayed(candidate, champion, [*entries(TEXTS, "messages"), *corrections], {"m"}, COMPUTE)
    (compared,) = found["comparisons"]
    assert (compared["metric"], compared["verdict"], found["of"]) == ("answer_nats", "worse", 30)


def test_asked_of_leaves_out_requests_without_consent_and_of_other_models() -> None:
    assert shadow.asked_of(entries(TEXTS, "text", None), {"m"}) == []
    assert shadow.asked_of(entries(TEXTS, "text"), {"other"}) == []
    assert len(shadow.asked_of([*entries(TEXTS, "messages"), *entries([], "text")], {"m"})) == 30
    broken = [entries(["a"], "messages")[0] | {"messages": []}]
    assert shadow.asked_of(broken, {"m"}) == []


def test_right_answers_are_of_people_and_never_the_champions_own() -> None:
    def rating(request: int, form: str, value: str, rater: str = "a") -> dict[str, Any]:
        number = f"rat-{request}-{form}-{rater}"
        return {
            "kind": "rating",
            "id": number,
            "request": f"req-{request}",
            "rater": rater,
            "form": form,
            "value": value,
        }

    ratings = [
        rating(0, "thumb", "up"), rating(1, "thumb", "up"), rating(1, "thumb", "down", "b"),
        rating(2, "thumb", "up"), rating(2, "correction", "hayır"), rating(3, "thumb", "down"),
    ]  # fmt: skip
    assert shadow.right_answers([*entries(TEXTS[:4], "text"), *ratings], {}) == {"req-2": "hayır"}
    assert shadow.right_answers(ratings, {"req-2": "evet", "req-0": "evet"}) == {"req-0": "evet", "req-2": "hayır"}


def test_entries_read_no_more_of_a_journal_than_a_replay_needs(tmp_path: Path) -> None:
    kept = Journal(tmp_path)
    long = [{"text": "evet", "ids": [1] * 9, "logprobs": [-0.5] * 9}, {"text": "hayır"}]
    for model_name in ("m", "other"):
        kept.append(request(f"req-{model_name}", model=model_name, answers=long, prompt_ids=[1] * 9))
    kept.append(rating("rat-1", "req-m"))
    found = list(shadow._entries(tmp_path, {"m"}))
    assert [one["id"] for one in found] == ["req-m", "rat-1"]
    assert found[0]["answers"] == [{"text": "evet"}]
    assert "prompt_ids" not in found[0]
    assert len(shadow.asked_of(found, {"m"})) == 1
