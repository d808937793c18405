"""Log-likelihood scoring beside lm-evaluation-harness's `hf` model, same weights, same texts, one process, as JSON.

    python -m tests.bench.likelihood --model FOLDER [--pairs BLiMP.zip] [--questions 100] [--rounds 5] [--threads 1]

Minimal pairs (both sentences as whole texts), and questions of four choices of three words after a context of 120
tokens or more, from texts to likelihoods, in turns: CPU time of the process, median and quartiles of the ratio over the
rounds, beside the harness at its default batch of 1 and at the fastest of three batch sizes. `--model` is a model of
this project or a Hugging Face folder, which is exported first, so that both begin texts with the same token. Without
`--pairs` sentences are drawn from a few words.
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import torch

from pipeline.data.formats._text import File
from pipeline.inference.likelihood import nats
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TEXT, written
from pipeline.tokenizer import Tokenizer

PARADIGMS = (
    "anaphor_gender_agreement",
    "regular_plural_subject_verb_agreement_1",
    "wh_island",
    "superlative_quantifiers_1",
)
CONTEXT = 120  # tokens of a context, at least
HARNESS_BATCHES = (1, 8, 32)
BATCH = 32
Pair = tuple[str, str]


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.likelihood", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = exported(options.model, Path(scratch) / "model")
        model, tokenizer = checkpoint.load(folder).eval(), Tokenizer.load(folder)
        sentences = sentences_of(options.pairs, options.questions)
        cases = {
            "pairs": [("", text) for both in sentences for text in both],
            "four choices": choices(tokenizer, [good for good, _ in sentences], options.questions),
        }
        figures = {name: compared(model, tokenizer, folder, pairs, options.rounds) for name, pairs in cases.items()}
    print(json.dumps({"parameters": model.num_parameters(), "threads": options.threads, **figures}, indent=2))


def exported(source: Path, target: Path) -> Path:
    """The model as a language model of this project."""
    tokens = target.parent / "tokenizer"
    Tokenizer.load(source).save(tokens)
    model = checkpoint.load(source)
    checkpoint.save(model, target, tokenizer=tokens, labels=None, metadata=written([TEXT.within(model.room())]))
    return target


def sentences_of(path: Path | None, count: int) -> list[tuple[str, str]]:
    """Acceptable and unacceptable sentences of four of BLiMP's paradigms; or of drawn words, alike but for one."""
    if path is None:
        draw = random.Random(1)
        words = [
            "the",
            "a",
            "dogs",
            "cats",
            "man",
            "woman",
            "sees",
            "likes",
            "old",
            "small",
            "tired",
            "not",
            "there",
            "with",
        ]
        drawn = [[draw.choice(words) for _ in range(9)] for _ in range(count)]
        return [(" ".join(row), " ".join([*row[:5], draw.choice(words), *row[6:]])) for row in drawn]
    from pipeline.data.formats import jsonl
    from pipeline.data.formats._shape import AllColumns

    found = []
    for name in PARADIGMS:
        file = File(path, f"{path}: {name}", name, f"data/{name}.jsonl")
        rows = [values[0] for _, values in jsonl.rows(file, jsonl.Settings(encoding="utf-8"), AllColumns())]
        found += [(row["sentence_good"], row["sentence_bad"]) for row in rows[: count // len(PARADIGMS)]]
    return found


def choices(tokenizer: Tokenizer, sentences: Sequence[str], count: int) -> list[Pair]:
    """Four choices of three words after each of `count` contexts of at least CONTEXT tokens."""
    draw = random.Random(2)
    pairs = []
    for _ in range(count):
        context = ""
        while len(tokenizer.encode(context)) < CONTEXT:
            context = f"{context} {draw.choice(sentences)}".strip()
        pairs += [(context, f" {' '.join(choice.split()[:3])}") for choice in draw.sample(list(sentences), 4)]
    return pairs


def compared(model: GPT, tokenizer: Tokenizer, folder: Path, pairs: list[Pair], rounds: int) -> dict[str, Any]:
    """CPU seconds of both, their ratio, and the largest difference of likelihoods and picks."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    def harness(batch: int) -> Callable[[], list[float]]:
        # else the harness begins a whole text with the bos_token, and a text in two parts with end-of-text
        start = tokenizer.end_of_text
        scorer = HFLM(pretrained=str(folder), device="cpu", batch_size=batch, prefix_token_id=start)

        def run() -> list[float]:
            asked = [
                Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)
            ]
            return [-value for value, _ in scorer.loglikelihood(asked, disable_tqdm=True)]

        return run

    def ours() -> list[float]:
        return [one.nats for one in nats(model, tokenizer, pairs, BATCH)]

    peers = {batch: harness(batch) for batch in HARNESS_BATCHES}
    timed = {batch: seconds(run) for batch, run in peers.items()}
    best = min(timed, key=lambda batch: timed[batch][0])
    expected, found = timed[best][1], ours()
    turns = [(seconds(ours)[0], *(seconds(peers[batch])[0] for batch in (best, 1))) for _ in range(rounds)]
    size = 2 if not pairs[0][0] else 4
    picks = [values.index(min(values)) for values in (found[i : i + size] for i in range(0, len(found), size))]
    theirs = [values.index(min(values)) for values in (expected[i : i + size] for i in range(0, len(found), size))]
    return {
        "texts": len(pairs),
        "seconds": statistics.median(mine for mine, _, _ in turns),
        "harness_seconds_at_its_best_batch": statistics.median(other for _, other, _ in turns),
        "harness_best_batch": best,
        "times_its_best_batch": quartiles([best / mine for mine, best, _ in turns]),
        "times_its_default_batch": quartiles([default / mine for mine, _, default in turns]),
        "largest_difference_nats": max(abs(a - b) for a, b in zip(found, expected, strict=True)),
        "other_picks": sum(a != b for a, b in zip(picks, theirs, strict=True)),
    }


def quartiles(ratios: list[float]) -> list[float]:
    """Lower quartile, median and upper quartile."""
    found = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return [round(q, 2) for q in found]


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of the process for one run, and its result."""
    start = process_time()
    result = run()
    return process_time() - start, result


if __name__ == "__main__":
    main()
