"""Small networks for tests."""

import torch

from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT


def shape(family: str = "llama", **changes: object) -> ModelConfig:
    """Two layers, 16 wide, 30 tokens; whatever a test needs otherwise goes into `changes`."""
    gpt2 = family == "gpt2"
    fields: dict[str, object] = {
        "family": family, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2 if gpt2 else 1, "head_dim": 8, "d_model": 16,
        "d_ff": 32, "context_length": 16, "dropout": 0.0, "tie_embeddings": True, "rope_theta": 1e4,
        "bias": family in ("gpt2", "qwen2"), "norm_epsilon": 1e-5, "logit_softcap": None, "vocab_size": 30,
        "sliding_window": 6 if family == "mistral" else None,
    }  # fmt: skip
    return ModelConfig.model_validate(fields | changes)


def network(family: str = "llama", labels: int = 0, **changes: object) -> GPT:
    """A network of that shape with drawn weights, and a head for so many labels."""
    model = GPT(shape(family, **changes), torch.Generator().manual_seed(0))
    if labels:
        model.add_score(labels, torch.Generator().manual_seed(1))
    return model
