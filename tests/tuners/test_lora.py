"""Tuner lora agrees with peft: same files, same logits."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.config.recipe import HEADLESS
from pipeline.errors import UserError
from pipeline.files import sha256_of
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.tuners.lora import LoRALinear, Settings, build, load_adapter
from tests.models import network

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
HEADS = [(family, score) for family in FAMILIES for score in (False, True) if not (score and family in HEADLESS)]
IDS_BT = torch.randint(0, 28, (2, 8), generator=torch.Generator().manual_seed(0))


def model_of(family: str, score: bool = False) -> GPT:
    return network(family, labels=3 if score else 0).eval()


PLAIN = {"rank_stabilised": False, "decompose": False, "merged": True}


def tuned(model: GPT, targets: tuple[str, ...] = ("attention", "mlp"), **variant: bool):
    """Gives the model an adapter with random weights, as if trained; returns its tuner."""
    tuner = build(Settings(rank=3, alpha=6.0, dropout=0.0, targets=list(targets), **(PLAIN | variant)))
    tuner.apply(model, torch.Generator().manual_seed(2), list)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in tuner.groups(model)[0]["params"]:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return tuner


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"content": "<|pad|>", "id": 29}], "model": {}})
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|pad|>"}))
    return folder


@pytest.mark.parametrize("variant", [{}, {"rank_stabilised": True}, {"decompose": True}], ids=["plain", "rs", "dora"])
@pytest.mark.parametrize(("family", "score"), HEADS)
def test_peft_gives_our_logits_with_our_lora_adapter_on_the_exported_base(
    family: str, score: bool, variant: dict[str, bool], tmp_path: Path, tokenizer: Path
) -> None:
    """Lost otherwise: an adapter served by vLLM or peft would answer differently from the evaluated model."""
    import peft
    import transformers

    model = model_of(family, score)
    labels = ["ham", "spam", "other"] if score else None
    checkpoint.save(model, tmp_path / "base", tokenizer=tokenizer, labels=labels)
    tuner = tuned(model, **variant)
    tuner.save_adapter(model, tmp_path / "adapter", None)
    kind = transformers.AutoModelForSequenceClassification if score else transformers.AutoModelForCausalLM
    theirs = peft.PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "adapter").eval()
    ours = model.classify(IDS_BT) if score else model(IDS_BT)
    torch.testing.assert_close(theirs(input_ids=IDS_BT).logits, ours, atol=1e-5, rtol=0)
    fresh = checkpoint.load(tmp_path / "base")
    before = fresh.classify(IDS_BT) if score else fresh(IDS_BT)
    assert (before - ours).abs().max() > 1e-2
    load_adapter(fresh, tmp_path / "adapter")
    torch.testing.assert_close(fresh.classify(IDS_BT) if score else fresh(IDS_BT), ours, atol=0, rtol=0)
    # An adapter that peft wrote is read too.
    theirs.save_pretrained(tmp_path / "peft")
    again = checkpoint.load(tmp_path / "base")
    load_adapter(again, tmp_path / "peft")
    torch.testing.assert_close(again.classify(IDS_BT) if score else again(IDS_BT), ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_changes_its_targets_alone(family: str, tmp_path: Path) -> None:
    """Lost otherwise: `targets: [attention]` would train the MLP as well."""
    for targets, inside in ((("attention",), {"attention"}), (("mlp",), {"mlp"})):
        model = model_of(family)
        tuner = tuned(model, targets)
        wrapped = [name for name, module in model.named_modules() if isinstance(module, LoRALinear)]
        assert {name.split(".")[2] for name in wrapped} == inside
        assert {name.rsplit(".", 1)[1] for name in tuner.state(model)} == {"lora_A", "lora_B"}
        assert not model.embed.weight.requires_grad
        tuner.save_adapter(model, tmp_path / targets[0], None)
        load_adapter(fresh := model_of(family), tmp_path / targets[0])
        assert torch.equal(fresh(IDS_BT), model(IDS_BT))


def test_lora_state_restores_the_trained_model() -> None:
    """Lost otherwise: a resumed LoRA run would lose part of what it learned."""
    model = model_of("llama", score=True)
    tuner = tuned(model)
    state = {name: value.clone() for name, value in tuner.state(model).items()}
    assert "score.weight" in state
    other = model_of("llama", score=True)
    tuner.apply(other, torch.Generator().manual_seed(9), list)
    assert not other.load_state_dict(state, strict=False).unexpected_keys
    assert torch.equal(other.classify(IDS_BT), model.classify(IDS_BT))


def test_lora_writes_equal_bytes_for_equal_adapters(tmp_path: Path) -> None:
    """Lost otherwise: dvc.lock would change with every run."""
    for place in ("a", "b"):
        model = model_of("gpt2")
        tuned(model).save_adapter(model, tmp_path / place, "base")
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert config["target_modules"] == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    assert config["fan_in_fan_out"] is True


def test_lora_drops_out_the_update_in_training_only() -> None:
    """Lost otherwise: evaluation would be random."""
    model = model_of("llama")
    tuner = build(Settings(rank=2, alpha=2.0, dropout=0.5, targets=["mlp"], **PLAIN))
    tuner.apply(model, torch.Generator(), list)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoRALinear):
                module.lora_B.fill_(1.0)
    assert torch.equal(model.eval()(IDS_BT), model(IDS_BT))
    assert not torch.equal(model.train()(IDS_BT), model(IDS_BT))


def test_load_adapter_refuses_adapters_that_do_not_fit(tmp_path: Path) -> None:
    """Lost otherwise: another model's adapter, or an unknown kind, would load and answer nonsense."""
    model = model_of("llama")
    tuned(model).save_adapter(model, tmp_path / "a", None)
    with pytest.raises(UserError, match="has no place in a gpt2 model"):
        load_adapter(model_of("gpt2"), tmp_path / "a")
    wide = GPT(model.config.model_copy(update={"d_ff": 40}), torch.Generator())
    with pytest.raises(UserError, match=r"mlp.* has shape .* this base needs"):
        load_adapter(wide, tmp_path / "a")
    config = tmp_path / "a/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rank_pattern": {"q": 4}}))
    with pytest.raises(UserError, match=r"\['rank_pattern'\] set; expected LoRA of one rank"):
        load_adapter(model_of("llama"), tmp_path / "a")
    with pytest.raises(UserError, match="names 'head', which no projection"):
        build(Settings(rank=1, alpha=1.0, dropout=0.0, targets=["head"], **PLAIN)).insert(
            model_of("llama"), torch.Generator(), lambda _text: []
        )


def test_lora_scales_by_the_root_of_the_rank_and_keeps_row_norms_when_so_set() -> None:
    """Lost otherwise: the settings would be names without their mathematics (rsLoRA eq. 5, DoRA eq. 5)."""
    base = torch.nn.Linear(6, 5)
    settings = Settings(
        rank=4, alpha=8.0, dropout=0.9, targets=["mlp"], rank_stabilised=True, decompose=False, merged=True
    )
    assert LoRALinear(base, settings).scale == 4.0
    decomposed = LoRALinear(base, settings.model_copy(update={"decompose": True}))
    decomposed.initialise(torch.Generator().manual_seed(0))
    x = torch.ones(3, 6)
    assert decomposed.training  # dropout is on the update's input alone, and the update is still zero
    torch.testing.assert_close(decomposed(x), base(x))
    pruned = torch.nn.Linear(6, 5)
    with torch.no_grad():
        pruned.weight[0] = 0.0  # a row without a direction
    assert bool(torch.isfinite(LoRALinear(pruned, settings.model_copy(update={"decompose": True}))(x)).all())
    with torch.no_grad():
        decomposed.lora_B.normal_(generator=torch.Generator().manual_seed(1))
    before = base.weight.norm(dim=1).clone()
    # only directions were trained: every row keeps its norm
    torch.testing.assert_close(decomposed.merged().weight.norm(dim=1), before)
