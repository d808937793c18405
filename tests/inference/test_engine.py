"""engine.py: a row's tokens are those of the row alone, however others join and leave; limits, ends and samples."""

import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.closure import closure
from pipeline.errors import UserError
from pipeline.inference.engine import Engine, RowSettings, Token
from pipeline.inference.generation import generate
from pipeline.model import checkpoint, native
from pipeline.model.cache import RowCache
from pipeline.model.decoding import Compile
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.paths import CODE
from pipeline.tuners import Adapter
from tests import variants
from tests.inference.test_generation import FAMILIES, GREEDY, model_of, random_prefix
from tests.model.library_models import DECODERS, SEQ2SEQ, written

ADAPTERS = [v for v in variants.variants("tuners") if isinstance(v.build(), Adapter)]
Ask = tuple[list[int], RowSettings]


def asks(count: int, vocab_size: int, longest: int = 24, seed: int = 3) -> list[Ask]:
    """Prompts of many lengths, greedy and drawn by every filter, some alike."""
    rng = random.Random(seed)
    made: list[Ask] = []
    for number in range(count):
        prompt = [rng.randrange(3, vocab_size) for _ in range(rng.randint(1, longest))]
        if number % 7 == 3:
            prompt = made[-1][0]
        settings = RowSettings(
            max_tokens=rng.randint(1, 12), temperature=rng.choice([0.0, 0.7, 1.5]), top_k=rng.choice([0, 0, 5]),
            top_p=rng.choice([1.0, 0.9, 0.3]), seed=number, top_logprobs=rng.choice([0, 3]),
            stop=frozenset(rng.sample(range(vocab_size), 2)),
            bias={rng.randrange(vocab_size): 2.0} if rng.random() < 0.2 else {},
        )  # fmt: skip
        made.append((prompt, settings))
    return made


def drained(engine: Engine) -> dict[int, list[Token]]:
    """Every row's tokens until nothing is left."""
    said: dict[int, list[Token]] = {}
    while engine.busy:
        for token in engine.step():
            said.setdefault(token.row, []).append(token)
    return said


def alone(model: GPT, given: Sequence[Ask], **options: Any) -> list[list[Token]]:
    """Each prompt's tokens in an engine of its own."""
    said = []
    for prompt, settings in given:
        engine = Engine(model, max_rows=1, **options)
        (row,) = engine.add(prompt, settings)
        said.append([token._replace(row=-1) for token in drained(engine)[row]])
    return said


def among(model: GPT, given: Sequence[Ask], max_rows: int = 8, **options: Any) -> list[list[Token]]:
    """The same in one engine: prompts are added between steps, and rows of others are cancelled."""
    rng, engine = random.Random(1), Engine(model, max_rows=max_rows, **options)
    waiting, said, number_of = list(enumerate(given)), {}, {}
    others: list[int] = []
    while waiting or engine.busy:
        for _ in range(rng.choice([0, 0, 1, 3, 6])):
            if waiting:
                number, (prompt, settings) = waiting.pop(0)
                (row,) = engine.add(prompt, settings)
                number_of[row], said[number] = number, []
        if waiting and rng.random() < 0.3:
            others += engine.add(rng.choice(given)[0], RowSettings(12, temperature=1.0, seed=rng.randrange(99)))
        if others and rng.random() < 0.3:
            engine.cancel(others.pop(rng.randrange(len(others))))
        for token in engine.step():
            if token.row in number_of:
                said[number_of[token.row]].append(token._replace(row=-1))
        assert engine.active <= max_rows
    return [said[number] for number in range(len(given))]


@pytest.fixture(params=["compiled", "torch"])
def computed(request: pytest.FixtureRequest) -> Compile | None:
    """Both ways to compute a step."""
    if request.param == "torch":
        return None
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    return native.of


@pytest.mark.parametrize("family", FAMILIES)
def test_engine_gives_a_row_the_tokens_that_it_has_alone(family: str, computed: Compile | None) -> None:
    """Lost otherwise: an answer, and the log-probabilities that are learned from, would depend on other people's."""
    model, given = model_of(family).eval(), asks(28, 50)
    options = {"compile_step": computed}
    assert among(model, given, **options) == alone(model, given, **options)
    assert Engine(model, **options).is_compiled == (computed is not None)
    options["prefix"] = random_prefix(family)
    assert among(model, given[:12], **options) == alone(model, given[:12], **options)


def test_stages_do_not_reach_compiled_code() -> None:
    """Lost otherwise: evaluation would give other figures with a C++ compiler than without one."""
    assert "pipeline.model.decoding" in closure("stages.evaluate")
    for stage in (CODE / "stages").glob("*.py"):
        assert "pipeline.model.native" not in closure(f"stages.{stage.stem}")
    assert "pipeline.model.native" in closure("pipeline.serving.models")


@pytest.mark.parametrize("variant", ADAPTERS, ids=str)
def test_engine_gives_an_adapted_row_the_tokens_that_it_has_alone(variant: Any) -> None:
    model, tuner = model_of("qwen3"), variant.build()
    generator = torch.Generator().manual_seed(4)
    before = generate(model, [[5, 9]], max_tokens=9, **GREEDY)
    tuner.apply(model, generator, lambda text: [3 + ord(letter) % 30 for letter in text])
    with torch.no_grad():
        for group in tuner.groups(model):
            for parameter in group["params"]:
                parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    given = asks(12, 50, longest=16)
    assert among(model.eval(), given) == alone(model, given)
    adapted = generate(model, [[5, 9]], max_tokens=9, **GREEDY)
    assert adapted == generate(model, [[5, 9]], max_tokens=9, use_cache=False, **GREEDY) != before


@pytest.mark.parametrize("name", [DECODERS[0], SEQ2SEQ[0]])
def test_engine_gives_a_row_of_a_library_model_the_tokens_that_it_has_alone(name: str, tmp_path: Path) -> None:
    model = checkpoint.load(written(name, tmp_path / name)).eval()
    assert isinstance(model, LibraryModel)
    given = asks(6, model.config.vocab_size, longest=8)
    assert among(model, given) == alone(model, given)
    prompts = [prompt for prompt, _ in given]
    engine = Engine(model)
    rows = [engine.add(prompt, RowSettings(6))[0] for prompt in prompts]
    said = drained(engine)
    assert [[token.id for token in said[row]] for row in rows] == generate(model, prompts, max_tokens=6, **GREEDY)


def test_engine_reads_a_long_prompt_beside_running_rows() -> None:
    """Lost otherwise: every client waits while one long prompt is read, or it is read with other numbers."""
    model = model_of("mistral", context_length=700).eval()
    rng = random.Random(2)
    long = [[rng.randrange(3, 50) for _ in range(length)] for length in (600, 513, 600)]
    engine = Engine(model)
    (short,) = engine.add([5, 9, 2], RowSettings(40))
    engine.step()
    rows = [engine.add(prompt, RowSettings(5))[0] for prompt in long]
    said: dict[int, list[Token]] = {}
    waited = 0
    while engine.busy:
        tokens = engine.step()
        waited += [token.row for token in tokens] == [short]
        for token in tokens:
            said.setdefault(token.row, []).append(token._replace(row=-1))
    assert waited >= 3
    assert [said[row] for row in rows] == alone(model, [(prompt, RowSettings(5)) for prompt in long])
    whole = generate(model, long, max_tokens=5, use_cache=False, **GREEDY)
    assert [[token.id for token in said[row]] for row in rows] == whole


def test_engine_draws_every_sample_of_a_prompt_by_its_own_seed() -> None:
    model, settings = model_of("llama").eval(), RowSettings(12, temperature=1.2, seed=5)
    engine = Engine(model, max_rows=3)
    rows = engine.add([5, 9, 2], settings, samples=7)
    said = [[token.id for token in tokens] for _, tokens in sorted(drained(engine).items())]
    assert rows == list(range(7))
    assert len({tuple(ids) for ids in said}) == 7
    again = Engine(model, max_rows=16)
    again.add([5, 9, 2], settings, samples=9)
    assert [[token.id for token in tokens] for _, tokens in sorted(drained(again).items())][:7] == said


def test_engine_gives_the_logprobs_of_the_model_itself() -> None:
    """Lost otherwise: ratings would be learned from the log-probabilities of a filtered distribution."""
    model, prompt = model_of("qwen3").eval(), [5, 9, 2]
    engine = Engine(model)
    engine.add(prompt, RowSettings(10, temperature=0.5, top_k=3, top_logprobs=4, bias={7: -50.0}))
    tokens = drained(engine)[0]
    ids = prompt + [token.id for token in tokens]
    with torch.no_grad():
        own_TV = model(torch.tensor([ids]))[0].log_softmax(-1)[len(prompt) - 1 : -1]
    for token, own_V in zip(tokens, own_TV, strict=True):
        assert token.id != 7
        assert token.logprob == pytest.approx(float(own_V[token.id]), abs=1e-4)
        best = own_V.topk(4)
        assert [one for one, _ in token.top] == best.indices.tolist()
        assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    silent = Engine(model, logprobs=False)
    silent.add(prompt, RowSettings(1))
    assert math.isnan(silent.step()[0].logprob)


def test_engine_says_how_a_row_ended() -> None:
    model = model_of("llama", context_length=12).eval()
    (greedy,) = generate(model, [[5, 9]], max_tokens=4, **GREEDY)
    engine = Engine(model)
    rows = [
        engine.add([5, 9], RowSettings(4))[0],
        engine.add([5, 9], RowSettings(4, stop=frozenset([greedy[1]])))[0],
        engine.add([5, 9, 2, 8, 8, 8, 8, 8, 8], RowSettings(99))[0],
    ]
    said = drained(engine)
    assert [[token.finished for token in said[row]] for row in rows] == [
        [None, None, None, "length"],
        [None, "stop"],
        [None, None, "length"],
    ]
    assert said[rows[1]][-1].id == greedy[1]


def test_cancel_frees_the_row_before_the_next_step() -> None:
    """Lost otherwise: a client that has gone keeps its place until its answer ends."""
    engine = Engine(model_of("llama").eval(), max_rows=2)
    first, second, third = (engine.add([5, token], RowSettings(30))[0] for token in (1, 2, 3))
    assert {token.row for token in engine.step()} == {first, second}
    assert (engine.active, engine.waiting) == (2, 1)
    engine.cancel(first)
    assert {token.row for token in engine.step()} == {second, third}
    waiting = engine.add([7], RowSettings(3))[0]
    engine.cancel(waiting)
    engine.cancel(999)
    assert (engine.active, engine.waiting) == (2, 0)
    for row in (second, third):
        engine.cancel(row)
    assert not engine.busy
    assert engine.step() == []


def test_engine_keeps_no_more_rows_than_allowed() -> None:
    """Lost otherwise: memory grows with the requests."""
    engine = Engine(model_of("llama").eval(), max_rows=6)
    for number in range(100):
        engine.add([1 + number % 40] * (1 + number % 9), RowSettings(3))
    assert len(drained(engine)) == 100
    assert engine._flat is not None
    assert (engine._flat.cache.slots, engine._flat.cache.capacity) == (6, 40)


def test_step_leaves_running_rows_as_they_were_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: compiled code would write beyond the cache that there is."""
    model = model_of("llama", context_length=200).eval()
    engine, ask = Engine(model), ([5, 9, 2], RowSettings(12))
    (row,) = engine.add(*ask)
    said = [token._replace(row=-1) for token in engine.step()]

    def full(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(RowCache, "_empty", full)
        engine.add([1] * 90, RowSettings(90))
        with pytest.raises(MemoryError):
            engine.step()
    said += [token._replace(row=-1) for token in drained(engine)[row]]
    assert [said] == alone(model, [ask])


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "the prompt is empty"),
        ([1] * 40, {}, "the prompt has 40 tokens, the context 40: no room for an answer; shorten it to at most 39"),
        ([1, 50], {}, r"an id outside 0\.\.49"),
        ([1], {"max_tokens": 0}, "max_tokens 0"),
        ([1], {"temperature": float("nan")}, "temperature nan"),
        ([1], {"top_p": 0.0}, "top_p 0.0"),
        ([1], {"bias": {50: 1.0}}, "bias names id 50"),
        ([1], {"top_logprobs": 51}, "top_logprobs 51"),
    ],
)
def test_add_refuses_what_cannot_be_answered(prompt: list[int], options: dict[str, Any], message: str) -> None:
    engine = Engine(model_of("llama").eval())
    with pytest.raises(UserError, match=message):
        engine.add(prompt, RowSettings(**{"max_tokens": 3, **options}))
    assert not engine.busy
    with pytest.raises(UserError, match="samples 0"):
        engine.add([1], RowSettings(3), samples=0)
