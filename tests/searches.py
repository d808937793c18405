"""A small project to search in: a base model, its vocabulary, a few messages, and a search in params.yaml."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa

from pipeline import files, tokenizer
from pipeline.data.records import SCHEMAS
from pipeline.model import checkpoint
from pipeline.paths import CODE as ROOT
from pipeline.studies.search import STORE
from tests.fakes import labelled
from tests.models import network

RATE, RANK = "optimizer.learning_rate", "tuner.rank"
SPACE = {RATE: {"low": 1e-3, "high": 1e-1, "log": True}, RANK: {"choices": [1, 2, 4]}}

SMALL = {
    "threads: 2": "threads: 1", "progress: true": "progress: false", "max_tokens: 96": "max_tokens: 40",
    "steps: 120, warmup_steps: 10": "steps: 8, warmup_steps: 1", "every: 40, batches: 10": "every: 2, batches: 1",
}  # fmt: skip


def template(folder: Path) -> Path:
    """Makes the project in `folder`, without params.yaml."""
    tokenizer.train(["Ayşe geldi, ödül kazandın! It is a message. " * 20], 300, "gpt2").save(folder / "words")
    vocabulary = tokenizer.Tokenizer.load(folder / "words").vocab_size
    base = network("llama", vocab_size=vocabulary, context_length=48, tie_embeddings=False)
    checkpoint.save(base, folder / "models/base", tokenizer=folder / "words")
    rows = [labelled(f"ödül {i}" if i % 2 else f"akşam {i}", "spam" if i % 2 else "ham") for i in range(24)]
    full = [{"id": str(i), "source": "own", "language": "tr", "split": "train"} | row for i, row in enumerate(rows)]
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMAS["labelled"].names} for row in full])
    for split in ("train", "validation"):
        files.write_table(folder / f"data/samples/labelled/{split}.parquet", table)
    (folder / STORE).parent.mkdir()
    optuna.storages.RDBStorage(f"sqlite:///{folder / STORE}")  # its tables take a second: once is enough
    return folder


def copied(made: Path, folder: Path, **settings: Any) -> None:
    """A copy of the template, with a search of these settings in its params.yaml."""
    shutil.copytree(made, folder)
    text = (ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8")
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    text = text.replace("sqlite:///mlflow.db", f"sqlite:///{folder}/mlflow.db")
    entry = {"trials": 5, "seed": 1, "pruner": {"warmup_validations": 1, "startup_trials": 2}, "space": SPACE}
    text = with_search(text, f"search:\n  spam-lora: {json.dumps(entry | settings)}\n")
    (folder / "params.yaml").write_text(text, encoding="utf-8")


def with_search(text: str, section: str) -> str:
    """The text of a params.yaml with this section in the place of its `search`."""
    return re.sub(r"^search:.*\n(?:[ #].*\n|\n)*", lambda _: section, text, count=1, flags=re.M)
