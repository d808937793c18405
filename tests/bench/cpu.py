"""Time that each part of pipeline/model/cpu saves of an uncompiled update of the default base model, as JSON.

    python -m tests.bench.cpu [--rounds 5]

Forward and backward pass of four packed windows in the shape of params.yaml's `pretrain.model`, one thread, with the
part and with torch's own code in its place, in turns in one process; CPU milliseconds of an update, medians over the
rounds. `saves`: the share of the update without the part. Parts that act in compiled code alone (cpu/activations.py,
cpu/linear.py) are in the figures of tests/bench/nanogpt.py.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

UPDATES, WARM_UP = 4, 2
VOCABULARY, ROWS = 2048, 4


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds

    from torch import nn

    from pipeline.model import gpt, rotary, varlen
    from pipeline.model.cpu import explicit, norm
    from pipeline.model.device import has_bfloat16

    figures = {
        "cpu/norm.py": compare(rounds, "float32", norm.RMSNorm, "forward", nn.RMSNorm.forward),
        "rotary.py": compare(rounds, "float32", gpt, "rotate", rotary._rotated),
        "varlen.py, gather": compare(rounds, "float32", varlen.Slots, "gather", lambda self, x: x[self.slot_N]),
    }
    if has_bfloat16():
        figures["cpu/explicit.py"] = compare(rounds, "bfloat16", explicit, "suits", lambda *_: False)
    print(json.dumps({"bench": "cpu", "rounds": rounds, **figures}, indent=1))


def compare(rounds: int, precision: str, owner: Any, name: str, plain: Callable[..., Any]) -> dict[str, float]:
    """CPU ms of an update with `owner.name` as it is and with `plain` in its place."""
    update = updates(precision)
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for ours, used in times.items():
            with replaced(owner, name, getattr(owner, name) if ours else plain):
                for number in range(WARM_UP + UPDATES):
                    if number == WARM_UP:
                        began = time.process_time()
                    update()
                used.append(1000 * (time.process_time() - began) / UPDATES)
    ours_ms, plain_ms = statistics.median(times[True]), statistics.median(times[False])
    return {"ms": round(ours_ms, 1), "without_ms": round(plain_ms, 1), "saves": round(1 - ours_ms / plain_ms, 3)}


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, `owner.name` is `value`."""
    original = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def updates(precision: str) -> Callable[[], None]:
    """One forward and backward pass of packed documents of some 100 tokens."""
    import torch

    from pipeline import config
    from pipeline.config.recipe import Compute
    from pipeline.model.config import ModelConfig
    from pipeline.model.device import autocast, set_up
    from pipeline.model.gpt import GPT

    compute = Compute(
        device="cpu", threads=1, precision=precision, compile=False, checkpoint_activations=False, weights="float32"
    )
    set_up(compute)
    shape = ModelConfig(**config.load().pretrain.model.model_dump(), vocab_size=VOCABULARY)
    model = GPT(shape, torch.Generator().manual_seed(1)).train()
    ids = torch.randint(VOCABULARY, (ROWS, shape.context_length + 1), generator=torch.Generator().manual_seed(2))
    segments = torch.arange(shape.context_length).expand(ROWS, -1) // 100

    def update() -> None:
        with autocast(compute):
            logits = model(ids[:, :-1], segments_BT=segments)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        model.zero_grad()

    return update


if __name__ == "__main__":
    main()
