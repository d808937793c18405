"""Fine-tuning beside peft with transformers' Trainer, and TRL's SFTTrainer: speed and memory.

    python -m tests.bench.finetuning [--rounds 5] [--only ours,trainer]
    python -m tests.bench.finetuning --smollm2 FOLDER --instructions FILE --tasks instruct --sizes smollm2
    python -m tests.bench.finetuning --minilm FOLDER --messages train.csv --tasks classify --sizes minilm

Prints JSON. Two cases, LoRA on the instruction recipe and full fine-tuning on the classification recipe, each on two
sizes of network; with folders of open weights LoRA on those too: SmolLM2 on a JSON file of instructions (instruction,
input, output), MiniLM, an encoder that transformers computes in both, on a CSV file of messages (Label, Text). Every
contestant is a process of its own, with the same start weights (a model folder of ours), the
same examples in the same order as the same token ids, batch size, updates, AdamW, clipping, trained parameters, float32
and threads; they take turns of a few updates, and the median turn counts. The peer pads to the longest of the batch and
neither logs, saves nor evaluates. Tokens are real ones: padding does not count. Memory is the most that a process ever
had resident, its imports and its model's loading included; where TRL is not installed the bench says so and goes on.

`loss_nats`: over the first examples before and after, by one formula for all, so that it shows who learned what. Ours
is the mean of the examples' means, theirs the mean over all answer tokens of a batch.
"""

import argparse
import importlib.util
import json
import statistics
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.bench.turns import InOrder, Turns, compare, end, peak_mib

WARM, TURN = 3, {"embedded": 10, "10M": 3, "smollm2": 2, "minilm": 5}
SIZES: dict[str, dict[str, Any]] = {
    "embedded": {},
    "10M": {"n_layers": 7, "n_heads": 5, "n_kv_heads": 5, "head_dim": 64, "d_model": 320, "d_ff": 960},
}
RECIPES = {"instruct": "chat-lora", "classify": "spam-full"}
CONTESTANTS = {
    "instruct": ("ours", "trainer", "trl", "trl-padding-free", "trl-packed"),
    "classify": ("ours", "trainer"),
}
RATES = {"instruct": 5e-3, "classify": 1e-3}
OPEN = {"smollm2": "instruct", "minilm": "classify"}
"""Open weights -> their task."""
LORA: dict[str, Any] = {
    "rank": 8, "alpha": 16.0, "rank_stabilised": False, "decompose": False, "dropout": 0.0, "merged": True,
}  # fmt: skip
PROJECTIONS = {
    "smollm2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "minilm": ["query", "value"],
}
BETAS, EPSILON, CLIP = (0.9, 0.95), 1e-8, 1.0
MEASURED = 64  # examples of loss_nats


# The parent: makes data and models, lets the contestants take turns, prints.


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--only", default="", help="contestants, separated by commas; all by default")
    parser.add_argument("--sizes", default=",".join(SIZES), help="of %(default)s, smollm2, minilm")
    parser.add_argument("--tasks", default=",".join(RECIPES), help="of %(default)s")
    for name in OPEN:
        parser.add_argument(f"--{name}", type=Path, help="model folder (tohum adopt)")
    parser.add_argument("--instructions", type=Path, help="JSON file for smollm2")
    parser.add_argument("--messages", type=Path, help="CSV file for minilm")
    parser.add_argument("--threads", type=int, help="of torch; compute.threads by default")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contest(options.contestant, SimpleNamespace(**json.loads(options.case.read_text())))
        return
    found: dict[str, Any] = {"bench": "finetuning", "rounds": options.rounds}
    if importlib.util.find_spec("trl") is None:
        found["trl"] = "not installed"
    with tempfile.TemporaryDirectory() as folder:
        made = {} if options.smollm2 or options.minilm else make(Path(folder), options.rounds, options.threads)
        made |= make_open(Path(folder), options)
        for name, path in made.items():
            task, size = name.split(", ")
            if task in options.tasks.split(",") and size in options.sizes.split(","):
                chosen = [one for one in CONTESTANTS[task] if one in (options.only or one).split(",")]
                if "trl" in found:
                    chosen = [one for one in chosen if not one.startswith("trl")]
                found[name] = compare("tests.bench.finetuning", chosen, path, options.rounds)
    print(json.dumps(found, indent=1))


def make(folder: Path, rounds: int, threads: int | None) -> dict[str, Path]:
    """Case name -> its file: examples as ids, start weights and settings; all that a contestant may know."""
    import torch

    from pipeline import config, tokenizer
    from pipeline.data.sources import world
    from pipeline.model import checkpoint
    from pipeline.model.config import ModelConfig
    from pipeline.model.gpt import GPT

    params = config.load()
    settings = world.Settings(
        seed=7,
        people=16,
        documents=1500,
        labelled=1500,
        instructions=2500,
        preferences=0,
        planted=[],
        noise=None,
        retold=0,
        tasks=None,
        doses=None,
    )
    rows: dict[str, list[dict[str, Any]]] = {"documents": [], "labelled": [], "instructions": []}
    for kind, table in world.read(settings, "world", SimpleNamespace(accept=lambda kind, n=1: None)):
        rows[kind] += table.to_pylist()
    vocabulary = tokenizer.train((row["text"] for row in rows["documents"]), 2048, "gpt2")
    vocabulary.save(folder / "tokenizer")
    cases = {}
    for task, name in RECIPES.items():
        recipe = params.finetune[name]
        learned, labels = task_of(task, recipe, vocabulary, params.pretrain.model.context_length)
        examples = [learned.example(row) for row in rows[recipe.data]]
        for size, changes in SIZES.items():
            shape = ModelConfig(**(params.pretrain.model.model_dump() | changes), vocab_size=2048)
            model = GPT(shape, torch.Generator().manual_seed(1))
            if labels:
                model.add_score(len(labels), torch.Generator().manual_seed(2))
            where = folder / f"{task}-{size}"
            checkpoint.save(model, where, tokenizer=folder / "tokenizer", labels=labels or None)
            cases[f"{task}, {size}"] = folder / f"{task}-{size}.json"
            cases[f"{task}, {size}"].write_text(json.dumps({
                "task": task, "model": str(where), "examples": examples, "warm": WARM, "turn": TURN[size],
                "updates": WARM + rounds * TURN[size], "threads": threads or params.compute.threads,
                "batch": recipe.part("ordering", "").batch_size, "rate": RATES[task],
                "part": recipe.part("task", "").model_dump(),
                "lora": recipe.part("tuner", "").model_dump() if task == "instruct" else None,
                "targets": PROJECTIONS["smollm2"],
            }))  # fmt: skip
    return cases


def make_open(folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """As `make`, for the folders of open weights on the command line."""
    import csv

    import torch

    from pipeline import config
    from pipeline.config import plugins
    from pipeline.model import checkpoint
    from pipeline.tasks import TaskContext
    from pipeline.tokenizer import Tokenizer

    cases = {}
    for name, task in OPEN.items():
        source = getattr(options, name)
        if source is None:
            continue
        vocabulary, model = Tokenizer.load(source), checkpoint.load(source)
        if task == "instruct":
            rows = [{"history": "", **row} for row in json.loads(options.instructions.read_text(encoding="utf-8"))]
            part = {"template": "alpaca", "max_tokens": 256, "max_prompt_tokens": 128}
        else:
            with options.messages.open(encoding="utf-8", newline="") as opened:
                named = {"0": "ham", "1": "spam"}
                rows = [
                    {"text": row["Text"], "label": named.get(row["Label"], row["Label"])}
                    for row in csv.DictReader(opened)
                ]
            part = {"max_tokens": 128}
            model.add_score(2, torch.Generator().manual_seed(2))
        labels = ["ham", "spam"] if task == "classify" else []
        learned = plugins.load("tasks", task).build(
            plugins.settings_class("tasks", task)(**part), TaskContext(vocabulary, model.config.context_length, labels)
        )
        (folder / f"vocabulary-{name}").mkdir()
        vocabulary.save(folder / f"vocabulary-{name}")
        where = folder / f"{task}-{name}"
        checkpoint.save(model, where, tokenizer=folder / f"vocabulary-{name}", labels=labels or None)
        examples = [made for row in rows if isinstance(made := learned.example(row), tuple)]
        cases[f"{task}, {name}"] = folder / f"{task}-{name}.json"
        cases[f"{task}, {name}"].write_text(json.dumps({
            "task": task, "model": str(where), "examples": examples, "warm": WARM, "turn": TURN[name],
            "updates": WARM + options.rounds * TURN[name], "batch": 8 if task == "instruct" else 16,
            "threads": options.threads or config.load().compute.threads, "rate": 5e-4, "part": part,
            "lora": LORA | {"targets": PROJECTIONS[name]}, "targets": PROJECTIONS[name],
        }))  # fmt: skip
    return cases


def task_of(task: str, recipe: Any, vocabulary: Any, context_length: int) -> tuple[Any, list[str]]:
    """What the recipe learns, and its labels."""
    from pipeline.config import plugins
    from pipeline.tasks import TaskContext

    labels = ["ham", "spam"] if task == "classify" else []
    settings = recipe.part("task", f"finetune.{RECIPES[task]}")
    context = TaskContext(vocabulary, context_length, labels)
    return plugins.load("tasks", task).build(settings, context), labels


# A contestant: trains and reports after every turn.


def contest(name: str, case: Any) -> None:
    """Trains as `name` does and reports its end."""
    import torch

    torch.set_num_threads(case.threads)
    end(ours(case) if name == "ours" else peer(name, case))


def batches(lengths: list[int], size: int) -> list[int]:
    """Real tokens of every batch."""
    return [sum(lengths[i : i + size]) for i in range(0, len(lengths), size)]


def ending(before: float, peak: int, after: float, moved: int) -> dict[str, Any]:
    return {"peak_mib": peak, "loss_nats": [round(before, 4), round(after, 4)], "trained_parameters": moved}


def ours(case: Any) -> dict[str, Any]:
    """The project's own loop."""
    import torch

    from pipeline import config
    from pipeline.config import plugins
    from pipeline.losses.cross_entropy import CrossEntropy
    from pipeline.model import checkpoint
    from pipeline.model.device import set_up
    from pipeline.optimizers import adamw
    from pipeline.tasks import TaskContext
    from pipeline.tokenizer import Tokenizer
    from pipeline.training.loop import Parts, fit
    from pipeline.weighting import uniform
    from tests.learners import records

    params = config.load()
    set_up(params.compute.model_copy(update={"threads": case.threads}))
    recipe = params.finetune[RECIPES[case.task]]
    model = checkpoint.load(Path(case.model))
    vocabulary = Tokenizer.load(Path(case.model))
    labels = ["ham", "spam"] if case.task == "classify" else []
    learned = plugins.load("tasks", case.task).build(
        plugins.settings_class("tasks", case.task)(**case.part),
        TaskContext(vocabulary, model.config.context_length, labels),
    )
    name = "full" if case.lora is None else "lora"
    tuner = plugins.load("tuners", name).build(plugins.settings_class("tuners", name)(**(case.lora or {})))
    learned.prepare(model, torch.Generator().manual_seed(3))
    tuner.apply(model, torch.Generator().manual_seed(3), vocabulary.encode)
    settings = adamw.Settings(
        learning_rate=case.rate, weight_decay=0.0, beta1=BETAS[0], beta2=BETAS[1], epsilon=EPSILON
    )
    schedule = recipe.schedule.model_copy(
        update={"shape": "constant", "steps": case.updates, "warmup_steps": 0, "clip_norm": CLIP, "accumulate": 1}
    )
    parts = Parts(
        task=learned, ordering=InOrder(case.batch), loss=CrossEntropy(learned), weighting=uniform.Uniform(),
        optimizer=adamw.build(settings, tuner.groups(model)), schedule=schedule, compute=params.compute, seed=1,
    )  # fmt: skip
    score = (lambda ids, mask: model.classify(ids, mask)) if case.task == "classify" else lambda ids, mask: model(ids)
    before = loss(case, model, score)
    turns = Turns(case, batches([len(ids) for ids, _ in case.examples], case.batch))
    for _ in fit(model, parts, records(model, parts, case.examples)):
        turns.update()
    return ending(before, peak_mib(), loss(case, model, score), model.num_parameters(trainable=True))


def peer(name: str, case: Any) -> dict[str, Any]:
    """peft and transformers' Trainer, or TRL's; in TRL's packed rows a batch has about as many tokens as elsewhere."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    kind = "ForSequenceClassification" if case.task == "classify" else "ForCausalLM"
    model = getattr(transformers, f"AutoModel{kind}").from_pretrained(case.model, dtype=torch.float32)
    vocabulary = transformers.AutoTokenizer.from_pretrained(case.model)
    model.config.pad_token_id = vocabulary.pad_token_id
    model.config.use_cache = False
    if case.lora is not None:
        import peft

        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=case.lora["rank"], lora_alpha=case.lora["alpha"], lora_dropout=case.lora["dropout"],
                target_modules=case.targets, task_type="CAUSAL_LM" if case.task == "instruct" else "SEQ_CLS",
            ),
        )  # fmt: skip
    before = loss(case, model, score_of(model))
    trainer = (trl_trainer if name.startswith("trl") else plain_trainer)(name, case, model, vocabulary)
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    turns = Turns(case, batches(lengths, trainer.args.per_device_train_batch_size))

    class Callback(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.update()

    trainer.add_callback(Callback())
    trainer.train()
    moved = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return ending(before, peak_mib(), loss(case, model, score_of(model)), moved)


def arguments(case: Any, batch: int) -> dict[str, Any]:
    """What both trainers are told: nothing beside training, and our optimizer."""
    return {
        "output_dir": str(Path(case.model).parent / "unused"), "per_device_train_batch_size": batch,
        "max_steps": case.updates, "learning_rate": case.rate, "lr_scheduler_type": "constant", "warmup_steps": 0,
        "optim": "adamw_torch_fused", "weight_decay": 0.0, "adam_beta1": BETAS[0], "adam_beta2": BETAS[1],
        "adam_epsilon": EPSILON, "max_grad_norm": CLIP, "logging_strategy": "no", "save_strategy": "no",
        "eval_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "dataloader_num_workers": 0, "dataloader_pin_memory": False,
        "train_sampling_strategy": "sequential",
    }  # fmt: skip


def labelled(case: Any) -> list[dict[str, Any]]:
    """The examples as the trainers take them."""
    if case.task == "classify":
        return [{"input_ids": ids, "label": label} for ids, label in case.examples]
    return [{"input_ids": ids, "labels": targets} for ids, targets in case.examples]


def plain_trainer(name: str, case: Any, model: Any, vocabulary: Any) -> Any:
    """transformers' Trainer, padding to the longest of a batch."""
    import transformers

    collators = {
        "instruct": transformers.DataCollatorForSeq2Seq(vocabulary, padding=True),
        "classify": transformers.DataCollatorWithPadding(vocabulary),
    }
    told = transformers.TrainingArguments(**arguments(case, case.batch))
    return transformers.Trainer(model, told, data_collator=collators[case.task], train_dataset=labelled(case))


def trl_trainer(name: str, case: Any, model: Any, vocabulary: Any) -> Any:
    """TRL's SFTTrainer: padding, the whole batch as one row, or packed rows of 128 tokens."""
    import datasets
    import trl

    room, mean = 128, statistics.mean(len(ids) for ids, _ in case.examples)
    more: dict[str, Any] = {"max_length": room}
    batch = case.batch
    if name == "trl-padding-free":
        more = {"padding_free": True, "max_length": None}
    elif name == "trl-packed":
        more, batch = {"packing": True, "max_length": room}, round(case.batch * mean / room)
    told = trl.SFTConfig(**arguments(case, batch), **more)
    return trl.SFTTrainer(
        model, told, train_dataset=datasets.Dataset.from_list(labelled(case)), processing_class=vocabulary
    )


def score_of(model: Any) -> Any:
    return lambda ids, mask: model(input_ids=ids, attention_mask=mask.long()).logits


def loss(case: Any, model: Any, score: Any) -> float:
    """Mean loss over the first examples, in nats, one formula for every contestant."""
    import torch
    from torch.nn import functional as F

    found = []
    model.eval()
    with torch.no_grad():
        for ids, target in case.examples[:MEASURED]:
            ids_BT = torch.tensor([ids])
            logits = score(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))
            if case.task == "classify":
                found.append(F.cross_entropy(logits, torch.tensor([target])))
            else:
                found.append(F.cross_entropy(logits[0, :-1], torch.tensor(target[1:])))
    model.train()
    return float(torch.stack(found).mean())


if __name__ == "__main__":
    main()
