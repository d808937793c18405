"""A finished project, small, made by its stages in this process, and faults to put into its files."""

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pipeline.config.recipe import KINDS
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.paths import MEASURES
from pipeline.studies.workspace import lenient

SPAM, CHAT, BOTH = "spam-lora", "chat-lora", "both"
MODELS = ("base", SPAM, CHAT, BOTH)
RECORDS = [f"{kind}.parquet" for kind in KINDS]
STAGES = (
    "download", "validate raw", "tokenize", "validate tokens", "sample", "validate samples", "pretrain",
    f"finetune {SPAM}", f"finetune {CHAT}", f"merge {BOTH}", *(f"evaluate {name}" for name in MODELS),
    *(f"validate model {name}" for name in MODELS), "report",
)  # fmt: skip
"""Every stage of the small project, in the order of the graph."""


def small_params() -> dict[str, Any]:
    """The embedded default with few records, few steps, two recipes and their merge, and gates that let all pass."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["compute"]["threads"] = 1
    raw["runtime"]["progress"] = raw["runtime"]["tracking"]["enabled"] = False
    raw["download"]["sources"]["world"] |= {"documents": 150, "labelled": 80, "instructions": 60, "preferences": 20}
    raw["tokenize"]["vocab_size"] = 320
    raw["split"] |= {"validation": 0.15, "test": 0.15}
    raw["pretrain"]["model"] |= {"n_layers": 1, "d_model": 32, "n_heads": 2, "n_kv_heads": 2, "d_ff": 48}
    raw["pretrain"]["model"] |= {"head_dim": 16, "context_length": 128}
    raw["finetune"] = {name: raw["finetune"][name] for name in (SPAM, CHAT)}
    for recipe in (raw["pretrain"], *raw["finetune"].values()):
        recipe["schedule"] |= {"steps": 2, "warmup_steps": 1}
        recipe["validation"] |= {"every": 1, "batches": 1}
    raw["merge"] = {BOTH: {"of": "base", "first": CHAT, "second": SPAM, "rule": {"name": "linear", "scales": [1, 1]}}}
    answers = {"split": "test", "batch_size": 16, "max_tokens": 4, "max_records": 4}
    measures = {
        "base": {
            "perplexity": {"split": "test", "batch_size": 16, "max_documents": 8},
            "bag_of_words": {"split": "test"},
        },
        SPAM: {"classification": {"split": "test", "batch_size": 16, "baseline": "bag_of_words"}},
        CHAT: {"exact_match": answers},
        BOTH: {"exact_match": answers},
    }  # fmt: skip
    raw["evaluations"] = {name: {"measures": measures[name], "thresholds": {}} for name in MODELS}
    raw["gates"], raw["search"], raw["register"]["models"] = lenient(raw["gates"]), {}, []
    return raw


def finish(folder: Path) -> None:
    """Runs every stage in the working directory `folder`."""
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params(), sort_keys=False), encoding="utf-8")
    (folder / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    for stage in STAGES:
        run(stage)


def run(stage: str) -> None:
    """One stage's main, as `python -m stages.<stage>` runs it; what it prints is dropped."""
    name, *arguments = stage.split()
    shutil.rmtree(MEASURES, ignore_errors=True)  # results kept from intact bytes: evaluate would read no samples
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        with redirect_stdout(StringIO()), _verdicts_kept(name):
            importlib.import_module(f"stages.{name}").main()
    finally:
        sys.argv = before


@contextmanager
def _verdicts_kept(stage: str) -> Iterator[None]:
    """Puts tickets and verdicts back where a gate ends in an error: it withdraws the old ones before it reads."""
    if stage != "validate":
        yield
        return
    with TemporaryDirectory() as scratch:
        folders = [Path("data/tickets"), Path("reports/gates")]
        for folder in folders:
            if folder.exists():
                shutil.copytree(folder, Path(scratch) / folder)
        try:
            yield
        except UserError:
            for folder in folders:
                shutil.copytree(Path(scratch) / folder, folder, dirs_exist_ok=True)
            raise


def flip(path: Path, byte: int, bit: int) -> None:
    """Turns one bit over in place; inode, size and times of reading and writing stay, as when a disk rots."""
    status, mode = path.stat(), path.stat().st_mode
    path.chmod(mode | 0o200)
    with path.open("r+b") as file:
        file.seek(byte)
        value = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([value ^ 1 << bit]))
    path.chmod(mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def flipped(path: Path, byte: int, bit: int) -> Iterator[None]:
    """Turns one bit over for the length of the block."""
    flip(path, byte, bit)
    try:
        yield
    finally:
        flip(path, byte, bit)


def outs(folder: Path) -> list[Path]:
    """Every file that the stages made, relative to the project."""
    made = [path for name in ("data", "models", "reports") for path in (folder / name).rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder) for path in made)


def readers(path: Path) -> list[str]:  # noqa: C901 - a table, one case a line
    """The stages that open a file of the small project; none for pages and run records, which people read."""
    match path.parts:
        case ("data", "raw", "documents.parquet"):
            return ["validate raw", "tokenize", "validate tokens", "sample"]
        case ("data", "raw", "provenance.json"):
            return ["validate raw", "report"]
        case ("data", "raw", "ledger.json"):
            return ["validate raw", "validate samples"]
        case ("data", "raw", name):
            return ["validate raw", *(["sample"] if name in RECORDS else [])]
        case ("data", "tokens", "tokenizer", _):
            return ["validate tokens", "sample", "validate samples", "pretrain"]
        case ("data", "tokens", name):
            return ["validate tokens", *(["sample"] if name != "manifest.json" else [])]
        case ("data", "samples", kind, name):
            return ["validate samples", *_trainers(kind), *_evaluators(kind, name)]
        case ("data", "samples", _):
            return ["validate samples"]
        case ("data", "tickets", "raw", name):
            return ["sample", *(["tokenize"] if name == "documents.json" else [])]
        case ("data", "tickets", "tokens", _):
            return ["sample"]
        case ("data", "tickets", "samples", name):
            return _trainers(name.removesuffix(".json"))
        case ("models", "base", *_):
            return [f"finetune {SPAM}", f"finetune {CHAT}", f"merge {BOTH}", "evaluate base"]
        case ("models", name, *_):
            return [f"evaluate {name}", *([f"merge {BOTH}"] if name != BOTH else [])]
        case ("reports", "evaluation", name, _):
            return [f"validate model {name}", "report"]
        case ("reports", "evaluation" | "training" | "gates", *_):
            return ["report"]
    return []


def _trainers(kind: str) -> list[str]:
    made = {"documents": ["pretrain"], "labelled": [f"finetune {SPAM}"], "instructions": [f"finetune {CHAT}"]}
    return made.get(kind, [])


def _evaluators(kind: str, name: str) -> list[str]:
    if kind == "documents":
        return ["evaluate base"] if name.startswith(("test", "meta")) else []
    if kind == "labelled":  # words are counted in the training split too
        tested = [f"evaluate {SPAM}"] if name.startswith("test") else []
        return [*tested, *(["evaluate base"] if not name.startswith("validation") else [])]
    return [f"evaluate {CHAT}", f"evaluate {BOTH}"] if kind == "instructions" and name.startswith("test") else []
