"""Adapters of every type that peft has: it loads our files onto the exported base with equal logits.

LoRA has a file of its own (test_lora.py).
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.recipe import HEADLESS
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.tuners import Adapter
from tests import variants
from tests.models import network
from tests.variants import Variant

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
HEADS = [(family, score) for family in FAMILIES for score in (False, True) if not (score and family in HEADLESS)]
IDS_BT = torch.randint(0, 28, (2, 8), generator=torch.Generator().manual_seed(0))
ADAPTERS = [v for v in variants.variants("tuners") if v.name != "lora" and isinstance(v.build(), Adapter)]


def tuned(variant: Variant, family: str, score: bool) -> tuple[GPT, Any]:
    """A model with an adapter of random weights, as if trained, and its tuner."""
    model = network(family, labels=3 if score else 0).eval()
    tuner = variant.build()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        tuner.apply(model, generator, lambda text: [ord(letter) % 30 for letter in text])
        for parameter in tuner.groups(model)[0]["params"]:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval(), tuner


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"content": "<|pad|>", "id": 29}], "model": {}})
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|pad|>"}))
    return folder


@pytest.mark.parametrize(("family", "score"), HEADS)
@pytest.mark.parametrize("variant", ADAPTERS, ids=str)
def test_peft_gives_our_logits_with_our_adapter_on_the_exported_base(
    variant: Variant, family: str, score: bool, tmp_path: Path, tokenizer: Path
) -> None:
    """Lost otherwise: an adapter served by peft would answer differently from the evaluated model."""
    import peft
    import transformers

    model, tuner = tuned(variant, family, score)
    ours = model.classify(IDS_BT) if score else model(IDS_BT)
    plain = network(family, labels=3 if score else 0)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    labels = ["ham", "spam", "other"] if score else None
    checkpoint.save(plain, tmp_path / "base", tokenizer=tokenizer, labels=labels)
    tuner.save_adapter(model, tmp_path / "adapter", None)
    peft_type = json.loads((tmp_path / "adapter/adapter_config.json").read_text())["peft_type"]
    if peft_type not in peft.PeftType.__members__:
        pytest.skip(f"peft has no adapter of type {peft_type}")
    kind = transformers.AutoModelForSequenceClassification if score else transformers.AutoModelForCausalLM
    theirs = peft.PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "adapter").eval()
    logits = theirs(input_ids=IDS_BT).logits
    # peft also gives the logits of a prompt's virtual tokens
    torch.testing.assert_close(logits if score else logits[:, -IDS_BT.shape[1] :], ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", [v for v in ADAPTERS if v.name in ("prefix", "prompt")], ids=str)
def test_checkpoint_refuses_virtual_tokens_of_another_model(variant: Variant, tmp_path: Path) -> None:
    """Lost otherwise: a prefix of another shape would be folded into nonsense."""
    model, tuner = tuned(variant, "llama", False)
    checkpoint.save(
        tuner.merge(model), tmp_path / "model", adapter=lambda folder: tuner.save_adapter(model, folder, None)
    )
    other = network("llama", n_layers=3, d_model=24)
    checkpoint.save(other, tmp_path / "other", adapter=lambda folder: tuner.save_adapter(model, folder, None))
    with pytest.raises(UserError, match="use the base model the adapter was made for"):
        checkpoint.load(tmp_path / "other")


def test_generate_counts_virtual_tokens_as_part_of_the_context() -> None:
    """Lost otherwise: generation would run past the positions the model knows."""
    from pipeline.inference.generation import generate

    model, _ = tuned(next(v for v in ADAPTERS if v.name == "prompt"), "gpt2", False)
    greedy = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop": ()}
    cached = generate(model, [[1, 2], [3]], max_tokens=50, **greedy)
    assert [len(answer) for answer in cached] == [16 - 5 - 2, 16 - 5 - 1]
    assert cached == generate(model, [[1, 2], [3]], max_tokens=50, use_cache=False, **greedy)
    with pytest.raises(UserError, match="no room for an answer"):
        generate(model, [[1] * 11], max_tokens=1, **greedy)
