"""Questions whose answer stands in the passages that open-book search finds, by language and kind of search, as JSON.

    python -m tests.bench.passages [--data data] [--questions 400] [--passages 1,3]

Reads the samples of a project of the embedded world (`dvc repro sample`): closed-book questions of its training split
and the passages of its training documents. `bm25` is the search of measure `facts` (pipeline/inference/passages.py),
`whole_words` the same without cutting Turkish words, `tf_idf` scikit-learn's, `random` a drawn passage.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq

from pipeline.data.language import fold
from pipeline.data.shards import Shard
from pipeline.inference import passages
from pipeline.tokenizer import Tokenizer

Search = Callable[[dict[str, Any], int], list[str]]


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.passages", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--passages", default="1,3")
    options = parser.parse_args(arguments)
    every = pq.read_table(options.data / "samples/instructions/train.parquet").to_pylist()
    rows = [row for row in every if not row["input"] and ":instructions:" in (row["origin"] or "")][: options.questions]
    told = read(options.data)
    counts = [int(count) for count in options.passages.split(",")]
    found = {
        name: {str(count): hits(search, rows, count) for count in counts} for name, search in searches(told).items()
    }
    print(json.dumps({"bench": "passages", "passages": len(set(told)), "questions": len(rows), **found}, indent=1))


def read(data: Path) -> list[passages.Passage]:
    """The passages of the training documents."""
    shard, tokenizer = Shard.open(data / "samples/documents", "train"), Tokenizer.load(data / "tokens/tokenizer")
    languages = shard.index()["language"].to_pylist()
    return [
        passage
        for row, language in enumerate(languages)
        for passage in passages.passages_of(tokenizer.decode(shard.document(row)[:-1].tolist()), language)
    ]


def searches(told: list[passages.Passage]) -> dict[str, Search]:
    """Name -> search: nearest passages of a question."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    index, rng = passages.Index(told), random.Random(1)
    with mock.patch.object(passages, "_LETTERS", {}):
        whole = passages.Index(told)
    texts = list(dict.fromkeys(passage.text for passage in told))
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    table = vectorizer.fit_transform(texts)

    def whole_words(row: dict[str, Any], count: int) -> list[str]:
        with mock.patch.object(passages, "_LETTERS", {}):
            return whole.nearest(row["instruction"], row["language"], count)

    def tf_idf(row: dict[str, Any], count: int) -> list[str]:
        similarities = (vectorizer.transform([row["instruction"]]) @ table.T).toarray()[0]
        return [texts[at] for at in np.argsort(-similarities, kind="stable")[:count]]

    return {
        "bm25": lambda row, count: index.nearest(row["instruction"], row["language"], count),
        "whole_words": whole_words,
        "tf_idf": tf_idf,
        "random": lambda _, count: rng.sample(texts, count),
    }


def hits(search: Search, rows: list[dict[str, Any]], count: int) -> dict[str, float]:
    """Language -> share of questions whose answer stands in the passages."""
    by_language: dict[str, list[bool]] = {}
    for row in rows:
        answer = fold(row["output"].strip(". "), row["language"])
        text = fold(" ".join(search(row, count)), row["language"])
        by_language.setdefault(row["language"], []).append(answer in text)
    return {language: round(statistics.fmean(values), 3) for language, values in sorted(by_language.items())}


if __name__ == "__main__":
    main()
