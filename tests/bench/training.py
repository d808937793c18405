"""Training speed of the embedded default's network beside transformers' own of the same shape, as JSON.

`python -m tests.bench.training`: forward and backward, float32, both in one process, interleaved; medians. The floor is
operations over rate: 6 x parameters x tokens over the measured rate of a 1024 x 1024 product.
"""

import json
import statistics
import time

import torch
from torch.nn import functional as F

from pipeline import config
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT

VOCABULARY, ROUNDS = 2048, 7


def main() -> None:
    """Prints one JSON object."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    params = config.load()
    torch.set_num_threads(params.compute.threads)
    shape = params.pretrain.model
    ours = GPT(ModelConfig(**shape.model_dump(), vocab_size=VOCABULARY), torch.Generator().manual_seed(1)).train()
    theirs = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY, hidden_size=shape.d_model, intermediate_size=shape.d_ff,
            num_hidden_layers=shape.n_layers, num_attention_heads=shape.n_heads, head_dim=shape.head_dim,
            num_key_value_heads=shape.n_kv_heads, tie_word_embeddings=shape.tie_embeddings,
        )
    ).train()  # fmt: skip
    batch = params.pretrain.ordering.settings("ordering", "pretrain.ordering").batch_size
    ids = torch.randint(0, VOCABULARY, (batch, shape.context_length + 1))
    steps = {"tohum": lambda: ours(ids[:, :-1]), "transformers": lambda: theirs(ids[:, :-1]).logits}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, logits in steps.items():
            began = time.perf_counter()
            F.cross_entropy(logits().flatten(0, 1), ids[:, 1:].flatten()).backward()
            seconds[name].append(time.perf_counter() - began)
    tokens = batch * shape.context_length
    speed = {name: round(tokens / statistics.median(times)) for name, times in seconds.items()}
    floor = round(_operations_per_second() / (6 * ours.num_parameters()))
    print(json.dumps({"bench": "training", "threads": params.compute.threads, "parameters": ours.num_parameters(),
                      "tokens_per_second": speed, "limit_tokens_per_second": floor}))  # fmt: skip


def _operations_per_second() -> float:
    a = torch.randn(1024, 1024)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * 1024**3 / statistics.median(times)


if __name__ == "__main__":
    main()
