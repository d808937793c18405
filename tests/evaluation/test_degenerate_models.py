"""Models that know nothing, on every measure of likelihoods and labels: refused, or scored as by chance.

The right choice is always the first one, as published files have it: an argmax over NaN, or over equal scores, would
take it every time.
"""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import files
from pipeline.config.params import Evaluation
from pipeline.errors import UserError
from pipeline.evaluation import Subject
from pipeline.evaluation._measure_all import measure_all
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TEXT
from pipeline.tasks import open_task
from tests.evaluation.test_measures import COMPUTE, TOKENIZER, write_documents, write_labelled
from tests.models import network
from tests.specs import SPAM, changed

ITEMS = 120
CHANCES = {
    "pairs_accuracy_x": 1 / 2, "pairs_accuracy_by_token_x": 1 / 2, "choice_accuracy_x": 1 / 4,
    "choice_accuracy_by_byte_x": 1 / 4, "choice_accuracy_by_token_x": 1 / 4, "truthfulqa_mc1": 1 / 4,
    "truthfulqa_binary": 1 / 2, "closed_book_accuracy": 1 / 4, "closed_book_exact": 0.0, "auc": 1 / 2,
    "accuracy": 1 / 2,
}  # fmt: skip
"""Metric -> its value by chance."""


def nan(model: GPT) -> None:
    model.head.weight[:] = torch.nan  # type: ignore[union-attr,index]
    model.score.weight[:] = torch.nan  # type: ignore[union-attr,index]


def constant(model: GPT) -> None:
    model.head.weight[:] = 0.0  # type: ignore[union-attr,index]
    model.score.weight[:] = 0.0  # type: ignore[union-attr,index]


def shuffled(model: GPT) -> None:
    order = torch.randperm(model.config.vocab_size, generator=torch.Generator().manual_seed(2))
    model.head.weight[:] = model.head.weight[order] * 5  # type: ignore[union-attr,index]


def subject(spoil: Callable[[GPT], None], folder: Path) -> Subject:
    model = network("llama", labels=2, vocab_size=TOKENIZER.vocab_size, context_length=256, tie_embeddings=False).eval()
    with torch.no_grad():
        spoil(model)
    specs = TEXT.within(256), changed(SPAM, max_tokens=64, max_prompt_tokens=64)
    tasks = tuple(open_task(spec, TOKENIZER) for spec in specs)  # type: ignore[arg-type]
    return Subject("m", model, TOKENIZER, tasks, folder, COMPUTE)  # type: ignore[arg-type]


def write(folder: Path) -> dict[str, dict[str, Any]]:
    """Items whose right answer is like the wrong ones, and the measures' settings for them."""
    draw = random.Random(7)

    def text(n: int) -> str:
        return " ".join("".join(draw.choice("abcdefgh") for _ in range(draw.randint(2, 6))) for _ in range(n))

    rows: dict[str, list[dict[str, Any]]] = {
        "pairs": [{"sentence_good": text(4), "sentence_bad": text(4)} for _ in range(ITEMS)],
        "arc": [
            {"question": text(3), "choices": {"text": [text(2) for _ in range(4)], "label": list("ABCD")}}
            | {"answerKey": "A"}
            for _ in range(ITEMS)
        ],
    }
    for name, of_one in rows.items():
        files.write_text(folder / f"inputs/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in of_one))
    answers = [f"c,{text(3)}?,{text(2)},{text(2)},{'; '.join(text(2) for _ in range(3))}" for _ in range(ITEMS)]
    header = "Category,Question,Best Answer,Correct Answers,Incorrect Answers"
    files.write_text(folder / "inputs/t.csv", "\n".join([header, *answers]) + "\n")
    asked = [
        {"id": str(i), "instruction": text(3), "input": "", "output": text(1), "language": "en", "source": "own"}
        for i in range(ITEMS)
    ]
    (folder / "instructions").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        pq.write_table(pa.Table.from_pylist(asked), folder / f"instructions/{split}.parquet")
    write_labelled(folder / "labelled", [(text(3), ("ham", "spam")[i % 2], "en") for i in range(ITEMS)])
    files.write_text(folder / "models/m/model.txt", "a model in memory")
    write_documents(folder / "documents", [text(9) for _ in range(20)], [None] * 20)

    def pinned(name: str) -> dict[str, str]:
        return {"path": f"inputs/{name}", "sha256": files.sha256_of(folder / f"inputs/{name}")}

    size = {"batch_size": 32}
    return {
        "pairs": {"sets": {"x": {**pinned("pairs.jsonl"), "language": "en"}}, "max_pairs": None, **size},
        "multiple_choice": {
            "sets": {"x": {**pinned("arc.jsonl"), "format": "arc", "language": "en"}}, "max_questions": None, **size,
        },
        "truthfulqa": {**pinned("t.csv"), "max_questions": None, **size},
        "closed_book": {
            "split": "test", "source": None, "candidates": 4, "alike": None, "shots": 0, "max_tokens": 4,
            "max_records": None, "seed": 1, **size,
        },
        "positions": {"split": "test", "source": None, "max_documents": None, **size},
        "perplexity": {"split": "test", "max_documents": None, **size},
        "calibration": {"split": "test", "source": None, "bins": 5, **size},
        "ranking": {"split": "test", "source": None, **size},
        "classification": {"split": "test", "baseline": None, **size},
    }  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("samples")
    return folder, write(folder)


@pytest.mark.parametrize(
    "name",
    [
        "pairs", "multiple_choice", "truthfulqa", "closed_book", "positions", "perplexity", "calibration", "ranking",
        "classification",
    ],
)  # fmt: skip
@pytest.mark.parametrize("spoil", [nan, constant, shuffled], ids=lambda spoil: spoil.__name__)
def test_measures_refuse_or_score_by_chance_a_model_that_knows_nothing(
    spoil: Callable[[GPT], None],
    name: str,
    settings: tuple[Path, dict[str, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lost otherwise: a broken model would be the best one; lm-evaluation-harness gives NaN all pairs right."""
    folder, fields = settings
    monkeypatch.chdir(folder)
    one = subject(spoil, folder)
    asked = Evaluation.model_validate({"measures": {name: fields[name]}, "thresholds": {}})
    if spoil is nan:
        with pytest.raises(UserError, match=r"finite"):
            measure_all(one, asked)
        return
    metrics = measure_all(one, asked).metrics
    chosen = {key: value for key, value in metrics.items() if key in CHANCES}
    assert chosen or name in ("positions", "perplexity", "calibration")
    for key, value in chosen.items():
        chance = CHANCES[key]
        assert abs(value - chance) <= 3.3 * math.sqrt(chance * (1 - chance) / ITEMS), key
    if spoil is constant and name in ("positions", "perplexity"):
        losses = [value for key, value in metrics.items() if key.startswith("loss_")]
        assert losses == pytest.approx([math.log(TOKENIZER.vocab_size)] * len(losses), abs=1e-4)
    if spoil is constant and name == "calibration":
        assert metrics["brier"] == pytest.approx(0.5)  # probabilities of 1/2
