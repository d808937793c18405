"""Tokens a second of generation beside nanoGPT's own generate, on its 10.7 M network with equal weights, as JSON.

    python -m tests.bench.generating [--tokens 200] [--rounds 5] [--threads 1]

One prompt of one id and 200 new ones, inside its context of 256, drawn at temperature 0.8 from the 200 likeliest (its
sample.py); in turns, CPU time of the process, medians. Batches beside batch 1 likewise, and both in bfloat16 where the
CPU has its products. The floor: every weight is read once a token, so bytes of the weights over the measured rate of
reading memory.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from time import process_time
from typing import Any

import torch

from pipeline.config.recipe import Compute
from pipeline.inference.generation import generate
from pipeline.model.device import has_bfloat16, lowered
from pipeline.model.gpt import GPT
from tests.bench.peers import NanoGPT, nanogpt_shape


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.generating", description=__doc__)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    ours = GPT(nanogpt_shape(6, 6, 384, 256), torch.Generator().manual_seed(1)).eval()
    peer = NanoGPT(ours).eval()
    ids = torch.randint(0, 65, (2, 64), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), peer.logits(ids), atol=2e-3, rtol=1e-3)  # GELU in its two forms

    def tohum(batch: int, precision: str = "float32") -> Callable[[], Any]:
        draws = torch.Generator().manual_seed(3)
        compute = Compute(
            device="cpu",
            threads=options.threads,
            precision=precision,
            compile=False,
            checkpoint_activations=False,
            weights="float32",
        )

        def run() -> Any:
            with lowered(ours, compute):
                return generate(
                    ours, [[1]] * batch, max_tokens=options.tokens, temperature=0.8, top_k=200, top_p=1.0, stop=(),
                    generator=draws,
                )  # fmt: skip

        return run

    contestants = {
        "tohum": tohum(1), "tohum_32": tohum(32),
        "nanogpt": lambda: peer.generate(torch.ones(1, 1, dtype=torch.long), options.tokens, 0.8, 200),
    }  # fmt: skip
    if has_bfloat16():
        contestants |= {"tohum_bf16": tohum(1, "bfloat16"), "tohum_bf16_32": tohum(32, "bfloat16")}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(options.rounds + 1):
        for name, run in contestants.items():
            began = process_time()
            run()
            if turn:  # the first is for warming up
                seconds[name].append(process_time() - began)
    found = {name: statistics.median(times) for name, times in seconds.items()}
    speed = {name: round((32 if name.endswith("32") else 1) * options.tokens / t, 1) for name, t in found.items()}
    print(json.dumps({
        "bench": "generating", "threads": options.threads, "parameters": ours.num_parameters(),
        "tokens_per_cpu_second": speed, "times_nanogpt": round(speed["tohum"] / speed["nanogpt"], 2),
        "batch_32_times_batch_1": {
            name: round(speed[f"{name}_32"] / speed[name], 2) for name in ("tohum", "tohum_bf16") if name in speed
        },
        "limit_tokens_per_second": round(_bytes_per_second() / (4 * ours.num_parameters())),
    }))  # fmt: skip


def _bytes_per_second() -> float:
    """Of reading a matrix the size of the weights once, for one product with a vector."""
    matrix, vector, times = torch.randn(2048, 5225), torch.randn(5225), []
    for _ in range(30):
        began = process_time()
        matrix @ vector
        times.append(process_time() - began)
    return 4 * matrix.numel() / statistics.median(times)


if __name__ == "__main__":
    main()
