"""Peak memory and seconds of fine-tuning stages under each setting that saves memory, and their forecasts, as JSON.

    python -m tests.bench.training_memory [--cases lora,lora-checkpoint,...] [--model FOLDER] [--threads 2]

A project of its own with the embedded world and a base of SmolLM2-135M's shape (random weights; `--model`: a folder of
your own, such as SmolLM2 or MiniLM, whose vocabulary is adopted). Every case is a finetune stage, a process of its own
under the guard, as `dvc repro` runs it. Peak memory (ru_maxrss) and seconds are those of its run record: imports,
loading and saving of the model included. `memory_over_expected`: measured over what the stage expected before it began;
with `--forecast` also `seconds_over_forecast`, over the time that `tohum plan` would show.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from pipeline import files
from pipeline.paths import CODE as ROOT

SHAPE = {
    "family": "llama", "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "head_dim": 64, "d_model": 576, "d_ff": 1536,
    "context_length": 512, "dropout": 0.0, "tie_embeddings": True, "bias": False, "rope_theta": 100000.0,
    "norm_epsilon": 1e-5, "logit_softcap": None, "vocab_size": 49152,
}  # fmt: skip
PLAIN = {"precision": "float32", "checkpoint_activations": False, "weights": "float32"}
# Case -> recipe of the embedded profile, and settings of compute.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("chat-full", {}),
    "full-checkpoint": ("chat-full", {"checkpoint_activations": True}),
    "full-half": ("chat-full", {"precision": "bfloat16"}),
    "full-half-checkpoint": ("chat-full", {"precision": "bfloat16", "checkpoint_activations": True}),
    "lora": ("chat-lora", {}),
    "lora-checkpoint": ("chat-lora", {"checkpoint_activations": True}),
    "lora-half": ("chat-lora", {"precision": "bfloat16"}),
    "lora-half-weights": ("chat-lora", {"precision": "bfloat16", "weights": "bfloat16"}),
    "lora-weights": ("chat-lora", {"weights": "bfloat16"}),
    "lora-smallest": (
        "chat-lora",
        {"precision": "bfloat16", "weights": "bfloat16", "checkpoint_activations": True},
    ),
    "lora-nf4": ("chat-lora", {"precision": "bfloat16", "weights": "nf4", "checkpoint_activations": True}),
    "spam-lora": ("spam-lora", {}),
    "spam-full": ("spam-full", {}),
}
STEPS = 8


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.training_memory", description=__doc__)
    parser.add_argument("--cases", default=",".join(name for name in CASES if name != "lora-nf4"))
    parser.add_argument("--model", type=Path, help="a model folder instead of the random one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16, help="examples of a batch")
    parser.add_argument("--forecast", action="store_true", help="time the forecasts too")
    parser.add_argument("--keep", type=Path, help="where the project goes, and stays")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        project = options.keep or Path(name)
        if not (project / "models/base/manifest.json").exists():
            make(project, options)
        figures = {}
        for case in options.cases.split(","):
            figures[case] = measured(project, case, options)
            print(case, figures[case], file=sys.stderr, flush=True)
    print(json.dumps({"bench": "training_memory", "batch": options.batch, "cases": figures}, indent=1))


def make(project: Path, options: argparse.Namespace) -> None:
    """The data stages, and the base as stage pretrain writes it."""
    project.mkdir(parents=True, exist_ok=True)
    write_params(project, "chat-lora", {}, options)
    if options.model is not None:
        params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
        params["tokenize"] |= {"method": "folder", "path": str(options.model.resolve())}
        (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    for stage in ("download", "validate raw", "tokenize", "validate tokens", "sample", "validate samples"):
        run(project, stage)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.bench import training_memory as bench; "
    source = "" if options.model is None else str(options.model.resolve())
    subprocess.run([sys.executable, "-c", code + f"bench.base({source!r})"], cwd=project, check=True)


def base(source: str) -> None:
    """Writes models/base in the working directory: the model in `source`, or a random one."""
    import torch

    from pipeline.model import checkpoint
    from pipeline.model.config import ModelConfig
    from pipeline.model.gpt import GPT
    from pipeline.paths import MODELS, TOKENIZER
    from tests.specs import TEXT, written

    if source:
        model = checkpoint.load(Path(source))
    else:
        model = GPT(ModelConfig.model_validate(SHAPE), torch.Generator().manual_seed(1))
    checkpoint.save(model, MODELS / "base", tokenizer=TOKENIZER, metadata=written([TEXT.within(512)]))


def write_params(project: Path, recipe: str, compute: dict[str, Any], options: argparse.Namespace) -> None:
    """The embedded profile with these settings, a short schedule and one size of batch."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["compute"] |= PLAIN | compute | {"threads": options.threads}
    raw["runtime"]["tracking"]["enabled"] = raw["runtime"]["progress"] = False
    for chosen in raw["finetune"].values():
        chosen["ordering"]["batch_size"] = options.batch
        chosen["schedule"] |= {"steps": STEPS, "warmup_steps": 1}
        chosen["validation"] |= {"every": STEPS // 2, "batches": 2}
        chosen["optimizer"] = {
            "name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8,
        }  # fmt: skip
    assert recipe in raw["finetune"]
    (project / "params.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), encoding="utf-8")


def measured(project: Path, case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory, seconds and the forecast of one case."""
    recipe, compute = CASES[case]
    write_params(project, recipe, compute, options)
    run(project, f"finetune {recipe}")
    record = files.read_json(project / f"reports/runs/finetune@{recipe}.json")
    over = {"memory_over_expected": round(record["peak_memory_mib"] / record["expected_memory_mib"], 3)}
    if options.forecast:
        foretold = run(project, f"finetune.{recipe}", "pipeline.training.forecast")
        line = next(line for line in foretold.splitlines() if line.startswith("forecast: "))
        seconds = json.loads(line.removeprefix("forecast: "))["seconds"]
        over["seconds_over_forecast"] = round(record["seconds_total"] / seconds, 3)
    loss = files.read_json(project / f"reports/training/{recipe}.json")["validation_loss_nats"]
    return {
        "peak_mib": round(record["peak_memory_mib"]),
        "seconds": record["seconds_total"],
        "seconds_update": round(record["training_seconds"] / STEPS, 2),
        "validation_loss_nats": round(loss, 5),
    } | over


def run(project: Path, stage: str, module: str = "") -> str:
    """Runs one stage, or another module, and returns its output. Raises SystemExit if it fails."""
    guard = str(ROOT / "pipeline/orchestration/guard.py")
    command = [sys.executable, "-P", guard, *([module, stage] if module else f"stages.{stage}".split())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
