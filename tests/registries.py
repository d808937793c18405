"""Tiny projects with registered models, as the graph leaves them, for tests of the registry."""

from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline import files, tokenizer
from pipeline.config.params import Params
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.paths import CODE as ROOT
from pipeline.registry import Registry, admission
from tests.models import shape
from tests.specs import ANSWERS, REWARD, SPAM, TEXT, labels_of, written


def params(uri: str = "sqlite:///mlflow.db") -> Params:
    """The project's params with its own three models and an MLflow store at `uri`."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["runtime"]["tracking"] = {"enabled": True, "uri": uri, "experiment": "tests"}
    raw["register"] = {"name": "tohum", "models": ["base", "spam-full", "chat-full"]}
    return Params.model_validate(raw)


def make_model(name: str, seed: int = 1) -> Path:
    """A tiny model folder, whole and evaluated, as the graph leaves it."""
    words = Path("tokenizer")
    if not words.is_dir():
        tokenizer.train(["Ayşe İzmir'de yaşıyor. Merhaba dünya, free prize now! " * 20], 300, "gpt2").save(words)
    vocabulary = tokenizer.Tokenizer.load(words).vocab_size
    draw = torch.Generator().manual_seed(seed)
    model = GPT(shape(n_layers=1, n_kv_heads=2, context_length=64, vocab_size=vocabulary), draw)
    task = {"base": TEXT, "spam-full": SPAM, "chat-full": ANSWERS, "reward": REWARD}[name]
    if task.outputs:
        model.add_score(len(task.outputs), draw)
    folder = Path("models") / name
    checkpoint.save(model, folder, tokenizer=words, labels=labels_of(task), metadata=written([task]))
    evaluate(name)
    return folder


def evaluate(name: str) -> None:
    """What evaluation and the gates would have written about models/<name>."""
    report = Path("reports/evaluation") / name
    files.write_json(report / "metrics.json", {"accuracy": 0.75, "loss_nats": 0.5})
    details = {"model_sha256": files.sha256_of(Path("models") / name)}
    files.write_json(report / "details.json", details)
    for gate in ("raw", "tokens", "samples", name):
        files.write_json(Path("reports/gates") / gate / "verdict.json", {"passed": True, "results": []})
    source = {
        "name": "world",
        "address": "a|b",
        "licence": "CC0-1.0",
        "consent": "synthetic",
        "rows": {"labelled": 9},
    }
    files.write_json(Path("data/raw/provenance.json"), {"sources": {"world": source}})
    stage = "pretrain" if name == "base" else f"finetune@{name}"
    record = {
        "run_uid": "c0ffee",
        "seconds_total": 12.5,
        "peak_memory_mib": 300.0,
        "energy_wh_estimated": 0.01,
    }
    files.write_json(Path("reports/runs") / f"{stage}.json", record)


def register(store: Registry, name: str) -> tuple[Any, bool]:
    """What `tohum register` does for one model."""
    return store.register(admission.admit(name, params()), Path("models") / name)
