"""Extension of an open model's vocabulary by another language: tokens a word, and the loss on old text right after it.

    python -m tests.bench.extending --model FOLDER --train minutes.txt --held constitution.txt --old novel.txt
        [--tokens 4096] [--old-bytes 100000] [--window 512]

Prints JSON: tokens a word of the held-out text before and after, the loss in nats a byte on the old text (which the
model was trained on the kind of) before and after the embeddings got their new rows, the ratio of both, and the share
of new tokens in the old text. Nothing is trained but the merges. FOLDER is a Hugging Face folder, such as
`tohum adopt FILE.gguf FOLDER` writes.
"""

import argparse
import gzip
import json
from pathlib import Path
from time import perf_counter

import torch

from pipeline import tokenizer
from pipeline.model import checkpoint
from pipeline.model.extension import extend
from pipeline.model.gpt import GPT
from pipeline.tokenizer import Tokenizer


def nats_per_byte(model: GPT, vocabulary: Tokenizer, text: str, window: int) -> float:
    """Loss of a text in windows that each begin with the end-of-text token."""
    ids, nats = vocabulary.encode(text), 0.0
    with torch.inference_mode():
        for first in range(0, len(ids), window):
            part = torch.tensor([[vocabulary.end_of_text, *ids[first : first + window]]])
            logits = model.logits(model.hidden(part[:, :-1]))[0]
            nats += torch.nn.functional.cross_entropy(logits.float(), part[0, 1:], reduction="sum").item()
    return nats / len(text.encode())


def read(path: Path) -> str:
    """A UTF-8 text, maybe gzipped."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.extending", description=__doc__)
    parser.add_argument("--model", type=Path, help="a Hugging Face folder")
    parser.add_argument("--train", type=Path, help="text of the new language")
    parser.add_argument("--held", type=Path, nargs="+", help="held-out text of the new language")
    parser.add_argument("--old", type=Path, help="text of a language that the model knows, maybe gzipped")
    parser.add_argument("--tokens", type=int, default=4096, help="new tokens")
    parser.add_argument("--old-bytes", type=int, default=100_000, help="characters of the old text that are read")
    parser.add_argument("--window", type=int, default=512, help="tokens of a window")
    options = parser.parse_args(arguments)
    if options.model is None:
        print(json.dumps({"skipped": "--model names no folder"}))
        return
    old = tokenizer.adopt(options.model)
    start = perf_counter()
    new = tokenizer.extend(
        options.model, None, old.vocab_size + options.tokens, read(options.train).splitlines(keepends=True)
    )
    seconds = perf_counter() - start
    held = "\n".join(read(path) for path in options.held)
    known = read(options.old)[: options.old_bytes]
    model = checkpoint.load(options.model, "cpu").eval()
    before = nats_per_byte(model, old, known, options.window)
    after = nats_per_byte(extend(model, new.parts), new, known, options.window)
    ids = new.encode(known)
    print(
        json.dumps(
            {
                "new_tokens": len(new.parts),
                "seconds_of_learning": round(seconds, 1),
                "tokens_per_word_before": round(len(old.encode(held)) / len(held.split()), 3),
                "tokens_per_word_after": round(len(new.encode(held)) / len(held.split()), 3),
                "new_tokens_in_old_text": sum(number in new.parts for number in ids) / len(ids),
                "nats_per_byte_before": before,
                "nats_per_byte_after": after,
                "ratio": after / before,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
