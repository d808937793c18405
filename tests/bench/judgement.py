"""Learning from judgement beside TRL: one update of DPO, of a reward model and of GRPO, generation included; JSON.

    python -m tests.bench.judgement --model models/chat-full --trl PYTHON [--rounds 7] [--only dpo,grpo,reward]

PYTHON is the interpreter of an environment with TRL. Contestants are processes of their own that take turns (turns.py)
with the same start weights, records, prompts, batch sizes, learning rate, AdamW and clipping, on one thread; the median
turn counts, in updates a CPU second. The records are those of the world's latent taste; the model has seen its
demonstrations.

`trl-default` has the settings that TRL chooses itself: bfloat16, activations computed again for the backward pass, the
reference model beside the trained one. `trl-best`: float32, no checkpointing, reference log-probabilities computed
before training, all rollouts of an update in one batch (`padding_free` does nothing in TRL 1.16's DPO). A GRPO update
has 64 rollouts (8 prompts, 8 answers each) of at most 24 tokens at temperature 1, scored by their length, without a KL
term (TRL's default); `rollout_tokens` is their mean length, as the learning rate hardly moves the model.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.bench.turns import InOrder, Turns, compare, end, peak_mib

KINDS = ("dpo", "reward", "grpo")
CONTESTANTS = ("ours", "trl-default", "trl-best")
WARM, TURN = 2, {"dpo": 8, "reward": 8, "grpo": 4}
BATCH = 8  # pairs of an update
PROMPTS, SAMPLES, NEW_TOKENS = 8, 8, 24
RATE, BETA = 1e-6, 0.1
BETAS, EPSILON, CLIP = (0.9, 0.999), 1e-8, 1.0
ROOM = 256
TAUGHT, TAUGHT_RATE = 300, 3e-3  # updates of 8 demonstrations before


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
    kinds = options.only.split(",")
    most = max(WARM + options.rounds * TURN[kind] for kind in kinds)
    rows = world(max(most * PROMPTS, TAUGHT), most * BATCH)
    with tempfile.TemporaryDirectory() as folder:
        taught(Path(folder) / "taught", options.model, rows["instructions"])
        for kind in kinds:
            path = Path(folder) / f"{kind}.json"
            path.write_text(json.dumps(case_of(kind, options.rounds, Path(folder) / "taught", rows)), encoding="utf-8")
            pythons = {name: options.trl for name in chosen if name != "ours"}
            found[kind] = compare(
                "tests.bench.judgement", chosen, path, options.rounds, unit="updates", pythons=pythons
            )
    print(json.dumps(found, indent=1))


def case_of(kind: str, rounds: int, model: Path, rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """All that a contestant may know."""
    updates = WARM + rounds * TURN[kind]
    records = rows["instructions"][: updates * PROMPTS] if kind == "grpo" else rows["preferences"][: updates * BATCH]
    return {
        "kind": kind, "model": str(model), "records": records, "warm": WARM, "turn": TURN[kind], "updates": updates,
    }  # fmt: skip


def world(requests: int, pairs: int) -> dict[str, list[dict[str, Any]]]:
    """Demonstrations and preferences of the world's latent taste, by kind of record."""
    from pipeline.data.sources import world

    taste = {"requests": requests, "pairs": pairs, "noise": 0.2, "shortcut": 0.0, "utility": "taste"}
    settings = world.Settings(
        seed=7, people=16, documents=0, labelled=0, instructions=0, preferences=0, planted=[], noise=None, retold=0,
        tasks=None, doses=None, taste=taste,
    )  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {"instructions": [], "preferences": []}
    for kind, table in world.read(settings, "world", SimpleNamespace(accept=lambda kind, n=1: None)):
        if kind in rows:
            rows[kind] += table.to_pylist()
    return rows


def taught(folder: Path, source: Path, records: list[dict[str, Any]]) -> None:
    """Writes the model after demonstrations, so that its answers have their lengths."""
    import torch

    from pipeline.model import checkpoint

    torch.set_num_threads(1)
    case = SimpleNamespace(kind="sft", model=str(source), records=records, updates=TAUGHT)
    model, parts, experience = parts_of(case)
    from pipeline.training.loop import fit

    for _ in fit(model, parts, experience):
        pass
    checkpoint.save(model.eval(), folder, tokenizer=source)


# A contestant: trains and reports after every turn.


def contest(name: str, case: Any) -> None:
    """Trains as `name` does and reports its end."""
    import torch

    torch.set_num_threads(1)
    end((ours if name == "ours" else peer)(name, case))


def ours(_name: str, case: Any) -> dict[str, Any]:
    """The project's own loop."""
    from pipeline.training.loop import fit

    model, parts, experience = parts_of(case)
    turns = Turns(case, [1] * case.updates)
    lengths: list[float] = []
    for _ in fit(model, parts, experience):
        turns.update()
        if case.kind == "grpo":
            lengths += [len(rollout.answer) for rollout in experience._full().rollouts]
    return {"peak_mib": peak_mib()} | ({"rollout_tokens": round(sum(lengths) / len(lengths), 2)} if lengths else {})


RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "sft": ({"name": "instruct"}, {"name": "cross_entropy"}, {"name": "records"}),
    "dpo": ({"name": "preference"}, {"name": "dpo", "beta": BETA}, {"name": "records"}),
    "reward": ({"name": "reward"}, {"name": "bradley_terry"}, {"name": "records"}),
    "grpo": (
        {"name": "prompts"},
        {
            "name": "grpo",
            "baseline": "group",
            "standardise": True,
            "divisor": "tokens",
            "clip": {"low": 0.2, "high": 0.2},
            "kl": {"weight": 0.0, "form": "k1_in_reward"},
        },
        {
            "name": "rollouts",
            "prompts": PROMPTS,
            "samples": SAMPLES,
            "updates": 1,
            "max_tokens": NEW_TOKENS,
            "temperature": 1.0,
        },
    ),
}
"""Kind -> settings of task, loss and experience."""


def parts_of(case: Any) -> tuple[Any, Any, Any]:
    """Model, parts and experience of a case, as pipeline/training/build.py makes them of a recipe."""
    from functools import partial

    import torch

    from pipeline import config
    from pipeline.config import plugins
    from pipeline.contracts import Learner
    from pipeline.experience import Context
    from pipeline.model import checkpoint
    from pipeline.model.device import set_up
    from pipeline.tasks import TaskContext
    from pipeline.tokenizer import Tokenizer
    from pipeline.training.loop import Parts
    from pipeline.training.schedule import micro_batches
    from pipeline.weighting import uniform

    params = config.load()
    compute = params.compute.model_copy(update={"threads": 1, "precision": "float32", "compile": False})
    set_up(compute)

    def part(axis: str, told: dict[str, Any], *inputs: Any) -> Any:
        settings = plugins.settings_class(axis, told["name"])(**{k: v for k, v in told.items() if k != "name"})
        return plugins.load(axis, told["name"]).build(settings, *inputs)

    task_told, loss_told, experience_told = RECIPES[case.kind]
    model, vocabulary = checkpoint.load(Path(case.model)), Tokenizer.load(Path(case.model))
    limits = {"template": "chat", "max_tokens": ROOM, "max_prompt_tokens": ROOM - 64}
    task = part("tasks", task_told | limits, TaskContext(vocabulary, model.config.context_length, []))
    task.prepare(model, torch.Generator().manual_seed(3))
    examples = Listed([task.example(record) for record in case.records], case.records)
    learner = Learner(model, task, examples, compute, vocabulary, lambda: checkpoint.load(Path(case.model)), Lengths())
    loss = part("losses", loss_told, learner)
    plain = {"shape": "constant", "steps": case.updates, "warmup_steps": 0, "clip_norm": CLIP, "accumulate": 1}
    schedule = next(iter(params.finetune.values())).schedule.model_copy(update=plain)
    batch = PROMPTS * SAMPLES if case.kind == "grpo" else BATCH
    ordering = InOrder(batch)
    held_out = Listed(examples.examples[:BATCH], case.records[:BATCH])
    context = Context(learner, ordering, loss, partial(micro_batches, schedule), 1, held_out, "bench")
    experience = part("experience", experience_told, context)
    groups = part("tuners", {"name": "full"}).groups(model)
    rate = TAUGHT_RATE if case.kind == "sft" else RATE
    adamw = {"name": "adamw", "learning_rate": rate, "weight_decay": 0.0, "beta1": BETAS[0], "beta2": BETAS[1]}
    parts = Parts(
        task=task, loss=loss, ordering=ordering, weighting=uniform.Uniform(),
        optimizer=part("optimizers", adamw | {"epsilon": EPSILON}, groups), schedule=schedule, compute=compute, seed=1,
    )  # fmt: skip
    return model, parts, experience


class Lengths:
    """A judge: the number of an answer's tokens."""

    def scores(self, judged: Any) -> Any:
        import torch

        return torch.tensor([float(len(one.answer)) for one in judged])


class Listed:
    """Examples with their records."""

    def __init__(self, examples: list[Any], records: list[dict[str, Any]]) -> None:
        self.examples, self.records = examples, records

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> Any:
        return self.examples[i]

    def column(self, name: str) -> list[str]:
        return [record[name] for record in self.records]


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
