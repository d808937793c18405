"""Tokens a word of a vocabulary trained here, beside published ones, on text it has not seen.

    python -m tests.bench.words --train minutes.txt --also declaration.txt [--vocab 8192] [--ranks gpt2=FOLDER]

Prints JSON: vocabulary -> text -> tokens a word. Every tenth line of the training text is held out; `--also` names
texts that are held out as a whole. A published vocabulary is read from disk, so nothing is fetched.
"""

import argparse
import json
import sys
from pathlib import Path

from pipeline import tokenizer


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.words", description=__doc__)
    parser.add_argument("--train", type=Path, help="a UTF-8 text")
    parser.add_argument("--also", type=Path, nargs="*", default=[])
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--ranks", nargs="*", default=[], metavar="NAME=PATH", help="gpt2, cl100k_base or o200k_base")
    options = parser.parse_args(arguments)
    if options.train is None:
        print(json.dumps({"skipped": "--train names no text"}))
        return
    lines = options.train.read_text(encoding="utf-8").splitlines(keepends=True)
    texts = {f"held-out lines of {options.train.name}": "".join(lines[::10])}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in options.also}
    seen = [line for number, line in enumerate(lines) if number % 10]
    made = {f"trained, {options.vocab}": tokenizer.train(seen, options.vocab, "gpt2")}
    for pair in options.ranks:
        name, _, path = pair.partition("=")
        made[name] = tokenizer.preset(name, Path(path), add_specials=False)  # type: ignore[arg-type]  # checked there
    found = {
        name: {text: len(one.encode(content)) / len(content.split()) for text, content in texts.items()}
        for name, one in made.items()
    }
    json.dump(found, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
