"""Encoding a corpus to its shard beside tiktoken's own encode, and learning a vocabulary beside rustbpe, as JSON.

    python -m tests.bench.tokenizing [--texts novels.txt.gz minutes.txt] [--gpt2 FOLDER] [--vocab 8192] [--rounds 5]

Without texts the documents of the world of params.yaml. Ours is the whole way from the parquet file to ids.bin and its
index; tiktoken's is its encode_ordinary of the same texts to lists, each thrown away. Both have loaded the vocabulary
before (`load_seconds`: what ours takes on top of tiktoken's, which it holds too). Both in turns, medians, CPU time of
all threads; the ids are compared. Learning runs in processes of its own, for its memory, modules imported before:
`resident` with pages of the file that is read, `own` what the process itself asked for.
"""

import argparse
import gzip
import importlib
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import config, tokenizer
from pipeline.data import tokens
from pipeline.data.records import SCHEMAS, record_id
from pipeline.tokenizer import trainer

_LONGEST = 4000  # characters of a document, as the profile of the novels has it


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tokenizing", description=__doc__)
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    parser.add_argument("--gpt2", type=Path, help="OpenAI's encoder.json and vocab.bpe; otherwise one is learned")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    texts = list(_texts(options.texts))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    learned = _learned(texts, options.vocab)
    known = options.gpt2 and tokenizer.preset("gpt2", options.gpt2, add_specials=True)
    vocabulary = known or tokenizer.train(texts, options.vocab, "gpt2")
    print(json.dumps({
        "bench": "tokenizing", "megabytes": round(megabytes, 1), "documents": len(texts),
        "encoding": {"vocabulary": vocabulary.vocab_size, **_encoded(texts, vocabulary, megabytes, options.rounds)},
        "learning": learned,
    }))  # fmt: skip


def _texts(paths: list[Path]) -> Iterator[str]:
    if not paths:
        from pipeline.data.sources.world import records

        settings = config.load().download.sources["world"].settings("data/sources", "download.sources.world")
        yield from (record["text"] for record in records.documents(settings))
    for path in paths:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for document in data.decode().split("<|endoftext|>"):
            yield from (document[i : i + _LONGEST] for i in range(0, len(document), _LONGEST))


def _encoded(texts: list[str], vocabulary: Any, megabytes: float, rounds: int) -> dict[str, Any]:
    """Megabytes a CPU second of each, and how many times ours is faster."""
    split = config.load().split
    seconds: dict[str, list[float]] = {"tohum": [], "tiktoken": [], "load": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _parquet(texts, folder / "documents.parquet")
        vocabulary.save(folder / "vocabulary")
        for turn in range(rounds):
            out = folder / f"out-{turn}"  # a file that is there costs time to empty
            out.mkdir()
            ours = tokenizer.Tokenizer.load(folder / "vocabulary")
            engine = ours._encoder._encoding  # type: ignore[attr-defined]  # not of every encoder: this one holds the peer
            began = process_time()
            for text in texts:
                engine.encode_ordinary(text)
            seconds["tiktoken"].append(process_time() - began)
            began = process_time()
            assert ours._encoder._corpus is not None  # type: ignore[attr-defined]  # nor is this: it loads gigatoken
            seconds["load"].append(process_time() - began)
            began = process_time()
            tokens._encode_all(ours, pq.ParquetFile(folder / "documents.parquet"), split, out, False)
            seconds["tohum"].append(process_time() - began)
            if not turn:
                whole = np.concatenate([[*engine.encode_ordinary(text), ours.end_of_text] for text in texts])
                assert np.array_equal(np.fromfile(out / "ids.bin", "<u2"), whole), "other ids than tiktoken's"
                del whole
    speed = {who: round(megabytes / statistics.median(seconds[who]), 1) for who in ("tohum", "tiktoken")}
    pairs = sorted(t / o for t, o in zip(seconds["tiktoken"], seconds["tohum"], strict=True))
    return {"megabytes_per_cpu_second": speed, "times": round(statistics.median(pairs), 2), "ids": "equal",
            "load_seconds": round(statistics.median(seconds["load"]), 3),
            "quartiles": [round(float(np.quantile(pairs, q)), 2) for q in (0.25, 0.75)]}  # fmt: skip


def _parquet(texts: list[str], path: Path) -> None:
    """The texts as the stage download writes them."""
    rows = {"source": "bench", "language": "en", "split": None, "origin": "bench", "bits": None}
    table = [{**rows, "id": record_id("documents", text), "text": text} for text in texts]
    pq.write_table(pa.Table.from_pylist(table, SCHEMAS["documents"]), path, compression="zstd")


def _learned(texts: list[str], size: int) -> dict[str, Any]:
    """CPU seconds and MiB of each trainer, each in a fresh process that reads the texts from a file."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "texts"
        path.write_bytes(b"".join(text.encode() + trainer._SEPARATOR for text in texts))
        for who in ("rustbpe", "tohum"):
            found[who] = _watched(who, path, size)
    equal = found["rustbpe"].pop("ranks") == found["tohum"].pop("ranks")
    ratio = found["rustbpe"]["cpu_seconds"] / found["tohum"]["cpu_seconds"]
    return {**found, "times": round(ratio, 2), "merges": "equal" if equal else "different", "size": size}


def _watched(who: str, path: Path, size: int) -> dict[str, Any]:
    """Runs `_train` in a process and looks at its memory a hundred times a second."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_train, args=(who, path, size, theirs))
    process.start()
    theirs.close()  # so that its end is seen
    ours.recv()  # it has begun
    start = {line: _memory(process.pid, line) for line in ("VmRSS", "RssAnon")}
    peak = dict(start)
    while not ours.poll(0.01):
        peak = {line: max(peak[line], _memory(process.pid, line)) for line in peak}
    found: dict[str, Any] = ours.recv()
    process.join()
    return {
        **found,
        "resident_mib": round(peak["VmRSS"] - start["VmRSS"]),
        "own_mib": round(peak["RssAnon"] - start["RssAnon"]),
    }


def _train(who: str, path: Path, size: int, parent: Any) -> None:
    for module in ("gigatoken", "rustbpe", "tiktoken"):
        importlib.import_module(module)
    texts = trainer._read(path)
    parent.send("began")
    began = process_time()
    ranks = trainer.learn(texts, size, "gpt2", path.parent) if who == "tohum" else trainer._rustbpe(texts, size, "gpt2")
    parent.send({"cpu_seconds": round(process_time() - began, 2), "ranks": ranks})


def _memory(pid: int | None, line: str) -> float:
    """MiB that the kernel notes for this process."""
    texts = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(text.split()[1]) / 1024 for text in texts if text.startswith(line)), 0.0)


if __name__ == "__main__":
    main()
