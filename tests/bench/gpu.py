"""Training and decoding on one GPU beside nanoGPT's and transformers' configuration, as JSON.

    python -m tests.bench.gpu [--only gpt2-124m,decode] [--seconds 20] [--smoke]

bfloat16 autocast, compiled, windows of random ids; the same shapes, batches and AdamW for every contestant, one after
the other on the same card. `tokens_per_second` is the median of the updates after the warm-up, waiting for the device;
`of_peak` what that is of the rate of one large product measured first; `prepared`: the same batch every time, ready on
the device, so what making batches costs; `optimizer_share`: of an update. `--smoke` runs tiny shapes on a CPU, to see
that all of it runs. Needs torch, numpy, pyarrow and pydantic alone (transformers for its own contestant).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.config.recipe import Compute, Schedule
from pipeline.inference.generation import generate
from pipeline.losses.cross_entropy import CrossEntropy
from pipeline.model.compilation import compiled
from pipeline.model.config import ModelConfig
from pipeline.model.device import set_up
from pipeline.model.gpt import GPT
from pipeline.optimizers import adamw, muon
from pipeline.prompts.spec import TEXT
from pipeline.tasks.next_token import NextToken, Settings
from pipeline.training.loop import Parts, fit
from pipeline.weighting import uniform
from tests.bench.peers import NanoGPT
from tests.bench.turns import InOrder
from tests.learners import records

WARM = 5
END = 0  # the id that ends a document, where documents are kept apart


class Case(NamedTuple):
    """A network and how it is trained."""

    model: dict[str, Any]
    batch: int
    optimizer: str
    peers: tuple[str, ...] = ()
    apart: bool = False


def network(family: str, layers: int, heads: int, head_dim: int, context: int, **more: Any) -> dict[str, Any]:
    """GPT-2's vocabulary; `more` replaces fields."""
    d_model = heads * head_dim
    fields = {
        "family": family, "n_layers": layers, "n_heads": heads, "n_kv_heads": heads, "head_dim": head_dim,
        "d_model": d_model, "d_ff": 4 * d_model, "context_length": context, "dropout": 0.0,
        "tie_embeddings": family == "gpt2", "bias": False, "rope_theta": 10000.0, "norm_epsilon": 1e-5,
        "logit_softcap": 15.0 if family == "nanochat" else None, "vocab_size": 50257,
    }  # fmt: skip
    return fields | more


CASES = {
    "gpt2-124m": Case(network("gpt2", 12, 12, 64, 1024), 32, "adamw", ("nanogpt", "transformers")),
    "recipe-124m": Case(network("nanochat", 12, 6, 128, 1024), 32, "muon"),
    "recipe-124m-apart": Case(network("nanochat", 12, 6, 128, 1024), 32, "muon", apart=True),
    "depth-8": Case(network("nanochat", 8, 4, 128, 2048, vocab_size=8192), 32, "muon"),
}
SMOKE = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "head_dim": 8, "d_model": 16, "d_ff": 64, "context_length": 32,
         "vocab_size": 101}  # fmt: skip


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join([*CASES, "decode"]), help="of %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of timed updates a contestant")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if not options.smoke and not torch.cuda.is_available():
        print(json.dumps({"bench": "gpu", "skipped": "torch sees no GPU"}))
        return
    device = "cpu" if options.smoke else "cuda"
    peak = product_rate(device)
    name = "cpu" if options.smoke else torch.cuda.get_device_name()
    found: dict[str, Any] = {"bench": "gpu", "device": name, "torch": torch.__version__}
    found["product_tflops"] = round(peak / 1e12, 1)
    for wanted in options.only.split(","):
        if wanted == "decode":
            found["decode"] = decode(device, options.smoke)
        else:
            found[wanted] = trained(CASES[wanted], device, options, peak)
        print(json.dumps({wanted: found[wanted]}), flush=True)  # what is known, if the time runs out
    print(json.dumps(found))


def product_rate(device: str) -> float:
    """Operations a second of one large bfloat16 product."""
    size = 8192 if device == "cuda" else 256
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / min(timed(lambda: a @ a, device) for _ in range(10))


def timed(run: Callable[[], Any], device: str) -> float:
    """Seconds, with all that the device has to do for it."""
    wait(device)
    began = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - began


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def trained(case: Case, device: str, options: Any, peak: float) -> dict[str, Any]:
    """Every contestant of a case, and what ours takes of the card."""
    if options.smoke:
        case = case._replace(model=case.model | SMOKE, batch=2)
    config = ModelConfig.model_validate(case.model)
    windows = np.random.default_rng(1).integers(0, config.vocab_size, (max(256, case.batch), config.context_length + 1))
    contestants: dict[str, Callable[[], Iterator[Any]]] = {
        "ours": lambda: ours(case, config, windows, device),
        "prepared": lambda: ours(case, config, windows, device, prepared=True),
    }
    peers = {"nanogpt": nanogpt, "transformers": theirs}
    for name in case.peers:
        contestants[name] = lambda name=name: peers[name](case, config, windows, device)
    found: dict[str, Any] = {}
    tokens = case.batch * config.context_length
    for name, begin in contestants.items():
        found[name] = rate(begin(), tokens, device, options.seconds if not options.smoke else 0.2)
        if device == "cuda":
            torch.cuda.empty_cache()
    plain = GPT(config, None)
    tables = plain.embed.weight.numel() * (not config.tie_embeddings)
    tables += 0 if plain.positions is None else plain.positions.weight.numel()
    attention = 12 * config.n_layers * config.n_heads * config.head_dim * config.context_length
    flops = 6 * (plain.num_parameters() - tables) + attention  # Chowdhery et al. 2022, appendix B
    found["ours / prepared"] = round(found["ours"]["tokens_per_second"] / found["prepared"]["tokens_per_second"], 3)
    found["optimizer_share"] = share(case, config, windows, device)
    found["of_peak"] = round(found["ours"]["tokens_per_second"] * flops / peak, 3)
    found |= {
        f"ours / {name}": round(found["ours"]["tokens_per_second"] / found[name]["tokens_per_second"], 2)
        for name in case.peers
    }
    return found


def rate(updates: Iterator[Any], tokens: int, device: str, seconds: float) -> dict[str, Any]:
    """Tokens a second of updates as they come, peak memory."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first = timed(lambda: [next(updates) for _ in range(WARM)], device)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        # ten at a time: the queue stays full, as in training
        times.append(timed(lambda: [next(updates) for _ in range(10)], device) / 10)
        if len(times) * 10 * min(times) > seconds:
            break
    memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0
    return {"tokens_per_second": round(tokens / statistics.median(times)), "first_s": round(first, 1),
            "peak_mib": round(memory)}  # fmt: skip


def share(case: Case, config: ModelConfig, windows: np.ndarray, device: str) -> float:
    """Of an update's time, that of the optimizer's step; each waited for, so the rest is a little slower than it is."""
    spent: list[float] = []

    def watched(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        step = optimizer.step
        optimizer.step = lambda: spent.append(timed(step, device))
        return optimizer

    updates = ours(case, config, windows, device, watched=watched)
    for _ in range(WARM):
        next(updates)
    spent.clear()
    whole = timed(lambda: [next(updates) for _ in range(10)], device)
    return round(sum(spent) / whole, 4)


def ours(
    case: Case,
    config: ModelConfig,
    windows: np.ndarray,
    device: str,
    prepared: bool = False,
    watched: Callable[[torch.optim.Optimizer], torch.optim.Optimizer] = lambda optimizer: optimizer,
) -> Iterator[Any]:
    """The project's own loop, batches made as it makes them or `prepared` once."""
    compute = Compute(
        device=device,
        threads=8 if device == "cuda" else 1,
        precision="bfloat16",
        compile=device == "cuda",
        checkpoint_activations=False,
        weights="float32",
    )
    set_up(compute)
    model = compiled(GPT(config, torch.Generator(device).manual_seed(1)), compute)
    shared = {"learning_rate": 3e-4, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8}
    rule: Any = muon if case.optimizer == "muon" else adamw
    more = {"matrix_learning_rate": 0.02, "momentum": 0.95} if case.optimizer == "muon" else {}
    named = dict(model.named_parameters())
    groups = [{"params": list(named.values()), "names": list(named), "factor": 1.0, "begins": 0.0}]
    schedule = Schedule(
        shape="constant", steps=1_000_000, warmup_steps=0, final_share=0.0, accumulate=1, batch_warmup_steps=0,
        clip_norm=1.0,
    )  # fmt: skip
    ends: Any = SimpleNamespace(end_of_text=END)
    task = NextToken(TEXT, ends, Settings(mask_documents=case.apart, logits_at_once=None))
    examples: Sequence[np.ndarray] = windows
    if prepared:
        batch = {name: one.to(device) for name, one in task.collate(list(windows[: case.batch])).items()}
        task.collate = lambda examples: dict(batch)
    if case.apart:  # documents of some 300 tokens
        windows[np.random.default_rng(2).random(windows.shape) < 1 / 300] = END
    parts = Parts(
        task=task, loss=CrossEntropy(task), ordering=InOrder(case.batch), weighting=uniform.Uniform(),
        optimizer=watched(rule.build(rule.Settings(**shared, **more), groups)), schedule=schedule, compute=compute,
        seed=1,
    )  # fmt: skip
    return fit(model, parts, records(model, parts, examples))


def nanogpt(case: Case, config: ModelConfig, windows: np.ndarray, device: str) -> Iterator[None]:
    """Its train.py: whole network compiled, autocast, fused AdamW, pinned batches, clipping."""
    model = NanoGPT(GPT(config, torch.Generator().manual_seed(1))).to(device)
    loss = torch.compile(model.loss) if device == "cuda" else model.loss
    return _loop(loss, list(model.parameters()), case, windows, device)


def theirs(case: Case, config: ModelConfig, windows: np.ndarray, device: str) -> Iterator[None]:
    """transformers' GPT2LMHeadModel under the same loop, compiled."""
    import transformers

    made = transformers.GPT2Config(
        vocab_size=config.vocab_size, n_positions=config.context_length, n_embd=config.d_model,
        n_layer=config.n_layers, n_head=config.n_heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(made).to(device)
    whole: Any = torch.compile(model) if device == "cuda" else model

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        logits = whole(ids).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return _loop(loss, list(model.parameters()), case, windows, device)


def _loop(
    loss: Callable[[Tensor, Tensor], Tensor], params: list[Any], case: Case, windows: np.ndarray, device: str
) -> Iterator[None]:
    optimizer = torch.optim.AdamW(params, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    order = InOrder(case.batch)
    number = 0
    while True:
        ids = torch.from_numpy(windows[order.rows(len(windows), number, 1)].astype(np.int64))
        ids = ids.pin_memory().to(device, non_blocking=True) if device == "cuda" else ids
        with torch.autocast(device, torch.bfloat16):
            value = loss(ids[:, :-1], ids[:, 1:])
        value.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        number += 1
        yield None


def decode(device: str, smoke: bool) -> dict[str, Any]:
    """New tokens a second of GPT-2 124 M in bfloat16, greedy, for one row and for 128, the prompt's step included."""
    fields = network("gpt2", 12, 12, 64, 1024) | (SMOKE if smoke else {})
    model = GPT(ModelConfig.model_validate(fields), torch.Generator(device).manual_seed(1)).to(torch.bfloat16).eval()
    model.static_shapes = device == "cuda"  # the steps are compiled
    tokens = 8 if smoke else 512
    found: dict[str, Any] = {}
    greedy: dict[str, Any] = {"max_tokens": tokens, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop": ()}
    for rows in (1, 128):
        prompts = [[1, 2, 3, 4]] * rows
        generate(model, prompts, **greedy)
        seconds = statistics.median(
            timed(lambda prompts=prompts: generate(model, prompts, **greedy), device) for _ in range(3)
        )
        found[f"rows_{rows}"] = round(rows * tokens / seconds)
    return found


if __name__ == "__main__":
    main()
