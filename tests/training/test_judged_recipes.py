"""Recipes on pairs and thumbs, from records to a model folder that answers, or scores answers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
import torch
import yaml

from pipeline import config, files, tokenizer
from pipeline.data.records import SCHEMAS
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint
from pipeline.paths import CODE as ROOT
from pipeline.tasks import Request
from pipeline.tracking.tracker import NullTracker
from pipeline.training import recipe as recipes
from tests.fakes import instruction
from tests.models import network

LIMITS = {"template": "chat", "max_tokens": 40, "max_prompt_tokens": 28}
PAIRS = [
    instruction(f"Nerede {i}?", "", chosen=f"İzmir {i}", rejected="bilmem ki", id=f"p{i}", source="own", split=None)
    for i in range(12)
]
THUMBS = [
    {
        "id": f"t{i}", "source": "own", "language": "tr", "origin": "test:1", "prompt": f"Kim {i}?", "correction": "",
        "answers": json.dumps(["Ayşe" if i % 2 else "bilmem"]), "verdict": "thumb:up" if i % 2 else "thumb:down",
        "ids": [[]], "logprobs": [[]], "settings": "{}", "model_sha256": "x", "rater": "r",
    }
    for i in range(12)
]  # fmt: skip
CHOICE = THUMBS[0] | {"id": "c", "verdict": "choice:0", "answers": json.dumps(["a", "b"])}
RECIPES: list[tuple[str, str, str]] = [
    ("preference", "dpo", "preferences"),
    ("reward", "bradley_terry", "preferences"),
    ("thumbs", "kto", "preferences"),
    ("thumbs", "kto", "ratings"),
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base model, its vocabulary, pairs, and ratings of which one is no thumb."""
    monkeypatch.chdir(tmp_path)
    tokenizer.train(["Ayşe geldi, nerede? İzmir bilmem ki. Kim geldi? " * 20], 300, "gpt2").save(Path("words"))
    vocabulary = tokenizer.Tokenizer.load(Path("words")).vocab_size
    base = network("llama", vocab_size=vocabulary, context_length=48, tie_embeddings=False)
    checkpoint.save(base, Path("models/base"), tokenizer=Path("words"))
    for kind, rows in (("preferences", PAIRS), ("ratings", [CHOICE, *THUMBS])):
        for split in ("train", "validation"):
            table = pa.Table.from_pylist(rows, schema=SCHEMAS[kind])  # type: ignore[index]
            files.write_table(Path(f"data/samples/{kind}/{split}.parquet"), table)
    return tmp_path


def train(task: str, loss: str, kind: str, tuner: dict[str, Any]) -> Path:
    """Trains models/judged from the base."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["runtime"]["progress"], raw["search"], raw["compute"]["threads"] = False, {}, 1
    chosen = raw["finetune"]["spam-lora"]
    settings = {} if loss == "bradley_terry" else {"beta": 0.1}
    chosen |= {"task": {"name": task} | LIMITS, "loss": {"name": loss} | settings, "data": kind, "tuner": tuner}
    chosen["schedule"] |= {"steps": 4, "warmup_steps": 1}
    chosen["ordering"] |= {"batch_size": 5}
    chosen["validation"] |= {"every": 2, "batches": 3}
    params = config.check(raw)
    base = Path("models/base")
    recipes.train(
        "judged", "finetune.judged", params.finetune["spam-lora"], kind,  # type: ignore[arg-type]
        lambda generator, device: checkpoint.load(base, str(device)),
        [base], params, NullTracker(), base, lambda: checkpoint.load(base),
    )  # fmt: skip
    return Path("models/judged")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("task", "loss", "kind"), RECIPES)
def test_train_writes_a_model_that_answers_or_scores(task: str, loss: str, kind: str) -> None:
    """Lost otherwise: an hour of training would end in an error, or in a model that nothing can ask."""
    folder = train(task, loss, kind, {"name": "full"})
    curve = pa.csv.read_csv("reports/training/judged.csv").to_pylist()
    measure = "validation_thumb_accuracy" if loss == "kto" else "validation_pair_accuracy"
    assert {"validation_loss_nats", "validation_margin", measure} <= set(curve[-1])
    assert [row["step"] for row in curve] == [2, 4]
    predictor = Predictor(folder)
    if task == "reward":
        asked = [Request("Nerede 1?", answer=answer) for answer in ("İzmir 1", "bilmem ki")]
        assert abs(predictor.answer(asked)[0]["reward"] - predictor.answer(asked)[1]["reward"]) > 0
    else:
        assert predictor.task.spec.name == "instruct"
        assert isinstance(predictor.answer(["Nerede 1?"], {"max_tokens": 4})[0]["completion"], str)
    summary = files.read_json(Path("reports/training/judged.json"))
    assert summary["records"] == 12  # the rating that is no thumb is left out


@pytest.mark.usefixtures("project")
def test_train_of_an_adapter_keeps_the_head_of_a_reward_model() -> None:
    """Lost otherwise: the adapter alone would score with a head of random weights."""
    lora = {"name": "lora", "rank": 2, "alpha": 4.0, "rank_stabilised": False, "decompose": False, "dropout": 0.0}
    folder = train("reward", "bradley_terry", "preferences", lora | {"targets": ["attention"], "merged": False})
    asked = [Request("Nerede 1?", answer=answer) for answer in ("İzmir 1", "bilmem ki")]
    ours = [row["reward"] for row in Predictor(folder).answer(asked)]
    checkpoint.write_whole(folder, Path("whole"))
    assert [row["reward"] for row in Predictor(Path("whole")).answer(asked)] == pytest.approx(ours, abs=1e-6)


@pytest.mark.usefixtures("project")
def test_train_gives_the_same_bits_twice() -> None:
    """By the reference's columns too, which are computed in batches of like length."""
    found = []
    for _ in range(2):
        folder = train("preference", "dpo", "preferences", {"name": "full"})
        found.append(checkpoint.load(folder).state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
