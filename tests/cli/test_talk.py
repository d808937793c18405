"""`tohum chat`: without these tests a seed would not repeat an answer, or a GPU would refuse to draw."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from pipeline.cli import _talk
from pipeline.evaluation import Subject
from pipeline.prompts.spec import TEXT

SAMPLING = _talk.Sampling(temperature=1.0, top_k=0, top_p=1.0, max_tokens=8)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the generators that the answers of `talk` are drawn with, a line of input each call."""
    seeds: list[int] = []
    model = SimpleNamespace(embed=torch.nn.Embedding(2, 2))
    subject = cast(Subject, SimpleNamespace(name="base", tasks=[SimpleNamespace(spec=TEXT)], model=model))

    def answer(subject: Subject, line: str, turns: object, sampling: object, generator: torch.Generator) -> list[str]:
        assert generator.device == subject.model.embed.weight.device
        seeds.append(generator.initial_seed())
        return []

    monkeypatch.setattr(_talk, "_open", lambda name: (subject, None))
    monkeypatch.setattr(_talk, "_answer", answer)
    monkeypatch.setattr(_talk, "opening", lambda *_: [])
    return seeds


@pytest.mark.parametrize(("seed", "different"), [(0, 1), (7, 1), (None, 2)])
def test_talk_repeats_an_answer_with_every_seed_and_none_without(
    drawn: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int | None, different: int
) -> None:
    (tmp_path / "lines").write_text("hello\n", encoding="utf-8")
    for _ in range(2):
        with (tmp_path / "lines").open(encoding="utf-8") as lines:
            monkeypatch.setattr("sys.stdin", lines)
            _talk.talk("base", SAMPLING, seed)
    assert len(set(drawn)) == different


def test_talk_draws_with_a_generator_on_the_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for `torch.Generator`: the machine of the tests need not have a GPU."""
    devices: list[object] = []

    def generator(device: object = "cpu") -> torch.Generator:
        devices.append(device)
        return torch.random.default_generator.clone_state()

    monkeypatch.setattr(torch, "Generator", generator)
    _talk._generator(0, torch.device("cuda"))
    assert devices == [torch.device("cuda")]
