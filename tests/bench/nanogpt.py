"""Training speed on nanoGPT's own shapes beside nanoGPT, stock and at its best, and transformers' Trainer, as JSON.

    python -m tests.bench.nanogpt [--text input.txt] [--rounds 5] [--threads 1] [--only ours,nanogpt] [--broken]

Characters of a text (documents of the world of params.yaml unless a file is named), the same windows in the same order,
the same start weights, AdamW and clipping; each contestant a process of its own, in turns, with wall and CPU time. The
bfloat16 contestants run where the CPU has such products. The limit: 6 x parameters x tokens over the rate of one large
product.

Parity: all contestants must learn the same. `loss_nats` is the loss over the first windows, before and after the
updates, by one formula; after them all must lie within 0.01 of the first contestant's, or the exit code is 1. The
learning rate warms up over half of the updates: at its peak from the start, rounding alone decides how the first
updates fall out, and runs that are right end 0.3 apart. transformers' GPT-2 has biases besides, which start at 0.
Gradients are compared by tests/bench/gradients.py. `--broken` trains `ours-compiled` at 1.5 times the rate: the parity
check must fail.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.config.recipe import Compute, Schedule
from tests.bench.turns import InOrder, Turns, compare, end, peak_mib

SHAPES = {"0.8M": (4, 4, 128, 64), "10.7M": (6, 6, 384, 256)}
BATCH = {"0.8M": 12, "10.7M": 8}
WARM, TURN = 3, {"0.8M": 50, "10.7M": 3}
RATE, CLIP = 1e-3, 1.0
WARMUP_SHARE = 0.5  # of the updates
PARITY_NATS = 0.01
MEASURED = 32  # windows of loss_nats
OURS = ("ours", "ours-compiled", "ours-bf16", "ours-bf16-compiled")
PEERS = ("nanogpt", "nanogpt-compiled", "nanogpt-bf16-compiled", "trainer")


def main() -> None:
    """Prints one JSON object; exits with 1 where contestants learned differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="UTF-8 text; documents of the embedded world by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="contestants, separated by commas")
    parser.add_argument("--sizes", default=",".join(SHAPES), help="of %(default)s")
    parser.add_argument("--broken", action="store_true", help="one contestant at another rate, which must be found")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: at least 2, for quartiles")
    if options.contestant:
        contest(options.contestant, SimpleNamespace(**json.loads(options.case.read_text())))
        return
    from pipeline.model.device import has_bfloat16

    bfloat16, selected = has_bfloat16(), options.only.split(",") if options.only else [*OURS, *PEERS]
    contestants = [name for name in (*OURS, *PEERS) if name in selected and (bfloat16 or "bf16" not in name)]
    report: dict[str, Any] = {"bench": "nanogpt", "rounds": options.rounds, "bfloat16": bfloat16}
    agree = True
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes.split(","):
            case = make(Path(folder), size, options)
            figures = compare("tests.bench.nanogpt", contestants, case, options.rounds)
            figures["limit_tokens_per_second"] = limit(size, options.threads)
            apart = distances({name: figures[name]["loss_nats"] for name in contestants})
            figures["parity"] = {"limit_nats": PARITY_NATS, "apart_nats": apart}
            agree = agree and max(apart.values()) <= PARITY_NATS
            report[size] = figures
    print(json.dumps(report | {"agree": agree}, indent=1))
    sys.exit(0 if agree else 1)


def distances(losses: dict[str, list[float]]) -> dict[str, float]:
    """How far each contestant's last loss is from the first contestant's, nats; both must have fallen."""
    before, after = next(iter(losses.values()))
    assert after < before - 10 * PARITY_NATS, f"the loss went from {before} to {after}: too few updates to compare"
    return {name: round(abs(own - after), 4) for name, (_, own) in losses.items()}


def make(folder: Path, size: str, options: argparse.Namespace) -> Path:
    """Start weights and ids in a case file."""
    import numpy as np
    import torch

    from pipeline.model import checkpoint
    from pipeline.model.gpt import GPT
    from tests.bench.peers import nanogpt_shape

    text = world_text() if options.text is None else options.text.read_text(encoding="utf-8")
    points = np.array([ord(letter) for letter in text])
    ids = np.searchsorted(np.unique(points), points) % 65
    context = SHAPES[size][3]
    windows = len(ids) // context - 1
    np.save(folder / f"{size}.npy", np.stack([ids[i * context : (i + 1) * context + 1] for i in range(windows)]))
    checkpoint.save(GPT(nanogpt_shape(*SHAPES[size]), torch.Generator().manual_seed(1)), folder / size)
    path = folder / f"{size}.json"
    path.write_text(json.dumps({
        "model": str(folder / size), "ids": str(folder / f"{size}.npy"), "warm": WARM, "turn": TURN[size],
        "updates": WARM + options.rounds * TURN[size], "threads": options.threads, "batch": BATCH[size],
        "broken": options.broken,
    }))  # fmt: skip
    return path


def world_text() -> str:
    """The first 80,000 characters of the documents of the embedded world, which are the same on every machine."""
    from pipeline import config
    from pipeline.data.sources.world import records

    source = config.load().download.sources["world"]
    settings = source.settings("data/sources", "download.sources.world")
    texts = (str(record["text"]) for record in itertools.islice(records.documents(settings), 1000))
    return "\n".join(texts)[:80_000]


def limit(size: str, threads: int) -> int:
    """Tokens a second if nothing but products were done, at the rate of a large one."""
    import time

    import torch

    from pipeline.model.gpt import GPT
    from tests.bench.peers import nanogpt_shape

    torch.set_num_threads(threads)
    a, best = torch.randn(1024, 1024), 1e9
    for _ in range(10):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return round(2 * 1024**3 / best / (6 * GPT(nanogpt_shape(*SHAPES[size]), None).num_parameters()))


def contest(name: str, case: Any) -> None:
    """Trains as `name` does and reports its end."""
    import numpy as np
    import torch

    from pipeline.model import checkpoint

    torch.set_num_threads(case.threads)
    examples = np.load(case.ids)
    model = checkpoint.load(Path(case.model))
    turns = Turns(case, [case.batch * (examples.shape[1] - 1)] * case.updates)
    run = ours if name.startswith("ours") else trainer if name == "trainer" else nanogpt
    end(run(name, case, model, examples, turns))


def ours(name: str, case: Any, model: Any, examples: Any, turns: Turns) -> dict[str, Any]:
    """The project's own loop."""
    from pipeline.losses.cross_entropy import CrossEntropy
    from pipeline.model.compilation import compiled
    from pipeline.model.device import set_up
    from pipeline.optimizers import adamw
    from pipeline.prompts.spec import TEXT
    from pipeline.tasks.next_token import NextToken, Settings
    from pipeline.training.loop import Parts, fit
    from pipeline.weighting import uniform
    from tests.learners import records

    precision = "bfloat16" if "bf16" in name else "float32"
    compute = Compute(
        device="cpu",
        threads=case.threads,
        precision=precision,
        compile="compiled" in name,
        checkpoint_activations=False,
        weights="float32",
    )
    set_up(compute)
    rate = 1.5 * RATE if case.broken and name == "ours-compiled" else RATE
    settings = adamw.Settings(learning_rate=rate, weight_decay=0.1, beta1=0.9, beta2=0.99, epsilon=1e-8)
    groups = [{"params": list(model.parameters()), "factor": 1.0, "begins": 0.0}]
    ends: Any = SimpleNamespace(end_of_text=-1)
    task = NextToken(TEXT, ends, Settings(mask_documents=False, logits_at_once=None))
    parts = Parts(
        task=task, ordering=InOrder(case.batch), loss=CrossEntropy(task), weighting=uniform.Uniform(),
        optimizer=adamw.build(settings, groups), schedule=schedule(case), compute=compute, seed=1,
    )  # fmt: skip
    before = loss(model, examples)
    compiled(model, compute)
    for _ in fit(model, parts, records(model, parts, examples)):
        turns.update()
    return ending(before, peak_mib(), loss(model, examples))


def schedule(case: Any) -> Schedule:
    """Warm-up over half of the updates, then the peak."""
    return Schedule(
        shape="constant", steps=case.updates, warmup_steps=int(WARMUP_SHARE * case.updates), final_share=0.0,
        accumulate=1, batch_warmup_steps=0, clip_norm=CLIP,
    )  # fmt: skip


def batches(case: Any, examples: Any) -> Iterator[tuple[Any, Any]]:
    """Inputs and targets of one update after another."""
    import torch

    for step in range(case.updates):
        rows = examples[InOrder(case.batch).rows(len(examples), step, 0)]
        yield torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])


def nanogpt(name: str, case: Any, model: Any, examples: Any, turns: Turns) -> dict[str, Any]:
    """Its train.py without logs and evaluation."""
    from contextlib import nullcontext

    import torch

    from pipeline.training.schedule import learning_rate_factor
    from tests.bench.peers import NanoGPT

    peer = NanoGPT(model)
    optimizer, plan = peer.optimizer(RATE), schedule(case)
    before = loss(peer.logits, examples)
    step: Callable[..., Any] = torch.compile(peer.loss) if "compiled" in name else peer.loss
    for number, (inputs, targets) in enumerate(batches(case, examples)):
        for group in optimizer.param_groups:
            group["lr"] = RATE * learning_rate_factor(plan, number)
        with torch.autocast("cpu", torch.bfloat16) if "bf16" in name else nullcontext():
            mean_loss = step(inputs, targets)
        mean_loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        turns.update()
    return ending(before, peak_mib(), loss(peer.logits, examples))


def trainer(_name: str, case: Any, model: Any, examples: Any, turns: Turns) -> dict[str, Any]:
    """transformers' GPT2LMHeadModel and Trainer."""
    import torch
    import transformers

    from pipeline.training.schedule import learning_rate_factor

    plan = schedule(case)
    peer = transformers.GPT2LMHeadModel.from_pretrained(case.model, dtype=torch.float32)
    peer.config.use_cache = False
    arguments = transformers.TrainingArguments(
        output_dir=str(Path(case.model).parent / "unused"), per_device_train_batch_size=case.batch,
        max_steps=case.updates, learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0,
        optim="adamw_torch_fused", weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.99, adam_epsilon=1e-8,
        max_grad_norm=CLIP, logging_strategy="no", save_strategy="no", eval_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=True, bf16=False, dataloader_pin_memory=False, train_sampling_strategy="sequential",
    )  # fmt: skip
    rows = [{"input_ids": row[:-1], "labels": row[1:]} for row in examples]

    def collate(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        import numpy as np

        return {key: torch.from_numpy(np.stack([row[key] for row in chosen])) for key in chosen[0]}

    class Shifted(transformers.Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            logits = model(inputs["input_ids"]).logits
            mean_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten())
            return (mean_loss, logits) if return_outputs else mean_loss

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            optimizer = optimizer or self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda number: learning_rate_factor(plan, number)
            )
            return self.lr_scheduler

    class Callback(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.update()

    before = loss(lambda ids: peer(ids).logits, examples)
    Shifted(peer, arguments, data_collator=collate, train_dataset=rows, callbacks=[Callback()]).train()
    return ending(before, peak_mib(), loss(lambda ids: peer(ids).logits, examples))


def loss(logits: Callable[[Any], Any], examples: Any) -> float:
    """Mean over the first windows, nats."""
    import torch

    ids = torch.from_numpy(examples[:MEASURED])
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(logits(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()))


def ending(before: float, peak: int, after: float) -> dict[str, Any]:
    return {"peak_mib": peak, "loss_nats": [round(before, 4), round(after, 4)]}


if __name__ == "__main__":
    main()
