"""cuda_graph.py: decoding in fixed shapes gives the ids of the usual steps, and frees its cache."""

import gc
import shutil
import weakref

import pytest
import torch

from pipeline.inference.generation import generate
from pipeline.model.cache import StaticKVCache
from tests.inference.test_generation import FAMILIES, GREEDY, PROMPTS, model_of, random_prefix


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_gives_equal_ids_with_a_static_cache(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The static cache of a GPU, whose steps are recorded and replayed there."""
    model = model_of(family).eval()
    rows = [PROMPTS, [[7]], [[1, 2, 3], [4, 5, 6]]]
    usual = [generate(model, prompts, max_tokens=99, **GREEDY) for prompts in rows]
    prefix = random_prefix(family)
    behind = [generate(model, prompts, max_tokens=9, prefix=prefix, **GREEDY) for prompts in rows]
    monkeypatch.setattr("pipeline.inference.generation._has_fixed_shapes", lambda device: True)
    assert [generate(model, prompts, max_tokens=99, **GREEDY) for prompts in rows] == usual
    assert [generate(model, prompts, max_tokens=9, prefix=prefix, **GREEDY) for prompts in rows] == behind


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_generate_gives_equal_ids_with_compiled_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with fewer kernels; one compilation serves every step. A prompt is not compiled."""
    model = model_of("qwen3").eval()
    usual = [generate(model, prompts, max_tokens=9, **GREEDY) for prompts in (PROMPTS, PROMPTS[:1])]
    monkeypatch.setattr("pipeline.inference.generation._has_fixed_shapes", lambda device: True)
    model.static_shapes = True
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert [generate(model, prompts, max_tokens=9, **GREEDY) for prompts in (PROMPTS, PROMPTS[:1])] == usual
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


@pytest.mark.parametrize("fixed", [False, True])
def test_generate_frees_its_cache_without_garbage_collection(fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: gigabytes of keys and values a call, where garbage is collected late or never."""
    made: list[weakref.ref[StaticKVCache]] = []

    def cache(capacity: int) -> StaticKVCache:
        one = StaticKVCache(capacity)
        made.append(weakref.ref(one))
        return one

    monkeypatch.setattr("pipeline.inference.generation._has_fixed_shapes", lambda device: True)
    monkeypatch.setattr("pipeline.inference.generation._cache", cache)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    model = model_of("llama").eval()
    model.static_shapes = fixed
    gc.disable()
    try:
        generate(model, PROMPTS, max_tokens=5, **GREEDY)
        assert made[0]() is None
    finally:
        gc.enable()


def test_static_cache_casts_a_step_to_its_precision() -> None:
    """Norms may leave keys exact where values are not."""
    cache, two, one = StaticKVCache(4), torch.ones(1, 1, 2, 8, dtype=torch.bfloat16), torch.full((1, 1, 1, 8), 3.0)
    cache.extend(0, two, two)
    cache.advance(2)
    cache.start_decoding(one.device)
    keys, _ = cache.extend(0, one, one.bfloat16())
    assert keys.dtype == torch.bfloat16
    assert keys[0, 0, :, 0].tolist() == [1, 1, 3, 0]
