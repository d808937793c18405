"""Disk space of LoRA recipes over one large base, in the working folder and DVC's cache, as JSON.

    python -m tests.bench.adapter_storage [--recipes 20] [--rank 8] [--targets q_proj v_proj] [--merged] [--tiny]

A random base with the shape of SmolLM2-135M (30 layers, 576 wide, 49,152 tokens; weights need no meaning here) and so
many recipes over it, each one update long, by the code of stage finetune; every out is added to DVC in a folder with
the project's own .dvc/config. `times_base` is the space of all of it over that of the base alone: in the cache, in the
working folder (where copies of a file that DVC stores once count each time), and in both. `--merged` stores whole
models; `--tiny` takes a base of two layers, to see it run.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import yaml

from pipeline import config, files, tokenizer
from pipeline.config.params import Params
from pipeline.data.records import SCHEMAS
from pipeline.model import checkpoint
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.paths import CODE as ROOT
from pipeline.paths import MODELS
from pipeline.prompts.spec import TEXT
from pipeline.tracking.tracker import NullTracker
from pipeline.training import recipe as recipes
from tests.fakes import labelled
from tests.specs import written

SHAPE = {
    "family": "llama", "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "head_dim": 64, "d_model": 576, "d_ff": 1536,
    "context_length": 2048, "dropout": 0.0, "tie_embeddings": True, "bias": False, "rope_theta": 1e5,
    "norm_epsilon": 1e-5, "logit_softcap": None, "vocab_size": 49_152,
}  # fmt: skip
TINY = {"n_layers": 2, "d_model": 64, "d_ff": 128, "n_heads": 2, "n_kv_heads": 1, "head_dim": 32, "vocab_size": 400}


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.adapter_storage", description=__doc__)
    parser.add_argument("--recipes", type=int, default=20)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", nargs="+", default=["q_proj", "v_proj"])
    parser.add_argument("--merged", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    tuner = {
        "name": "lora", "rank": options.rank, "alpha": 16.0, "rank_stabilised": False, "decompose": False,
        "dropout": 0.0, "targets": options.targets, "merged": options.merged,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="tohum-bench-") as name, chdir(name):
        print(json.dumps(measured(tuner, options.recipes, SHAPE | (TINY if options.tiny else {})), indent=1))


def measured(tuner: dict[str, Any], count: int, shape: dict[str, Any]) -> dict[str, Any]:
    """Bytes of the base and of everything, in the working folder and the cache; made in the working directory."""
    _dvc("init", "--no-scm", "--quiet")
    settings = (ROOT / ".dvc/config").read_text(encoding="utf-8").replace("[core]\n", "[core]\n    no_scm = True\n")
    Path(".dvc/config").write_text(settings, encoding="utf-8")
    _write_base(shape)
    _write_records()
    _dvc("add", "--quiet", "models/base")
    base = _sizes()
    params = _params(tuner, count)
    for name, recipe in params.finetune.items():
        recipes.train(
            name, f"finetune.{name}", recipe, "labelled",
            lambda generator, device: checkpoint.load(MODELS / "base", str(device)),
            [MODELS / "base"], params, NullTracker(), MODELS / "base",
        )  # fmt: skip
    _dvc("add", "--quiet", *(f"models/{name}" for name in params.finetune))
    every = _sizes()
    return {
        "recipes": count, "tuner": tuner, "base_parameters": _parameters(shape),
        "bytes": {"base": base, "all": every},
        "times_base": {place: round(every[place] / base[place], 3) for place in base},
    }  # fmt: skip


def _write_base(shape: dict[str, Any]) -> None:
    draw = random.Random(0)
    letters = "abcçdefgğhıijklmnoöprsştuüvyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(2 * shape["vocab_size"])]
    texts = [" ".join(draw.choices(words, k=200)) for _ in range(max(20, shape["vocab_size"] // 20))]
    vocabulary = tokenizer.train(texts, shape["vocab_size"], "gpt2")
    vocabulary.save(Path("words"))
    model = GPT(ModelConfig.model_validate(shape), torch.Generator().manual_seed(1))
    checkpoint.save(model, MODELS / "base", tokenizer=Path("words"), metadata=written([TEXT]))


def _write_records() -> None:
    rows = [labelled(f"ödül {i}" if i % 2 else f"akşam {i}", "spam" if i % 2 else "ham") for i in range(12)]
    full = [{"id": str(i), "source": "own", "language": "tr", "split": "train"} | row for i, row in enumerate(rows)]
    names = SCHEMAS["labelled"].names
    for split in ("train", "validation"):
        table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in full])
        files.write_table(Path(f"data/samples/labelled/{split}.parquet"), table)


def _params(tuner: dict[str, Any], count: int) -> Params:
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["runtime"]["progress"], raw["search"] = False, {}
    raw["runtime"]["checkpoint_every"] = 10
    recipe = raw["finetune"]["spam-lora"] | {"tuner": tuner, "task": {"name": "classify", "max_tokens": 40}}
    recipe["ordering"] = {"name": "shuffled", "batch_size": 2}
    recipe["schedule"] |= {"steps": 1, "warmup_steps": 0}
    recipe["validation"] |= {"every": 1, "batches": 1}
    raw["finetune"] = {f"lora-{number}": recipe | {"seed": number} for number in range(count)}
    raw["evaluations"] = dict.fromkeys(raw["finetune"], raw["evaluations"]["spam-lora"]) | {
        "base": raw["evaluations"]["base"]
    }
    raw["register"]["models"] = []
    return config.check(raw)


def _sizes() -> dict[str, int]:
    """Bytes on disk, files with several names once: a reflink or a hardlink of the cache takes no further space."""
    places = {
        "working_folder": [Path("models")],
        "cache": [Path(".dvc/cache")],
        "both": [Path("models"), Path(".dvc/cache")],
    }
    return {name: _bytes(folders) for name, folders in places.items()}


def _bytes(folders: list[Path]) -> int:
    seen: dict[tuple[int, int], int] = {}
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        status = path.lstat()
        seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def _parameters(shape: dict[str, Any]) -> int:
    return GPT(ModelConfig.model_validate(shape), None).num_parameters()


def _dvc(*arguments: str) -> None:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
