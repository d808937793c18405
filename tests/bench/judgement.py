"""Learning from judgement beside TRL: one update of DPO, of a reward model and of GRPO, generation included; JSON.

    python -m tests.bench.judgement --model models/chat-full --trl PYTHON [--rounds 7] [--only dpo,grpo,reward]

PYTHON is the interpreter of an environment with TRL. Contestants are processes of their own that take turns (turns.py)
with the same start weights, records, prompts, batch sizes, learning rate, AdamW and clipping, on one thread; the median
turn counts, in updates a CPU second. The records are those of the world's latent taste.

`trl-default` has the settings that TRL chooses itself: bfloat16 where the processor multiplies it, activations computed
again for the backward pass, the reference model beside the trained one. `trl-best`: float32, no checkpointing, reference
log-probabilities computed before training, all rollouts of an update in one batch. `padding_free` does nothing in TRL
1.16's DPO. A GRPO update has 64 rollouts (8 prompts, 8 answers each) of at most 24 tokens at temperature 1, scored by
their length, without a KL term (TRL's default); `rollout_tokens` is their mean length, because the learning rate hardly
moves the model.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.bench.turns import Turns, compare, end, peak_mib

KINDS = ("dpo", "reward", "grpo")
CONTESTANTS = ("ours", "trl-default", "trl-best")
WARM, TURN = 2, {"dpo": 8, "reward": 8, "grpo": 4}
BATCH = 8  # pairs of an update
PROMPTS, SAMPLES, NEW_TOKENS = 8, 8, 24
RATE, BETA = 1e-6, 0.1
BETAS, EPSILON, CLIP = (0.9, 0.999), 1e-8, 1.0
ROOM = 256


# The parent: makes the records, lets the contestants take turns, prints.


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/chat-full"), help="a chat model of this project")
    parser.add_argument("--trl", help="interpreter of an environment with TRL; none: ours alone")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--only", default=",".join(KINDS), help="of %(default)s")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), help="of %(default)s")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contest(options.contestant, SimpleNamespace(**json.loads(options.case.read_text())))
        return
    chosen = [name for name in options.contestants.split(",") if name == "ours" or options.trl]
    found: dict[str, Any] = {"bench": "judgement", "rounds": options.rounds, "model": str(options.model)}
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.only.split(","):
            path = Path(folder) / f"{kind}.json"
            path.write_text(json.dumps(case_of(kind, options)), encoding="utf-8")
            pythons = {name: options.trl for name in chosen if name != "ours"}
            found[kind] = compare(
                "tests.bench.judgement", chosen, path, options.rounds, unit="updates", pythons=pythons
            )
    print(json.dumps(found, indent=1))


def case_of(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """All that a contestant may know."""
    updates = WARM + options.rounds * TURN[kind]
    rows = updates * (PROMPTS if kind == "grpo" else BATCH)
    return {
        "kind": kind, "model": str(options.model.resolve()), "records": records(rows), "warm": WARM,
        "turn": TURN[kind], "updates": updates,
    }  # fmt: skip


def records(count: int) -> list[dict[str, str]]:
    """Preferences, so many."""
    from pipeline.data.sources import world

    settings = world.Settings(
        seed=7, people=16, documents=0, labelled=0, instructions=0, preferences=0, planted=[], noise=None, retold=0,
        tasks={"translation": 0, "summary": count, "conversation": 0}, doses=None,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for kind, table in world.read(settings, "world", SimpleNamespace(accept=lambda kind, n=1: None)):
        rows += table.to_pylist() if kind == "instructions" else []
    return [
        {"instruction": row["instruction"], "input": row["input"], "chosen": row["output"], "rejected": other["output"]}
        for row, other in zip(rows[:count], rows[1:] + rows[:1], strict=False)
    ]


# A contestant: trains and reports after every turn.


def contest(name: str, case: Any) -> None:
    """Trains as `name` does and reports its end."""
    import torch

    torch.set_num_threads(1)
    end((ours if name == "ours" else peer)(name, case))


def peer(name: str, case: Any) -> dict[str, Any]:
    """One of TRL's trainers."""
    import transformers

    transformers.logging.set_verbosity_error()
    seen: list[float] = []
    trainer = TRAINERS[case.kind](name, case, seen)
    turns = Turns(case, [1] * case.updates)

    class Callback(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.update()

    trainer.add_callback(Callback())
    trainer.train()
    ends: dict[str, Any] = {"peak_mib": peak_mib()}
    return ends if not seen else ends | {"rollout_tokens": round(sum(seen) / len(seen), 2)}


def arguments(name: str, case: Any, batch: int) -> dict[str, Any]:
    """Settings of all trainers: nothing beside training, and our optimizer."""
    best: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False} if name == "trl-best" else {}
    return best | {
        "output_dir": str(Path(tempfile.gettempdir()) / "unused"), "per_device_train_batch_size": batch,
        "max_steps": case.updates, "learning_rate": RATE, "lr_scheduler_type": "constant", "warmup_steps": 0,
        "optim": "adamw_torch_fused", "weight_decay": 0.0, "adam_beta1": BETAS[0], "adam_beta2": BETAS[1],
        "adam_epsilon": EPSILON, "max_grad_norm": CLIP, "logging_strategy": "no", "save_strategy": "no",
        "eval_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True,
        "dataloader_num_workers": 0, "dataloader_pin_memory": False,
    }  # fmt: skip


def prompt(record: dict[str, str]) -> str:
    """The prompt of a record in template `chat`; TRL reads it as ids of the same special tokens."""
    content = record["instruction"] + (f"\n{record['input']}" if record["input"] else "")
    return f"<|user|>{content}<|end|><|assistant|>"


def pairs(case: Any) -> Any:
    """The records as a data set of chosen and rejected answers; TRL appends the end of text."""
    import datasets

    return datasets.Dataset.from_list(
        [
            {"prompt": prompt(row), "chosen": f" {row['chosen']}", "rejected": f" {row['rejected']}"}
            for row in case.records
        ]
    )


def network(case: Any, kind: str = "ForCausalLM", **more: Any) -> tuple[Any, Any]:
    """The start weights in transformers, float32, and the tokenizer."""
    import torch
    import transformers

    vocabulary = transformers.AutoTokenizer.from_pretrained(case.model)
    model = getattr(transformers, f"AutoModel{kind}").from_pretrained(case.model, dtype=torch.float32, **more)
    return model, vocabulary


def dpo_trainer(name: str, case: Any, _seen: list[float]) -> Any:
    import trl

    model, vocabulary = network(case)
    told = trl.DPOConfig(
        **arguments(name, case, BATCH), beta=BETA, max_length=ROOM, precompute_ref_log_probs=name == "trl-best",
        train_sampling_strategy="sequential",
    )  # fmt: skip
    return trl.DPOTrainer(model, args=told, train_dataset=pairs(case), processing_class=vocabulary)


def reward_trainer(name: str, case: Any, _seen: list[float]) -> Any:
    import trl

    model, vocabulary = network(case, "ForSequenceClassification", num_labels=1)
    told = trl.RewardConfig(**arguments(name, case, BATCH), max_length=ROOM, train_sampling_strategy="sequential")
    return trl.RewardTrainer(model, args=told, train_dataset=pairs(case), processing_class=vocabulary)


def grpo_trainer(name: str, case: Any, seen: list[float]) -> Any:
    """Default: the micro-batches of 8 that TRL chooses; best: all 64 rollouts in one."""
    import datasets
    import trl

    def by_length(completion_ids: list[list[int]], **_: Any) -> list[float]:
        seen.extend(len(ids) for ids in completion_ids)
        return [float(len(ids)) for ids in completion_ids]

    model, vocabulary = network(case)
    rollouts = PROMPTS * SAMPLES
    micro = rollouts if name == "trl-best" else 8
    told = trl.GRPOConfig(
        **arguments(name, case, micro), gradient_accumulation_steps=rollouts // micro, num_generations=SAMPLES,
        max_completion_length=NEW_TOKENS, temperature=1.0, beta=0.0, shuffle_dataset=False,
    )  # fmt: skip
    prompts = datasets.Dataset.from_list([{"prompt": prompt(row)} for row in case.records])
    return trl.GRPOTrainer(model, reward_funcs=by_length, args=told, train_dataset=prompts, processing_class=vocabulary)


TRAINERS: dict[str, Callable[[str, Any, list[float]], Any]] = {
    "dpo": dpo_trainer, "reward": reward_trainer, "grpo": grpo_trainer,
}  # fmt: skip


if __name__ == "__main__":
    main()
