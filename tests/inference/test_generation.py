"""generation.py: the ids of transformers, in any batch, cached or not; sampling within its filters."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.inference.generation import Sampling, generate, stream
from pipeline.inference.sampling import Filter, pick
from pipeline.model import checkpoint
from pipeline.model.cache import KVCache, StaticKVCache
from pipeline.model.decoding import FlatModel
from pipeline.model.gpt import GPT
from tests.models import shape

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
GREEDY = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop": ()}
PROMPTS = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6, 7], [11, 30]]


def model_of(family: str, context_length: int = 40) -> GPT:
    """A small random network with peaked answers, so that no tie is decided by rounding."""
    config = shape(
        family, n_heads=4, n_kv_heads=4 if family == "gpt2" else 2, d_model=32, d_ff=64, context_length=context_length,
        tie_embeddings=False, vocab_size=50,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    model = GPT(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_gives_the_greedy_ids_of_transformers(family: str, tmp_path: Path) -> None:
    """Lost otherwise: the model that answers in vLLM would not be the model that was evaluated."""
    import transformers

    model = model_of(family)
    checkpoint.save(model, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    for prompt in PROMPTS:
        whole = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=49, pad_token_id=49
        )
        expected = whole[0, len(prompt) :].tolist()
        answer = generate(model, [prompt], max_tokens=20, **GREEDY | {"stop": [49]})[0]
        assert answer == expected[: expected.index(49)] if 49 in expected else answer == expected
    assert len({tuple(generate(model, [p], max_tokens=20, **GREEDY)[0]) for p in PROMPTS}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_gives_equal_ids_in_batches_without_cache_and_streamed(family: str) -> None:
    """Lost otherwise: an answer would depend on its neighbours, or chat would differ from evaluation."""
    model = model_of(family).train()
    alone = [generate(model, [prompt], max_tokens=12, **GREEDY)[0] for prompt in PROMPTS]
    assert generate(model, PROMPTS, max_tokens=12, **GREEDY) == alone
    assert generate(model, PROMPTS, max_tokens=12, use_cache=False, **GREEDY) == alone
    assert [list(stream(model, prompt, max_tokens=12, **GREEDY)) for prompt in PROMPTS] == alone
    assert model.training


def random_prefix(family: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of three positions."""
    heads = 4 if family == "gpt2" else 2
    return [(torch.randn(1, heads, 3, 8), torch.randn(1, heads, 3, 8))] * 2


def test_cache_is_written_while_gradients_are_enabled() -> None:
    model, cache = model_of("llama").eval(), KVCache(4)
    model(torch.tensor([[1, 2, 3]]), cache=cache)
    assert model(torch.tensor([[4]]), cache=cache).shape == (1, 1, 50)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fixed", [False, True])
def test_generate_takes_a_float32_prefix_under_autocast(
    family: str, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a prefix-tuned model dies at its second token on a GPU, or its cache is cast whole at each."""
    made: list[StaticKVCache] = []

    def cache(capacity: int) -> StaticKVCache:
        made.append(StaticKVCache(capacity))
        return made[-1]

    monkeypatch.setattr("pipeline.inference.generation._has_fixed_shapes", lambda device: fixed)
    monkeypatch.setattr("pipeline.inference.generation._cache", cache)
    model = model_of(family).eval()
    with torch.autocast("cpu", torch.bfloat16):
        answers = generate(model, PROMPTS, max_tokens=5, prefix=random_prefix(family), **GREEDY)
        precision = FlatModel(model).cache.dtype
    assert [len(answer) for answer in answers] == [5] * len(PROMPTS)
    dtypes = {part.dtype for layer in made[0]._layers.values() for part in layer} if fixed else {precision}
    assert dtypes == {torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_puts_the_prefix_before_every_prompt(family: str) -> None:
    """Lost otherwise: a prefix-tuned model could be trained and never used."""
    model = model_of(family).eval()
    cache = KVCache(3)
    with torch.no_grad():
        model(torch.tensor([[8, 8, 4]]), cache=cache)
    prefix = [cache._layers[layer] for layer in range(2)]
    whole = [generate(model, [[8, 8, 4, *prompt]], max_tokens=6, **GREEDY)[0] for prompt in PROMPTS]
    assert generate(model, PROMPTS, max_tokens=6, prefix=prefix, **GREEDY) == whole
    assert generate(model, PROMPTS, max_tokens=6, prefix=prefix, use_cache=False, **GREEDY) == whole


def test_generate_ends_before_a_stop_id() -> None:
    """Lost otherwise: answers would carry markers, or run on after them."""
    model = model_of("llama")
    full = generate(model, PROMPTS, max_tokens=12, **GREEDY)
    stop = full[0][4]
    stopped = generate(model, PROMPTS, max_tokens=12, **GREEDY | {"stop": {stop}})
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in full]
    assert list(stream(model, PROMPTS[0], max_tokens=12, **GREEDY | {"stop": {stop}})) == stopped[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_ends_where_the_context_is_full(family: str) -> None:
    """Lost otherwise: long chats would crash or read positions that were never trained."""
    model = model_of(family, context_length=10)
    answers = generate(model, PROMPTS, max_tokens=99, **GREEDY)
    assert [len(answer) for answer in answers] == [7, 9, 3, 8]
    assert answers == [generate(model, [prompt], max_tokens=99, **GREEDY)[0] for prompt in PROMPTS]
    assert len(list(stream(model, PROMPTS[2], max_tokens=99, **GREEDY))) == 3
    with pytest.raises(UserError, match="prompt 1 has 10 tokens, the context 10: no room for an answer"):
        generate(model, [[1], [2] * 10], max_tokens=1, **GREEDY)


def test_generate_repeats_with_its_seed() -> None:
    """Lost otherwise: a sample in a report could never be made again."""
    model = model_of("qwen3")
    options = {"max_tokens": 15, "temperature": 1.0, "top_k": 20, "top_p": 0.9, "stop": ()}
    runs = [generate(model, PROMPTS, **options, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    with pytest.raises(ValueError, match="explicit generator"):
        generate(model, PROMPTS, **options)


@pytest.mark.parametrize("fixed", [False, True])
def test_generate_draws_each_prompt_by_its_own_seed(fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a served answer would depend on the other texts of its request; on a GPU too."""
    monkeypatch.setattr("pipeline.inference.generation._has_fixed_shapes", lambda device: fixed)
    model, options = model_of("qwen3"), {"max_tokens": 12, "temperature": 1.0, "top_k": 0, "top_p": 0.9, "stop": ()}
    seeds = [3, 1, 4, 1]
    together = generate(model, PROMPTS, **options, seeds=seeds)
    assert together == [generate(model, [p], **options, seeds=[s])[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert together != generate(model, PROMPTS, **options, seeds=[5, 6, 7, 8])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), top_k=st.integers(0, 12), top_p=st.floats(0.05, 1.0), heat=st.floats(0.2, 3.0))
def test_sampling_draws_ids_within_its_filters(seed: int, top_k: int, top_p: float, heat: float) -> None:
    """Lost otherwise: top-k or top-p would let unlikely ids through, or stop everything."""
    generator = torch.Generator().manual_seed(seed)
    logits_BV = torch.randn(1, 10, generator=generator) * 3
    probability = (logits_BV[0].double() / heat).softmax(-1)
    order = probability.argsort(descending=True).tolist()
    kept = order[: top_k or None]
    share, nucleus = probability[kept] / probability[kept].sum(), []
    for token, part in zip(kept, share.tolist(), strict=True):
        if nucleus and sum(p for _, p in nucleus) >= top_p + 1e-6:
            break
        nucleus.append((token, part))
    allowed = {token for token, _ in nucleus}
    numbers = torch.rand(200, generator=generator, dtype=torch.float64).tolist()
    assert set(pick(logits_BV.expand(200, -1), [Filter(heat, top_k, top_p)] * 200, numbers)) <= allowed
    drawn = Sampling(heat, top_k, top_p, generator).draw(logits_BV.expand(200, -1))
    assert set(drawn.tolist()) <= allowed
    assert Sampling(0, top_k, top_p, None).draw(logits_BV).item() == order[0]


def test_sampling_follows_the_distribution() -> None:
    """Lost otherwise: temperature would not mean what it says."""
    logits_BV = torch.tensor([[0.0, 1.0, 2.0]]).expand(20000, -1)
    drawn = Sampling(2.0, 0, 1.0, torch.Generator().manual_seed(0)).draw(logits_BV)
    evenly = [(number + 0.5) / 20000 for number in range(20000)]
    by_row = torch.tensor(pick(logits_BV, [Filter(2.0, 0, 1.0)] * 20000, evenly))
    for ids, tolerance in ((drawn, 0.02), (by_row, 1e-4)):
        shares = torch.bincount(ids, minlength=3) / 20000
        torch.testing.assert_close(shares, torch.tensor([0.0, 0.5, 1.0]).softmax(0), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.5), (3, 1.0)])
def test_pick_takes_the_likeliest_id_where_the_temperature_is_near_0(top_k: int, top_p: float) -> None:
    """Lost otherwise: logits over it are infinite, their probabilities no numbers, and the id is an arbitrary one."""
    logits_BV = torch.tensor([[5.0, 9.0, -30.0, 8.9]])
    for temperature in (1e-5, 1e-20, 1e-300):
        assert pick(logits_BV, [Filter(temperature, top_k, top_p)], [0.99]) == [1]


def test_pick_sorts_all_ids_where_the_likeliest_do_not_reach_top_p() -> None:
    """A flat distribution: 128 of 1,000 ids hold less than top_p; the nucleus has 500 of them."""
    logits_BV = torch.linspace(0, 1e-3, 1000)[None].expand(400, -1)
    numbers = [(number + 0.5) / 400 for number in range(400)]
    ids = pick(logits_BV, [Filter(1.0, 0, 0.5)] * 400, numbers)
    assert min(ids) >= 499
    assert len(set(ids)) == 400
    peaked = logits_BV.clone()
    peaked[::2, 7] = 20.0
    assert pick(peaked, [Filter(1.0, 0, 0.5)] * 400, numbers) == [7 if row % 2 == 0 else ids[row] for row in range(400)]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[]], {}, "prompt 0 is empty"),
        ([[1], [50]], {}, r"prompt 1 has an id outside 0\.\.49"),
        ([[1]], {"max_tokens": 0}, "max_tokens 0"),
        ([[1]], {"top_p": 0.0}, "top_p 0.0"),
        ([[1]], {"temperature": -1.0}, "temperature -1.0"),
    ],
)
def test_generate_refuses_bad_requests(prompts: list[list[int]], options: dict[str, object], message: str) -> None:
    """Lost otherwise: a bad request would end in a traceback of torch."""
    with pytest.raises(UserError, match=message):
        generate(model_of("llama"), prompts, **{"max_tokens": 3, **GREEDY, **options})
    assert generate(model_of("llama"), [], max_tokens=3, **GREEDY) == []
