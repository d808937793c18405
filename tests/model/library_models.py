"""Small models of architectures that transformers computes, written as folders by transformers itself."""

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 60
_SHARED = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_GEMMA = _BERT | {"num_key_value_heads": 2, "head_dim": 8}


def network(name: str, vocabulary: int = VOCABULARY) -> Any:
    """A transformers model of fresh weights, larger than their usual start so that every part matters."""
    import transformers as t

    shared = _SHARED | {"vocab_size": vocabulary}
    torch.manual_seed(7)
    made: dict[str, Any] = {
        "bert": lambda: t.BertModel(t.BertConfig(**_BERT, **shared)),
        "distilbert": lambda: t.DistilBertModel(
            t.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **shared)
        ),
        "t5": lambda: t.T5ForConditionalGeneration(
            t.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, **shared)
        ),
        "gemma": lambda: t.GemmaForCausalLM(t.GemmaConfig(**_GEMMA, max_position_embeddings=128, **shared)),
        "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**_GEMMA, max_position_embeddings=128, **shared)),
        "phi": lambda: t.PhiForCausalLM(t.PhiConfig(**_BERT, max_position_embeddings=128, **shared)),
    }
    model = made[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


DECODERS, ENCODERS, SEQ2SEQ = ("gemma", "gemma2", "phi"), ("bert", "distilbert"), ("t5",)
ALL = (*ENCODERS, *SEQ2SEQ, *DECODERS)


def written(name: str, folder: Path, vocabulary: int = VOCABULARY) -> Path:
    """The model's folder."""
    network(name, vocabulary).save_pretrained(folder)
    return folder
