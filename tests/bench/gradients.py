"""Gradients of every compiled path beside the eager ones, on one batch, as JSON; exit code 1 where they differ.

    python -m tests.bench.gradients [--families gpt2,qwen3] [--precisions float32,bfloat16] [--broken]

Paths: causal windows, packed documents, and output wanted at some positions alone (padding-free). The shape is large
enough for every custom gradient of pipeline/model/cpu. For each path the largest relative error of any parameter's
gradient, |g - e| / |e| with e eager in float32: in float32 at most 1e-4; in bfloat16 at most twice that of the eager
path in bfloat16, both being rounding. `--broken` compiles GELU and SwiGLU with a wrong derivative: the check must fail.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

FAMILIES, PRECISIONS = ("gpt2", "qwen3"), ("float32", "bfloat16")
LIMIT, FACTOR = 1e-4, 2.0
ROWS, LENGTH, VOCABULARY = 2, 320, 61


def main() -> None:
    """Prints one JSON object; exits with 1 if any path disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--broken", action="store_true", help="with a wrong derivative, which must be found")
    parser.add_argument("--one", nargs=2, metavar=("FAMILY", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(errors(*options.one, options.broken)))
        return
    report = compare(options.families.split(","), options.precisions.split(","), options.broken)
    print(json.dumps({"bench": "gradients", **report}, indent=1))
    sys.exit(0 if report["agree"] else 1)


def compare(families: list[str], precisions: list[str], broken: bool = False) -> dict[str, Any]:
    """The errors of every family, precision and path, each pair in a process of its own, and whether all agree."""
    found: dict[str, dict[str, Any]] = {}
    for family in families:
        for precision in precisions:
            with tempfile.TemporaryDirectory() as folder:  # nothing compiled before, broken or not
                command = [sys.executable, "-m", "tests.bench.gradients", "--one", family, precision]
                done = subprocess.run(
                    command + ["--broken"] * broken, capture_output=True, text=True, check=True,
                    env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder},
                )  # fmt: skip
            found[f"{family} {precision}"] = json.loads(done.stdout.splitlines()[-1])
    return {"errors": found, "agree": all(agrees(path) for paths in found.values() for path in paths.values())}


def agrees(error: dict[str, float]) -> bool:
    """Whether one path's compiled gradient is right: `compiled` and `eager` are its and the eager path's errors."""
    return error["compiled"] <= max(LIMIT, FACTOR * error["eager"])


def errors(family: str, precision: str, broken: bool) -> dict[str, dict[str, float]]:
    """For each path the largest relative error of a parameter's gradient, eager and compiled."""
    import torch

    from pipeline.config.recipe import Compute
    from pipeline.model.compilation import compiled
    from pipeline.model.cpu import activations
    from pipeline.model.device import autocast, set_up

    torch._dynamo.config.fail_on_recompile_limit_hit = True  # running eager code instead would prove nothing
    exact, eager, fast = (
        Compute(
            device="cpu", threads=1, precision=used, compile=compiles, checkpoint_activations=False, weights="float32"
        )
        for used, compiles in (("float32", False), (precision, False), (precision, True))
    )
    set_up(fast)
    if broken:
        activations._Gelu.backward = staticmethod(lambda ctx, grad: 1.1 * grad * ctx.saved_tensors[0][1])
        activations._SwiGLU.backward = staticmethod(
            lambda ctx, grad: (1.1 * grad * ctx.saved_tensors[0][1], grad * ctx.saved_tensors[0][2])
        )
    models = network(family), network(family), compiled(network(family), fast)
    report = {}
    for path in ("causal", "documents", "wanted"):
        gradients = []
        for model, compute in zip(models, (exact, eager, fast), strict=True):
            with autocast(compute):
                loss(model, path).backward()
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            model.zero_grad()
        right, *others = gradients
        report[path] = {
            name: max(float((other[key] - right[key]).norm() / right[key].norm()) for key in right)
            for name, other in zip(("eager", "compiled"), others, strict=True)
        }
    return report


def network(family: str) -> Any:
    """Two layers of 256 in four heads, two for keys where they can be fewer."""
    import torch

    from pipeline.model.config import ModelConfig
    from pipeline.model.gpt import GPT

    shape = ModelConfig(
        family=family, n_layers=2, n_heads=4, n_kv_heads=4 if family == "gpt2" else 2, head_dim=64, d_model=256,
        d_ff=512, context_length=LENGTH, dropout=0.0, tie_embeddings=True, bias=False, rope_theta=1e4,
        norm_epsilon=1e-5, logit_softcap=None, vocab_size=VOCABULARY,
    )  # fmt: skip
    return GPT(shape, torch.Generator().manual_seed(1)).train()


def loss(model: Any, path: str) -> Any:
    """Cross-entropy of the next token, of those that the path computes."""
    import torch

    ids = torch.randint(VOCABULARY, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(2))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    if path == "wanted":
        wanted = torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(3)) < 0.1
        logits, targets = model.logits(model.hidden(inputs, wanted_BT=wanted)), targets[wanted]
    else:
        segments = torch.arange(LENGTH).expand(ROWS, -1) // 100 if path == "documents" else None
        logits, targets = model(inputs, segments_BT=segments).flatten(0, 1), targets.flatten()
    return torch.nn.functional.cross_entropy(logits.float(), targets)


if __name__ == "__main__":
    main()
