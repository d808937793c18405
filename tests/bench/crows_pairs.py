"""CrowS-Pairs of a released language model by measure `crows_pairs`: shares, CPU seconds and ids computed, as JSON.

    python -m tests.bench.crows_pairs --model FOLDER --pairs crows_pairs_anonymized.csv [--max-pairs N]

Sentences of like length are computed together, and the beginning of a pair once (pipeline/inference/likelihood.py):
`ids` counts those of all sentences, `computed` those of the rows that they are computed in, `padded` with the padding.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.config.recipe import Compute
from pipeline.evaluation import Subject, crows_pairs
from pipeline.model import checkpoint
from pipeline.model.shared_rows import Text, batches, rows_of
from pipeline.prompts.spec import TEXT
from pipeline.tasks import open_task
from pipeline.tokenizer import Tokenizer
from tests.bench.risks import working_in


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crows_pairs", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--max-pairs", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model, tokenizer = checkpoint.load(options.model).eval(), Tokenizer.load(options.model)
    compute = Compute(device="cpu", threads=options.threads, precision=options.precision, compile=False,
                      checkpoint_activations=False, weights="float32")  # fmt: skip
    task = open_task(TEXT.within(model.room()), tokenizer)
    pairs = options.pairs.resolve()
    with tempfile.TemporaryDirectory() as folder, working_in(Path(folder)):
        Path("inputs").mkdir()
        shutil.copy(pairs, "inputs/pairs.csv")
        settings = crows_pairs.Settings(
            path="inputs/pairs.csv", sha256=hashlib.sha256(pairs.read_bytes()).hexdigest(), parent=None,
            max_pairs=options.max_pairs, batch_size=options.batch_size,
        )  # fmt: skip
        began = time.process_time()
        measured = crows_pairs.measure(settings, Subject("released", model, tokenizer, (task,), Path(), compute))
        seconds = time.process_time() - began
        work = ids_computed(tokenizer, settings)
    print(json.dumps({
        "bench": "crows_pairs", "parameters": model.num_parameters(), "cpu_seconds": round(seconds, 1), **work,
        "metrics": {name: round(value, 4) for name, value in measured.metrics.items()}, **measured.details,
    }, indent=1))  # fmt: skip


def ids_computed(tokenizer: Tokenizer, settings: crows_pairs.Settings) -> dict[str, Any]:
    """Ids of all sentences, of the rows that they are computed in, and of the batches with their padding."""
    rows = crows_pairs._pairs(settings)
    sentences = [row[name] for row in rows for name in ("sent_more", "sent_less")]
    texts = [Text([tokenizer.end_of_text, *ids.tolist()], 1) for ids in tokenizer.encode_batch(sentences)]
    packed = rows_of(texts, 0, True)
    padded = sum(max(row.length for row in batch) * len(batch) for batch in batches(packed, settings.batch_size))
    return {
        "ids": sum(len(text.ids) - 1 for text in texts), "computed": sum(row.length for row in packed), "padded": padded
    }  # fmt: skip


if __name__ == "__main__":
    main()
