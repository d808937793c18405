"""gpt.py: the numbers of transformers, and each optional input beside a plain pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F

from pipeline.errors import UserError
from pipeline.model.cache import KVCache
from pipeline.model.capture import Capture
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.model.hf_config import exported_config
from pipeline.model.hf_format import exported_tensors
from pipeline.model.layout import within_window
from tests.models import network

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")


def config_of(family: str, **changes: object) -> ModelConfig:
    gpt2 = family == "gpt2"
    fields: dict[str, object] = {
        "family": family,
        "n_layers": 3,
        "n_heads": 4,
        "n_kv_heads": 4 if gpt2 else 2,
        "head_dim": 12 if family == "qwen3" else 8,
        "logit_softcap": 5.0 if family == "nanochat" else None,
        "d_model": 32,
        "d_ff": 80,
        "context_length": 48,
        "dropout": 0.0,
        "tie_embeddings": True,
        "bias": family in ("gpt2", "qwen2"),
        "sliding_window": 5 if family == "mistral" else None,
        "rope_theta": 10000.0,
        "norm_epsilon": 1e-5,
        "vocab_size": 61,
    }
    return ModelConfig.model_validate(fields | changes)


def model_of(family: str, seed: int = 0, **changes: object) -> GPT:
    """A small model whose weights are large enough that mistakes show, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    model = GPT(config_of(family, **changes), generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def ids_of(seed: int, batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 61, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_gpt_computes_hidden_states_and_attentions_of_transformers(family: str) -> None:
    """Lost otherwise: distillation and attention guidance would learn from other layers than they name."""
    import transformers

    model = model_of(family)
    settings_ = exported_config(model.config, None, None, None, None)
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**settings_), attn_implementation="eager"
    ).eval()
    theirs.load_state_dict(exported_tensors(model), strict=False)
    ids_BT = ids_of(1, 2, 9)
    expected = theirs(ids_BT, output_hidden_states=True, output_attentions=True)
    with model.capturing(Capture(hidden=range(4), attentions=(0, 2))) as captured:
        logits_BTV = model(ids_BT)
    torch.testing.assert_close(logits_BTV, expected.logits, atol=1e-5, rtol=0)
    for layer in range(4):
        torch.testing.assert_close(captured.hidden[layer], expected.hidden_states[layer], atol=1e-5, rtol=0)
    assert sorted(captured.attentions) == [0, 2]
    for layer in (0, 2):
        torch.testing.assert_close(captured.attentions[layer], expected.attentions[layer], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits_BTV, model(ids_BT), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_gpt_draws_equal_weights_with_gpt2_deviations_from_one_seed(family: str) -> None:
    """Lost otherwise: two clean runs would train two models."""
    first = GPT(config_of(family), torch.Generator().manual_seed(5))
    second = GPT(config_of(family), torch.Generator().manual_seed(5))
    other = GPT(config_of(family), torch.Generator().manual_seed(6))
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.embed.weight, other.embed.weight)
    big = GPT(config_of(family, n_layers=8, d_ff=512), torch.Generator().manual_seed(5))
    assert big.blocks[0].mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert big.blocks[0].mlp.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_num_parameters_counts_tied_weights_once_without_memory(family: str, tied: bool) -> None:
    """Lost otherwise: a size estimate would need the model's own memory, or count tied weights twice."""
    shapes = GPT(config_of(family, tie_embeddings=tied), None)
    real = GPT(config_of(family, tie_embeddings=tied), torch.Generator())
    assert shapes.num_parameters() == real.num_parameters() == sum(p.numel() for p in real.parameters())
    assert (real.head.weight is real.embed.weight) == tied
    assert all(p.is_meta for p in shapes.parameters())
    real.requires_grad_(False)
    assert real.num_parameters(trainable=True) == 0


@settings(max_examples=15, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_forward_with_a_cache_equals_one_pass(family: str, cuts: list[int], seed: int) -> None:
    """Lost otherwise: chat would answer from another distribution than the evaluated one."""
    model, ids_BT = model_of(family), ids_of(seed, 2, sum(cuts))
    with torch.no_grad():
        cache = KVCache(sum(cuts))
        pieces = [model(piece, cache=cache) for piece in ids_BT.split(cuts, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, 1), model(ids_BT), atol=1e-5, rtol=0)
    assert cache.length == sum(cuts)


@settings(max_examples=10, deadline=None)
@given(family=st.sampled_from(FAMILIES), split=st.integers(1, 8), seed=st.integers(0, 99))
def test_forward_with_a_prefix_of_own_keys_equals_the_whole_text(family: str, split: int, seed: int) -> None:
    """Lost otherwise: prefix tuning would train against positions or keys that generation does not use."""
    model, ids_BT = model_of(family), ids_of(seed, 1, 10)
    with torch.no_grad():
        cache = KVCache(split)
        model(ids_BT[:, :split], cache=cache)
        prefix = [cache._layers[layer] for layer in range(3)]
        whole = model(ids_BT)[:, split:]
        rest_BT = ids_BT[:, split:]
        torch.testing.assert_close(model(rest_BT, prefix=prefix), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(rest_BT, prefix=prefix, cache=KVCache(10)), whole, atol=1e-5, rtol=0)
        # One prefix serves a whole batch, padding mask or not.
        both = model(rest_BT.expand(2, -1), prefix=prefix, mask=torch.ones(2, 10 - split, dtype=torch.bool))
        torch.testing.assert_close(both, whole.expand(2, -1, -1), atol=1e-5, rtol=0)


def test_backward_reaches_the_prefix() -> None:
    """Lost otherwise: prefix tuning would train nothing."""
    prefix = [tuple(torch.zeros(1, 2, 4, 8, requires_grad=True) for _ in "kv") for _ in range(3)]
    model_of("llama")(ids_of(0, 2, 5), prefix=prefix).square().sum().backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in (pair[1] for pair in prefix))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_forward_ignores_padding(family: str, side: str) -> None:
    """Lost otherwise: a message's class would depend on the batch it stands in."""
    model, ids_BT = model_of(family), ids_of(3, 1, 6)
    pad, first = torch.full((1, 4), 9), 4 if side == "left" else 0
    padded = torch.cat((pad, ids_BT) if side == "left" else (ids_BT, pad), 1)
    mask = torch.zeros(1, 10, dtype=torch.bool)
    mask[:, first : first + 6] = True
    positions_BT = (mask.cumsum(1) - 1).clamp(min=0)
    out = model(padded, mask=mask, positions_BT=positions_BT)
    assert out.isfinite().all()
    torch.testing.assert_close(out[:, first : first + 6], model(ids_BT), atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None)
@given(family=st.sampled_from(FAMILIES), lengths=st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_forward_keeps_packed_documents_apart(family: str, lengths: list[int]) -> None:
    """Lost otherwise: packing would leak one document into the next."""
    model = model_of(family)
    documents = [ids_of(number, 1, length) for number, length in enumerate(lengths)]
    # Alternating 0 and 1: only the border between neighbours matters.
    segments = torch.cat([torch.full_like(ids, number % 2) for number, ids in enumerate(documents)], 1)
    alone = torch.cat([model(ids) for ids in documents], 1)
    for model.static_shapes in (False, True):  # as rows, and under a mask
        packed = model(torch.cat(documents, 1), segments_BT=segments)
        torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_takes_embeddings_for_ids(family: str) -> None:
    """Lost otherwise: prompt tuning and adversarial smoothing would have no way in."""
    model, ids_BT = model_of(family), ids_of(4, 2, 6)
    assert torch.equal(model(embeddings_BTD=model.embed(ids_BT)), model(ids_BT))
    assert torch.equal(model.logits(model.hidden(ids_BT)), model(ids_BT))


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_with_an_additive_mask_equals_the_boolean_one(family: str) -> None:
    """Lost otherwise: biases on attention (ALiBi, guidance) could not be given."""
    model, ids_BT = model_of(family), ids_of(4, 1, 6)
    rule = within_window(torch.ones(6, 6, dtype=torch.bool).tril()[None, None], model.config.sliding_window)
    added = torch.zeros(1, 1, 6, 6).masked_fill(~rule, -torch.inf)
    torch.testing.assert_close(model(ids_BT, mask=added), model(ids_BT, mask=rule), atol=1e-6, rtol=0)
    with model.capturing(Capture(attentions=(0, 1, 2))):
        written_out = model(ids_BT, mask=added)
    torch.testing.assert_close(written_out, model(ids_BT), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_classify_reads_the_last_real_token(side: str) -> None:
    """Lost otherwise: a padded message would be judged by its padding."""
    model, ids_BT = model_of("llama"), ids_of(3, 2, 6)
    model.add_score(3, torch.Generator().manual_seed(1))
    alone = model.classify(ids_BT)
    pad = torch.zeros(2, 3, dtype=torch.long)
    padded = torch.cat((pad, ids_BT) if side == "left" else (ids_BT, pad), 1)
    mask = torch.cat((pad.bool(), ids_BT >= 0) if side == "left" else (ids_BT >= 0, pad.bool()), 1)
    torch.testing.assert_close(model.classify(padded, mask), alone, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="no classification head"):
        model_of("llama").classify(ids_BT)


@pytest.mark.parametrize("family", FAMILIES)
def test_gpt_learns_a_repeated_line_with_every_parameter(family: str) -> None:
    """Lost otherwise: gradients would not reach some part of the network."""
    torch.manual_seed(0)
    model = GPT(config_of(family), torch.Generator().manual_seed(0))
    ids_BT = ids_of(5, 1, 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)  # at twice it the loss has spikes
    for _ in range(60 if family != "nanochat" else 150):  # without scales logits grow slowly
        loss = F.cross_entropy(model(ids_BT[:, :-1])[0], ids_BT[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_dropout_acts_in_training_mode_only() -> None:
    """Lost otherwise: evaluation would be random, or regularisation absent."""
    model, ids_BT = model_of("gpt2", dropout=0.5), ids_of(1, 1, 6)
    assert torch.equal(model(ids_BT), model(ids_BT))
    model.train()
    torch.manual_seed(3)
    first = model(ids_BT)
    assert not torch.equal(first, model(ids_BT))
    torch.manual_seed(3)
    assert torch.equal(first, model(ids_BT))


def test_gpt_refuses_inputs_that_do_not_fit() -> None:
    """Lost otherwise: a mistake would become a wrong number or a crash deep inside torch."""
    model, ids_BT = model_of("llama"), ids_of(1, 1, 6)
    with pytest.raises(ValueError, match="either ids_BT or embeddings_BTD"):
        model()
    with pytest.raises(ValueError, match="49 tokens do not fit in a context of 48"):
        model(ids_of(1, 1, 49))
    with pytest.raises(ValueError, match=r"expected \[B, 6\]"):
        model(ids_BT, mask=torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="prefix has 1 layers, the model 3"):
        model(ids_BT, prefix=[(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8))])
    with pytest.raises(ValueError, match="room for 4 positions, 6"):
        model(ids_BT, cache=KVCache(4))
    with pytest.raises(ValidationError, match="head_dim is 7"):
        config_of("llama", head_dim=7)
    with pytest.raises(ValidationError, match="no biases in its MLP"):
        config_of("qwen3", mlp_bias=True)
    with pytest.raises(ValidationError, match="family mistral has no biases; set bias to false"):
        config_of("mistral", bias=True)
    with pytest.raises(ValidationError, match="family llama has no sliding window"):
        config_of("llama", sliding_window=4)


def test_forward_attends_within_the_sliding_window_alone() -> None:
    """Lost otherwise: the window of Mistral would be ignored, or one layer off, where a text is longer than it."""
    model, ids_BT = model_of("mistral", n_layers=1, sliding_window=3), ids_of(2, 1, 9)
    changed_BT = ids_BT.clone()
    changed_BT[0, 4] = (ids_BT[0, 4] + 1) % 61
    same_T = (model(ids_BT) == model(changed_BT)).all(-1)[0]
    assert same_T.tolist() == [True] * 4 + [False] * 3 + [True] * 2
    within = model_of("mistral", sliding_window=9)  # as long as the text: no mask at all, and the same bits
    assert torch.equal(within(ids_BT), model_of("mistral", sliding_window=None)(ids_BT))


@pytest.mark.parametrize(("tied", "spread"), [(True, 0.02), (False, 1.0)])
def test_gpt_starts_untied_embeddings_at_deviation_one(tied: bool, spread: float) -> None:
    """Drawn at 0.02 it drowns beside what the blocks add, and rare words are never told apart."""
    model = GPT(config_of("qwen3", tie_embeddings=tied), torch.Generator().manual_seed(0))
    # 61 * 32 draws: their standard deviation is within 2 % of the true one (1 / sqrt(2 * 1952) = 1.6 %), times three
    assert float(model.embed.weight.detach().std()) == pytest.approx(spread, rel=0.05)


def test_dropout_acts_in_embeddings_and_in_every_block() -> None:
    """And nowhere in evaluation mode, where two passes must be equal."""
    model = network("gpt2", dropout=0.5)
    ids = torch.arange(8)[None]
    assert torch.equal(model.eval()(ids), model(ids))
    for part in (model, *model.blocks):
        for module in (model, *model.blocks):
            module.dropout = 0.5 if module is part else 0.0
        for block in model.blocks:
            block.attention.dropout = 0.0
        model.train()
        assert not torch.equal(model(ids), model(ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_projections_start_as_the_identity_and_learn(family: str) -> None:
    model = GPT(config_of(family), torch.Generator().manual_seed(5), zero_projections=True)
    usual = GPT(config_of(family), torch.Generator().manual_seed(5))
    ids_BT = ids_of(1, 2, 7)
    with model.capturing(Capture(hidden=[0, 1])) as captured:
        model(ids_BT)
    assert torch.equal(captured.hidden[0], captured.hidden[1])
    assert torch.equal(model.embed.weight, usual.embed.weight)  # what else is drawn stays the same
    model(ids_BT).square().sum().backward()
    assert all(block.mlp.down.weight.grad.abs().sum() > 0 for block in model.blocks)


def test_logits_are_capped_by_tanh() -> None:
    capped, plain = (model_of("nanochat", logit_softcap=cap) for cap in (0.5, None))
    ids_BT = ids_of(1, 2, 7)
    logits = plain(ids_BT)
    assert logits.abs().max() > 0.5
    torch.testing.assert_close(capped(ids_BT), 0.5 * torch.tanh(logits / 0.5))


def test_add_score_refuses_a_family_without_classifiers() -> None:
    with pytest.raises(UserError, match="nanochat model has no classification head in transformers"):
        model_of("nanochat").add_score(2, torch.Generator())
