"""LoRA on a released encoder with few labels, by the recipes of profile `open-encoder`, beside peft in a plain loop.

    cd PROJECT && python -m tests.bench.few_labels [--seeds 3] [--sizes 16,48,128,all]

PROJECT has the profile applied and has run `dvc repro pretrain validate@samples`. Prints JSON: for every number of
labels and seed, accuracy on the book's 300 test messages, seconds and CPU seconds (which other work on the machine
changes little) from reading the model to the end of training.
Both train the same records in the same order and batches, with the same rank, projections, rate, schedule and updates,
one after the other in this process (the order alternates by seed); ours validates as its recipe says and that time
counts, peft's loop does not. Beside them TF-IDF with logistic regression on the same records.
"""

import argparse
import json
import time
from typing import Any

import torch


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", default="16,48,128,all")
    options = parser.parse_args()
    from pipeline import config
    from pipeline.model.device import set_up

    params = config.load()
    set_up(params.compute)
    runs: list[dict[str, Any]] = []
    for size in options.sizes.split(","):
        for seed in range(1, options.seeds + 1):
            name = f"spam-{size}-s{seed}"
            trained = _prepared(name, params)
            contestants = [("ours", _ours), ("peft", _peft)]
            run: dict[str, Any] = {"labels": len(trained["rows"]), "seed": seed}
            for contestant, train in contestants if seed % 2 else contestants[::-1]:
                began, busy = time.perf_counter(), time.process_time()
                model, seconds = train(name, params, trained, began)
                busy = time.process_time() - busy
                run[contestant] = {
                    "accuracy": _accuracy(model, trained), "seconds": round(seconds, 1), "cpu_seconds": round(busy, 1)
                }  # fmt: skip
            run["tfidf"] = {"accuracy": _tfidf(trained)}
            print(json.dumps(run), flush=True)
            runs.append(run)
    print(json.dumps({"bench": "few_labels", "threads": params.compute.threads, "runs": runs}, indent=1))


def _prepared(name: str, params: Any) -> dict[str, Any]:
    """The recipe's built parts without a model in use, its training rows in order, and the test messages."""
    import pyarrow.parquet as pq

    from pipeline.paths import SAMPLES

    built = _built(name, params)
    recipe, parts = params.finetune[name], built.parts
    steps = parts.schedule.steps
    order = [[int(row) for row in parts.ordering.rows(len(built.train), micro, recipe.seed)] for micro in range(steps)]
    test = pq.read_table(SAMPLES / "labelled/test.parquet").to_pylist()
    return {
        "rows": [built.train[i] for i in range(len(built.train))], "order": order, "test": test,
        "texts": built.train.column("text"), "labels": built.train.column("label"), "task": built.task,
        "schedule": parts.schedule, "rate": recipe.part("optimizer", name).learning_rate, "seed": recipe.seed,
        "tuner": recipe.part("tuner", name),
    }  # fmt: skip


def _built(name: str, params: Any) -> Any:
    from pipeline.paths import MODELS
    from pipeline.training.build import build
    from pipeline.training.start import finetune_start

    recipe = params.finetune[name]
    load, _ = finetune_start(recipe)
    return build(f"finetune.{name}", recipe, recipe.data, load, params, MODELS / recipe.start)


class _Silent:
    """A log that keeps nothing."""

    record: dict[str, Any] = {}  # noqa: RUF012 - written by the trainer, read by nobody

    def log(self, *_: Any) -> None:
        """Nothing."""


def _ours(name: str, params: Any, _trained: dict[str, Any], began: float) -> tuple[Any, float]:
    built = _built(name, params)
    quiet = params.model_copy(update={"runtime": params.runtime.model_copy(update={"progress": False})})
    built.trainer(params.finetune[name], quiet, _Silent(), name).run(None)
    seconds = time.perf_counter() - began
    model = built.model.eval()
    return (lambda ids, mask: model.classify(ids, mask)), seconds


def _peft(_name: str, _params: Any, trained: dict[str, Any], began: float) -> tuple[Any, float]:
    import peft
    import transformers

    from pipeline.model.library_folder import quiet
    from pipeline.paths import MODELS
    from pipeline.training.schedule import learning_rate_factor

    torch.manual_seed(trained["seed"])
    with quiet():
        model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(MODELS / "base", num_labels=2)
    of = trained["tuner"]
    lora = peft.LoraConfig(
        r=of.rank, lora_alpha=of.alpha, lora_dropout=of.dropout, target_modules=of.targets, task_type="SEQ_CLS"
    )
    model = peft.get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], trained["rate"], weight_decay=0.0)
    for step, rows in enumerate(trained["order"]):
        batch = trained["task"].collate([trained["rows"][i] for i in rows])
        mask = (torch.arange(batch["inputs"].shape[1]) < batch["lengths"][:, None]).long()
        for group in optimizer.param_groups:
            group["lr"] = trained["rate"] * learning_rate_factor(trained["schedule"], step)
        model(input_ids=batch["inputs"], attention_mask=mask, labels=batch["targets"]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), trained["schedule"].clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - began
    model.eval()
    return (lambda ids, mask: model(input_ids=ids, attention_mask=mask.long()).logits), seconds


@torch.no_grad()
def _accuracy(scores: Any, trained: dict[str, Any]) -> float:
    from pipeline.tasks import Request

    task, right = trained["task"], 0
    for first in range(0, len(trained["test"]), 50):
        part = trained["test"][first : first + 50]
        ids = [task.prompt(Request(row["text"])) for row in part]
        batch = task.collate([(row, 0) for row in ids])
        mask = torch.arange(batch["inputs"].shape[1]) < batch["lengths"][:, None]
        best = scores(batch["inputs"], mask).argmax(-1).tolist()
        right += sum(task.labels[i] == row["label"] for i, row in zip(best, part, strict=True))
    return round(right / len(trained["test"]), 4)


def _tfidf(trained: dict[str, Any]) -> float:
    from pipeline.baseline import LabelledTexts, fit

    test = trained["test"]
    labels = fit(
        LabelledTexts(trained["texts"], trained["labels"]), LabelledTexts([], []), [row["text"] for row in test]
    ).labels
    return round(sum(a == row["label"] for a, row in zip(labels, test, strict=True)) / len(test), 4)


if __name__ == "__main__":
    main()
