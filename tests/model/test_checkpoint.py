"""checkpoint.py: folders of transformers load in ours and ours in theirs, with equal logits; damage is named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import plugins
from pipeline.errors import UserError
from pipeline.files import sha256_of
from pipeline.model import checkpoint, open_weights
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.model.hf_config import model_config
from pipeline.model.hf_format import exported_name, internal_name
from pipeline.tokenizer import train
from tests.models import network

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
ROTARY = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
ROTARY |= {"vocab_size": 61, "max_position_embeddings": 64}
THEIRS: dict[str, dict[str, object]] = {
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "vocab_size": 61,
    },
    "gpt2-untied": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "vocab_size": 61,
        "tie_word_embeddings": False,
        "n_inner": 48,
    },
    "llama": {"model_type": "llama", **ROTARY, "num_key_value_heads": 4},
    "llama-grouped-tied": {
        "model_type": "llama",
        **ROTARY,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "llama-biased-wide": {
        "model_type": "llama",
        **ROTARY,
        "num_key_value_heads": 1,
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 12,
    },
    "llama-attention-bias": {"model_type": "llama", **ROTARY, "attention_bias": True, "rms_norm_eps": 1e-3},
    "llama-3.2": {
        "model_type": "llama",
        **ROTARY,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_theta": 5000.0, **LLAMA3},
    },
    "qwen3": {"model_type": "qwen3", **ROTARY, "num_key_value_heads": 2, "head_dim": 16},
    "qwen3-tied": {
        "model_type": "qwen3",
        **ROTARY,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
    },
    "qwen2": {"model_type": "qwen2", **ROTARY, "num_key_value_heads": 2, "rope_theta": 1e6},
    "qwen2-tied": {"model_type": "qwen2", **ROTARY, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", **ROTARY, "num_key_value_heads": 2, "head_dim": 12, "sliding_window": None},
    "mistral-windowed": {"model_type": "mistral", **ROTARY, "num_key_value_heads": 2, "sliding_window": 7},
    "arcee": {"model_type": "arcee", **ROTARY, "num_key_value_heads": 2, "head_dim": 12, "mlp_bias": True},
    "nanochat": {"model_type": "nanochat", **ROTARY, "num_key_value_heads": 2, "final_logit_softcapping": 2.0},
    "nanochat-uncapped-tied": {
        "model_type": "nanochat",
        **ROTARY,
        "final_logit_softcapping": None,
        "tie_word_embeddings": True,
        "attention_bias": True,
    },
}
SPECIAL = {"bos_token_id": None, "eos_token_id": 59, "pad_token_id": 60}


def theirs_of(name: str, kind: str = "CausalLM", **more: object):
    """A random model of transformers', every weight moved off its initial value (norms and biases too)."""
    import transformers

    torch.manual_seed(0)
    fields = THEIRS[name] | SPECIAL | more
    config = transformers.AutoConfig.for_model(**fields)
    model = getattr(transformers, f"AutoModelFor{kind}").from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def ids_of(batch: int = 2, length: int = 20) -> torch.Tensor:
    return torch.randint(0, 58, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """The files of a tokenizer, as far as a model folder needs them."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    added = [
        {"content": "<|endoftext|>", "id": 59},
        {"content": "<|pad|>", "id": 60},
        {"content": "<|end|>", "id": 58},
    ]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"vocab": {}}}))
    settings = {"eos_token": "<|endoftext|>", "pad_token": {"content": "<|pad|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "ranks.tiktoken").write_text("IQ== 0\n")
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small Llama folder of ours."""
    folder = tmp_path / "saved"
    checkpoint.save(ours_of("llama-grouped-tied"), folder)
    return folder


def ours_of(name: str, **changes: object) -> GPT:
    config = model_config(dict(THEIRS[name]), "test").model_copy(update=changes)
    return GPT(config, torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("name", THEIRS)
def test_load_computes_as_transformers_and_save_goes_back(name: str, tmp_path: Path) -> None:
    """Lost otherwise: open weights would compute other numbers here, and ours elsewhere."""
    import transformers

    theirs = theirs_of(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = checkpoint.load(tmp_path / "theirs")
    ids_BT, logits_BTV = ids_of(), theirs(ids_of()).logits
    torch.testing.assert_close(ours(ids_BT), logits_BTV, atol=1e-5, rtol=0)
    checkpoint.save(ours, tmp_path / "ours")
    back, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(back) is type(theirs)
    assert not any(info.values()), info
    torch.testing.assert_close(back(ids_BT).logits, logits_BTV, atol=1e-5, rtol=0)
    stored = load_file(tmp_path / "ours/model.safetensors")
    assert set(stored) == set(load_file(tmp_path / "theirs/model.safetensors"))
    assert checkpoint.load(tmp_path / "ours").config == ours.config


def test_load_reads_configs_of_older_transformers(tmp_path: Path) -> None:
    """Lost otherwise: Llama 3.2 and SmolLM2, published before transformers 5, would rotate wrongly."""
    theirs = theirs_of("llama-3.2")
    theirs.save_pretrained(tmp_path / "m")
    path = tmp_path / "m/config.json"
    raw = json.loads(path.read_text())
    del raw["rope_parameters"], raw["head_dim"]
    path.write_text(json.dumps(raw | {"rope_theta": 5000.0, "rope_scaling": LLAMA3, "rope_interleaved": False}))
    torch.testing.assert_close(checkpoint.load(tmp_path / "m")(ids_of()), theirs(ids_of()).logits, atol=1e-5, rtol=0)


def test_save_refuses_an_unmerged_adapter(tmp_path: Path) -> None:
    """Lost otherwise: the folder would miss what the adapter learned."""
    model = ours_of("llama")
    lora = plugins.load("tuners", "lora")
    settings = lora.Settings(
        rank=1, alpha=1.0, dropout=0.0, targets=["mlp"], rank_stabilised=False, decompose=False, merged=True
    )
    lora.build(settings).apply(model, torch.Generator(), list)
    with pytest.raises(ValueError, match="merge the adapter before saving"):
        checkpoint.save(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "llama-grouped-tied", "mistral-windowed", "qwen2", "qwen3", "qwen3-tied"]
)
def test_load_and_save_classifiers_of_transformers(name: str, tmp_path: Path, tokenizer: Path) -> None:
    """Lost otherwise: a spam filter served elsewhere would give other answers than the evaluated one."""
    import transformers

    labels = {"id2label": {0: "ham", 1: "spam", 2: "çöp"}, "label2id": {"ham": 0, "spam": 1, "çöp": 2}}
    theirs = theirs_of(name, "SequenceClassification", **labels)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = checkpoint.load(tmp_path / "theirs")
    names = checkpoint.labels(tmp_path / "theirs")
    assert names == ["ham", "spam", "çöp"]
    ids_BT = ids_of()
    ids_BT[0, 12:] = 60
    mask_BT = ids_BT != 60
    scores_BC = theirs(ids_BT, attention_mask=mask_BT.long()).logits
    torch.testing.assert_close(ours.classify(ids_BT, mask_BT), scores_BC, atol=1e-5, rtol=0)
    checkpoint.save(ours, tmp_path / "ours", tokenizer=tokenizer, labels=names)
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(back(ids_BT, attention_mask=mask_BT.long()).logits, scores_BC, atol=1e-5, rtol=0)
    assert back.config.id2label == labels["id2label"]
    again = checkpoint.load(tmp_path / "ours")
    assert torch.equal(again.classify(ids_BT, mask_BT), ours.classify(ids_BT, mask_BT))
    if not ours.config.tie_embeddings:
        with pytest.raises(UserError, match="classifier without a language head"):
            again(ids_BT)


def test_save_writes_missing_gpt2_biases_as_zeros(tmp_path: Path) -> None:
    """Lost otherwise: nanoGPT's bias-free benchmark could be trained and never exported."""
    import transformers

    ours = ours_of("gpt2", bias=False)
    checkpoint.save(ours, tmp_path / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(back(ids_of()).logits, ours(ids_of()), atol=1e-5, rtol=0)
    assert not any(name.endswith("bias") for name in checkpoint.load(tmp_path / "ours").state_dict())


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_load_reads_shards_half_precision_and_names_without_a_root(name: str, tmp_path: Path) -> None:
    """Lost otherwise: real open weights (sharded, bfloat16, GPT-2's bare names) would be refused."""
    import transformers

    theirs_of(name).to(torch.bfloat16).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "shards", dtype=torch.float32)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    ours = checkpoint.load(tmp_path / "shards")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    torch.testing.assert_close(ours(ids_of()), theirs(ids_of()).logits, atol=1e-5, rtol=0)
    assert len(open_weights.pin(tmp_path / "shards")) == 64
    root = "transformer." if name == "gpt2" else "model."
    bare = {key.removeprefix(root): value.contiguous() for key, value in theirs.state_dict().items()}
    if name == "gpt2":
        bare |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)}
        del bare["lm_head.weight"]
    theirs.config.save_pretrained(tmp_path / "bare")
    save_file(bare, tmp_path / "bare/model.safetensors")
    assert torch.equal(checkpoint.load(tmp_path / "bare")(ids_of()), ours(ids_of()))


def test_save_gives_equal_bytes_for_equal_models(tmp_path: Path) -> None:
    """Lost otherwise: dvc.lock would change with every run."""
    whole = tmp_path / "whole"
    vocabulary = train(["Merhaba dünya, merhaba ay. " * 9], 262, "gpt2")
    vocabulary.save(whole)
    for place in ("a", "b/c"):
        metadata = {"version": 2, "tasks": [{"name": "next_token"}], "b": 1, "a": [2]}
        checkpoint.save(ours_of("qwen3"), tmp_path / place, tokenizer=whole, metadata=metadata)
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b/c")
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "ranks.tiktoken",
        "tohum-tokenizer.json",
        "tohum.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((tmp_path / "a/config.json").read_text())
    end = vocabulary.end_of_text
    assert (config["eos_token_id"], config["pad_token_id"], config["bos_token_id"]) == (end, vocabulary.pad, end)
    assert json.loads((tmp_path / "a/generation_config.json").read_text())["eos_token_id"] == end
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert set(manifest) == names - {"manifest.json"}


def test_save_lists_the_adapter_in_the_manifest(tmp_path: Path) -> None:
    """Lost otherwise: an adapter beside its model could be damaged unseen."""

    def adapter(folder: Path) -> None:
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")

    checkpoint.save(ours_of("llama"), tmp_path / "a", adapter=adapter)
    checkpoint.load(tmp_path / "a")
    (tmp_path / "a/adapter/adapter_config.json").write_text("{ }")
    with pytest.raises(UserError, match=r"adapter/adapter_config\.json: sha256 is"):
        checkpoint.load(tmp_path / "a")


def test_save_stores_tied_weights_once_and_load_ties_them(saved: Path) -> None:
    """Lost otherwise: fine-tuning a tied model would pull its two halves apart."""
    assert "lm_head.weight" not in load_file(saved / "model.safetensors")
    model = checkpoint.load(saved)
    assert model.head.weight is model.embed.weight
    assert all(p.requires_grad for p in model.parameters())


def test_load_finds_a_flipped_bit(saved: Path) -> None:
    """Lost otherwise: a damaged file would be evaluated, registered and served."""
    path = saved / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-7] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"model\.safetensors: sha256 is .* manifest\.json says"):
        checkpoint.load(saved)
    path.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing, manifest\.json lists it"):
        checkpoint.load(saved)


def changed(folder: Path, **fields: object) -> Path:
    """The folder with other values in config.json, as a foreign one without a manifest."""
    (folder / "manifest.json").unlink(missing_ok=True)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | fields))
    return folder


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "no-such"}, r"model_type is 'no-such': neither one of our families \(arcee, gpt2, llama,"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; we compute only 'silu'"),
        ({"quantization_config": {"bits": 4}}, "weights are quantized"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type is 'yarn'"),
        ({"num_key_value_heads": 3}, "does not divide"),
        ({"intermediate_size": 64}, r"gate_proj\.weight is \[80, 32\], expected \[64, 32\]"),
        ({"num_hidden_layers": 3}, r"missing: model\.layers\.2\.input_layernorm\.weight.* and more \(9\)"),
        ({"num_hidden_layers": 1}, r"not of this model: model\.layers\.1\.input_layernorm"),
        ({"tie_word_embeddings": False}, r"missing: lm_head\.weight"),
    ],
)
def test_load_names_tensors_that_do_not_fit(saved: Path, fields: dict[str, object], message: str) -> None:
    """Lost otherwise: a wrong model would run and answer nonsense."""
    with pytest.raises(UserError, match=message):
        checkpoint.load(changed(saved, **fields))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True; we compute only False or None"),
        ("mistral", {"sliding_window": -1}, "sliding_window is -1, expected a whole number from 1"),
        ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is .*compute only None"),
    ],
)
def test_load_refuses_windows_that_it_does_not_compute(
    name: str, fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    """Lost otherwise: long texts would be computed with another attention than the model was trained with."""
    checkpoint.save(ours_of(name), tmp_path / "m")
    with pytest.raises(UserError, match=message):
        checkpoint.load(changed(tmp_path / "m", **fields))


def test_load_takes_the_window_of_transformers_where_mistral_names_none(tmp_path: Path) -> None:
    """Lost otherwise: a config.json without the key, which is 4096 there, would have no window here."""
    checkpoint.save(ours_of("mistral"), tmp_path / "m")
    path = tmp_path / "m/config.json"
    raw = json.loads(path.read_text())
    assert raw.pop("sliding_window", 0) is None
    assert model_config(raw, "test").sliding_window == 4096


def test_load_names_a_missing_key_a_pickle_and_damage(saved: Path, tmp_path: Path) -> None:
    """Lost otherwise: pickled weights could run code; a cut download would end in a traceback."""
    changed(saved)
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not readable as safetensors"):
        checkpoint.load(saved)
    weights.rename(saved / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pytorch_model\.bin: pickled weights can run code"):
        checkpoint.load(saved)
    (saved / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="key num_attention_heads is missing"):
        checkpoint.load(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        checkpoint.load(saved)
    with pytest.raises(UserError, match=r"no config\.json there"):
        checkpoint.load(tmp_path / "nowhere")


def test_save_refuses_labels_that_do_not_fit_the_head(tmp_path: Path) -> None:
    """Lost otherwise: scores would be read under the wrong names."""
    model = ours_of("llama")
    model.add_score(2, torch.Generator())
    for labels in (None, ["ham"], ["ham", "ham"]):
        with pytest.raises(UserError, match="for a classification head of 2"):
            checkpoint.save(model, tmp_path / "m", labels=labels)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_internal_name_inverts_exported_name(family: str) -> None:
    """Lost otherwise: a tensor would land in another module of the same shape."""
    config = ModelConfig.model_validate(
        model_config(dict(THEIRS[family]), "test").model_dump() | {"tie_embeddings": False}
    )
    model = GPT(config, None)
    names = [*model.state_dict(), *dict(model.named_modules())]
    exported = [exported_name(family, name) for name in names if name]
    assert len(set(exported)) == len(exported)
    assert [internal_name(family, name) for name in exported] == [name for name in names if name]


@pytest.mark.parametrize("tied", [True, False])
def test_save_keeps_the_language_head_of_a_classifier(tied: bool, tmp_path: Path) -> None:
    """Lost otherwise: nobody could see what classification made a model forget, or teach it language again."""
    model = network("qwen3", labels=2, tie_embeddings=tied, context_length=32, vocab_size=61).eval()
    checkpoint.save(model, tmp_path / "m", labels=["ham", "spam"])
    read = checkpoint.load(tmp_path / "m")
    assert torch.equal(read(ids_of()), model(ids_of()))
    assert torch.equal(read.classify(ids_of()), model.classify(ids_of()))
