"""Samples with other records in training than in the held-out splits, and a model that has learned some texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline import files
from pipeline.evaluation import Subject
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tasks import IGNORED, open_task, padded, predicted_tokens
from tests.evaluation.test_measures import COMPUTE, TOKENIZER
from tests.models import network


def write_documents(samples: Path, **texts: Sequence[str]) -> None:
    """data/samples/documents with these texts by split."""
    folder = samples / "documents"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [[*TOKENIZER.encode(text), TOKENIZER.end_of_text] for text in texts.get(split, ())]
        np.array([i for row in rows for i in row], "<u2").tofile(folder / f"{split}.bin")
        lengths = [len(row) for row in rows]
        index = {
            "id": pa.array([f"{split}{i}" for i in range(len(rows))], pa.string()),
            "source": pa.array(["own"] * len(rows), pa.string()),
            "language": pa.array(["en"] * len(rows), pa.string()),
            "start": pa.array([sum(lengths[:i]) for i in range(len(rows))], pa.int64()),
            "length": pa.array(lengths, pa.int32()),
            "bytes": pa.array([len(text.encode()) for text in texts.get(split, ())], pa.int32()),
            "bits": pa.array([None] * len(rows), pa.float64()),
        }
        pq.write_table(pa.table(index), folder / f"{split}.parquet")
    meta = {"dtype": "uint16", "vocab_size": TOKENIZER.vocab_size, "end_of_text": TOKENIZER.end_of_text}
    files.write_json(folder / "meta.json", meta)


def write_records(samples: Path, kind: str, **rows: Sequence[dict[str, Any]]) -> None:
    """data/samples/<kind> with these records by split, each with an id, a source and a language."""
    for split, records in rows.items():
        whole = [{"id": f"{split}{i}", "source": "own", "language": "en"} | row for i, row in enumerate(records)]
        files.write_table(samples / kind / f"{split}.parquet", pa.Table.from_pylist(whole))


def subject_of(samples: Path, spec: TaskSpec = TEXT, context_length: int = 64, **changes: Any) -> Subject:
    """An untrained model of bytes with this task."""
    fields = {"vocab_size": TOKENIZER.vocab_size, "context_length": context_length} | changes
    model = network(labels=len(spec.outputs), **fields).eval()
    words: Any = TOKENIZER
    return Subject("m", model, words, (open_task(spec, words),), samples, COMPUTE)


def learn(subject: Subject, texts: Sequence[Sequence[int]], steps: int = 120) -> None:
    """Full-batch updates on ids, from the end-of-text token on."""
    rows = [[TOKENIZER.end_of_text, *text, TOKENIZER.end_of_text] for text in texts]
    batch = {"inputs": padded([row[:-1] for row in rows], 0), "targets": padded([row[1:] for row in rows], IGNORED)}
    optimizer = torch.optim.AdamW(subject.model.parameters(), lr=0.01)
    subject.model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        said = predicted_tokens(subject.model, batch)
        torch.nn.functional.cross_entropy(said.scores_NC, said.targets_N).backward()
        optimizer.step()
    subject.model.eval()


def told(texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts."""
    return [TOKENIZER.encode(text) for text in texts]
