"""Answers found ungrounded by the raw gate's comparison with their passage, true and invented ones, as JSON.

    python -m tests.bench.grounding FILE [--language tr] [--min-share 0.5]

FILE: a JSON list of {"instruction": question, "input": passage, "output": answer}. `true`: answers, sentences of the
passage, and answers in a sentence of their own (the question's words and the answer), each with its passage: false
alarms. `invented`: the same with another passage of the file, and sentences of the passage with one number or one name
changed: detections.
"""

import argparse
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.gates.profiles.grounding import grounding

_NAME = re.compile(r"(?<=\w )[A-ZÇĞİÖŞÜ]\w{3,}")
_NUMBER = re.compile(r"\d+")
Pair = tuple[str, str]


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.grounding", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--language", default="tr")
    parser.add_argument("--min-share", type=float, default=0.5)
    chosen = parser.parse_args(arguments)
    rows = json.loads(chosen.file.read_text(encoding="utf-8"))
    rng = random.Random(1)
    passages = sorted({row["input"] for row in rows})
    true = {
        "answers": [(row["output"], row["input"]) for row in rows],
        "sentences": [(s, text) for text in passages for s in re.split(r"(?<=[.!?])\s+", text) if len(s.split()) > 4],
        "question and answer": [(f"{row['instruction'].rstrip('?')} {row['output']}", row["input"]) for row in rows],
    }
    invented = {
        f"{name} of another passage": [(text, rng.choice([p for p in passages if p != own])) for text, own in pairs]
        for name, pairs in true.items()
    }
    names = [name for passage in passages for name in _NAME.findall(passage)]
    sentences = true["sentences"]
    invented["one number changed"] = [
        (_NUMBER.sub(lambda match: str(int(match[0]) + 7), text, count=1), passage)
        for text, passage in sentences
        if _NUMBER.search(text)
    ]
    changed = [(text, _NAME.sub(lambda _: rng.choice(names), text, count=1), passage) for text, passage in sentences]
    invented["one name changed"] = [(new, passage) for old, new, passage in changed if new != old]
    shares = {
        group: {name: ungrounded(pairs, chosen.language, chosen.min_share) for name, pairs in cases.items()}
        for group, cases in (("true", true), ("invented", invented))
    }
    print(json.dumps({"bench": "grounding", "min_share": chosen.min_share, **shares}, indent=1, ensure_ascii=False))


def ungrounded(pairs: Sequence[Pair], language: str, min_share: float) -> dict[str, float]:
    """Number of pairs, and the share that the gate finds ungrounded."""
    found = [grounding(answer, passage, language) for answer, passage in pairs]
    share = sum(one.share < min_share or bool(one.missing) for one in found) / len(found)
    return {"pairs": len(found), "ungrounded": round(share, 4)}


if __name__ == "__main__":
    main()
