"""A whole round: rated by a simulated person, read by the source, learned from, and told from coins at the gate."""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from pipeline import config, files
from pipeline.config import edit
from pipeline.evaluation import Subject, open_subject, rated_pairs
from pipeline.inference.answers import Sampling, answer
from pipeline.integrity import write_manifest
from pipeline.model import checkpoint
from pipeline.rating.pairs import Model
from pipeline.tasks import Request
from stages import finetune
from tests.bench import rounds
from tests.commands import tohum
from tests.specs import ANSWERS, written

WORDS = ("dünya", "free", "prize", "now", "Ayşe", "Merhaba", "İzmir", "yaşıyor")
"""All answers of the supervised model; the truth behind the ratings: earlier words are better."""
TASTE = """
import hashlib


def rate(prompt, first, second):
    draw = hashlib.sha256((prompt + first + second).encode()).digest()[0] / 256
    if COINS:
        return int(draw < 0.5)
    return int((utility(first) < utility(second)) != (draw < 0.2))


def utility(text):
    return -next((place for place, word in enumerate(WORDS) if text.strip() == word), len(WORDS))
"""
SETTINGS = rated_pairs.Settings(split="held_out", source=None, parent="chat-full", batch_size=32)


def utility(text: str) -> int:
    """The truth of an answer."""
    return -WORDS.index(text.strip()) if text.strip() in WORDS else -len(WORDS)


def supervised(folder: Path) -> None:
    """Trains the tiny model to answer any prompt with any of the words."""
    network, task = checkpoint.load(folder, "cpu"), Model.read(folder).task
    draw, optimizer = random.Random(1), torch.optim.Adam(network.parameters(), lr=1e-2)
    network.train()
    for _ in range(120):
        records = [
            {"instruction": f"Say {draw.randrange(500)}!", "input": "", "history": None, "output": draw.choice(WORDS)}
            for _ in range(16)
        ]
        loss = task.losses(network, task.collate([task.example(record) for record in records])).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    checkpoint.save(network.eval(), folder, tokenizer=Path("tokenizer"), metadata=written([ANSWERS]))


@pytest.fixture
def round_of(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Subject]:
    """The model of a round of 200 ratings by the taste, or by coins."""

    def learn(coins: bool) -> Subject:
        if not Path("supervised").exists():
            supervised(Path("models/chat-full"))
            Path("supervised").touch()
        Path("judge.py").write_text(f"COINS = {coins}\nWORDS = {WORDS}\n{TASTE}")
        Path("prompts.txt").write_text("".join(f"Say {number}!\n" for number in range(400)))
        edit.change(Path("params.yaml"), {
            "finetune.chat-full.task.max_tokens": 60, "finetune.chat-full.task.max_prompt_tokens": 40,
            "compute.threads": 1, "runtime.progress": False, "runtime.tracking.enabled": False,
            "split.validation": 0.3,
        })  # fmt: skip
        words = (
            "--prompts",
            "prompts.txt",
            "--by",
            "judge.py",
            "--count",
            "200",
            "--max-tokens",
            "2",
            "--top-k",
            "16",
            "--write",
        )
        assert tohum("rate", "chat-full", *words) == 0
        name = "chat-full-ratings-1"
        edit.change(Path("params.yaml"), {f"finetune.{name}.optimizer.learning_rate": 3e-3})
        rounds.take()
        monkeypatch.setattr(sys, "argv", ["finetune", name])
        finetune.main()
        params = config.load()
        return open_subject(name, params.compute)

    return learn


def wins() -> float:
    """Share of prompts that no training saw where the new model's answer is better by the truth, ties half."""
    asked, said = [Request(f"Tell {number}!") for number in range(200)], {}
    for name in ("chat-full", "chat-full-ratings-1"):
        folder = Path("models") / name
        texts = answer(checkpoint.load(folder, "cpu"), Model.read(folder).task, asked,
                       Sampling(max_tokens=8, temperature=1.0), list(range(200)))  # fmt: skip
        said[name] = [utility(text) for text in texts]
    pairs = list(zip(*said.values(), strict=True))
    return sum((new > old) + 0.5 * (new == old) for old, new in pairs) / len(pairs)


def test_round_wins_by_the_truth_and_passes_its_gate(round_of: Callable[[bool], Subject]) -> None:
    """Pairs that are swapped, and the model beside itself, do not pass."""
    subject = round_of(False)
    right = rated_pairs.measure(SETTINGS, subject)
    assert right.metrics["rated_pairs_low"] > 0.5
    assert len(right.outcomes[0].values) == right.metrics["rated_pairs"]
    assert wins() >= 0.6
    own = subject._replace(model=open_subject("chat-full", subject.compute).model)
    assert rated_pairs.measure(SETTINGS, own).metrics["rated_pairs_accuracy"] == 0.5
    path = Path("data/samples/preferences/validation.parquet")
    table = pq.ParquetFile(path).read()
    names = [{"chosen": "rejected", "rejected": "chosen"}.get(name, name) for name in table.column_names]
    files.write_table(path, table.rename_columns(names).select(table.column_names))
    write_manifest(Path("data/samples"))
    swapped = rated_pairs.measure(SETTINGS.model_copy(update={"split": "validation"}), subject)
    assert swapped.metrics["rated_pairs_accuracy"] < 0.5


def test_round_of_coins_is_kept_out_by_its_gate(round_of: Callable[[bool], Subject]) -> None:
    """Lost otherwise: raters who do not look would put a changed model into the registry."""
    metrics = rated_pairs.measure(SETTINGS, round_of(True)).metrics
    threshold = yaml.safe_load(Path("params.yaml").read_text())["evaluations"]["chat-full-ratings-1"]["thresholds"]
    assert metrics["rated_pairs_low"] < threshold["rated_pairs_low"]["at_least"]
