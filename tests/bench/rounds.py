"""Rounds of simulated ratings on the latent taste: win rate by the truth, and raters who toss coins; prints JSON.

    python -m tests.bench.rounds FOLDER [--seeds 1 2 3 4 5] [--rounds 3] [--ratings 1000] [--noise 0.2]

FOLDER is a project of the embedded world with a taste, made at the first run: a base, and a supervised model on the
world's questions and the taste's demonstrations. Each round rates answers of the newest model as `tohum rate` does,
adds source and recipe as `--write` does (ratings of earlier rounds as replay), and trains it from that model. Raters
have the taste, with a share `noise` of flips; the null twin's toss coins, for one round.

Claims: win rate against the supervised model by the truth >= 0.6 after the first round and not falling, exact match on
the world's questions at most 0.01 down, and no candidate of the null raters: their gate (rated_pairs_low >= 0.5) fails.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from pipeline import config, files, integrity
from pipeline.config import edit
from pipeline.config.params import Download
from pipeline.data.collect import collect
from pipeline.data.conversations import Message
from pipeline.data.placement import placement
from pipeline.data.records import SPLITS
from pipeline.data.sources.world import taste
from pipeline.inference.answers import Sampling, ends
from pipeline.inference.engine import RowSettings
from pipeline.paths import CODE as ROOT
from pipeline.rating import next_round, prompts, ratings_file
from pipeline.rating.deciding import Decision
from pipeline.rating.pairs import Model, Pair
from pipeline.rating.prompts import Asked
from pipeline.rating.session import Session, Settings
from pipeline.seeds import seed_for

SUPERVISED = "sft"
SAMPLING = Sampling(max_tokens=32, temperature=1.0)
PROMPTS, SAMPLES = 150, 4
"""Held-out requests, and answers to each, of a win rate."""
LEAST_WINS, MOST_LOST = 0.6, 0.01


@dataclass(frozen=True)
class Rater:
    """A simulated person of the taste, as a decider."""

    choose: Any
    language: dict[str, str]
    """Request -> its language."""
    ahead: int = 32

    def decide(self, pair: Pair, number: int, count: int) -> Decision:
        """The choice by the taste."""
        record = {"instruction": pair.asked.text, "language": self.language[pair.asked.text]}
        return Decision("choice", self.choose(record, *(answer.text for answer in pair.answers)))


def params_of(requests: int, documents: int, steps: int, supervised_steps: int) -> dict[str, Any]:
    """The params of the project."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["compute"]["threads"] = 1
    raw["runtime"] |= {"progress": False, "tracking": raw["runtime"]["tracking"] | {"enabled": False}}
    world = raw["download"]["sources"]["world"]
    world |= {"documents": documents}
    empty = dict.fromkeys(("documents", "labelled", "instructions", "preferences"), 0)
    shared = {"requests": requests, "pairs": 0, "noise": 0.0, "shortcut": 0.0, "utility": "taste"}
    raw["download"]["sources"]["taste"] = world | empty | {"taste": shared}
    raw["pretrain"]["schedule"] |= {"steps": steps}
    recipe = raw["finetune"]["chat-full"]
    recipe["task"] |= {"max_tokens": 64, "max_prompt_tokens": 40}
    recipe["schedule"] |= {"steps": supervised_steps}
    recipe["validation"] |= {"every": supervised_steps, "patience": 0}
    raw["finetune"] = {SUPERVISED: recipe}
    exact_match = {"split": "test", "batch_size": 64, "max_tokens": 32, "max_records": None, "source": "world"}
    raw["evaluations"] = {
        "base": {"measures": {}, "thresholds": {}},
        SUPERVISED: {"measures": {"exact_match": exact_match}, "thresholds": {}},
    }
    raw["register"]["models"], raw["search"] = [], {}
    return raw


def make(folder: Path, params: dict[str, Any]) -> None:
    """Makes the project's data and its two models, where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        if not Path("params.yaml").exists():
            Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
        for stage, out in {
            "download": "data/raw", "tokenize": "data/tokens", "sample": "data/samples", "pretrain": "models/base",
            f"finetune {SUPERVISED}": f"models/{SUPERVISED}",
            f"evaluate {SUPERVISED}": f"reports/evaluation/{SUPERVISED}",
        }.items():  # fmt: skip
            if not Path(out).exists():
                run(stage)


def run(stage: str) -> None:
    """Runs a stage's script in the working folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *f"stages.{stage}".split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{stage}: {done.stderr[-2000:]}")


def requests_of(split: str) -> list[dict[str, Any]]:
    """The taste's requests of a split of the working folder."""
    rows = pq.ParquetFile(f"data/samples/instructions/{split}.parquet").read().to_pylist()
    return [row for row in rows if row["source"] == "taste"]


def take() -> None:
    """Replaces data/samples/preferences by those of the journals of params.yaml, split by prompt as stage sample does.

    The world's own records stay as they are, so they are not made again in each round.
    """
    params = config.load()
    sources = {name: one for name, one in params.download.sources.items() if one.name == "journal"}
    collect(Download(forget=None, sources=sources), Path("data/rated"), progress=False)
    path = Path("data/rated/preferences.parquet")
    places, table = placement(path, params.split), pq.ParquetFile(path).read().combine_chunks()
    for split in SPLITS:
        rows = table.filter(places.mask(split, 0, len(table)))
        files.write_table(Path(f"data/samples/preferences/{split}.parquet"), rows)
    integrity.write_manifest(Path("data/samples"))


def utilities(name: str, seed: int) -> np.ndarray:
    """utilities_PS of sampled answers to held-out requests, by the truth."""
    model, rows = Model.read(Path("models") / name), requests_of("test")[:PROMPTS]
    numbers: dict[int, dict[str, Any]] = {}
    for row in rows:
        asked = Asked((Message("user", row["instruction"]),))
        settings = RowSettings(SAMPLING.max_tokens, 1.0, stop=frozenset(ends(model.task)),
                               seed=seed_for(seed, "wins", name, row["id"]))  # fmt: skip
        ids = model.engine.add(model.task.prompt(asked.request), settings, samples=SAMPLES)
        numbers |= dict.fromkeys(ids, row)
    said: dict[int, list[int]] = {number: [] for number in numbers}
    while model.engine.busy:
        for token in model.engine.step():
            if token.finished != "stop":
                said[token.row].append(token.id)
    values = [
        taste.utility(row["instruction"], model.task.answer(model.task.tokenizer.decode(said[number])),
                      row["language"]).value for number, row in numbers.items()
    ]  # fmt: skip
    return np.array(values).reshape(-1, SAMPLES)


def wins(ours_PS: np.ndarray, theirs_PS: np.ndarray) -> float:
    """Share of pairs of answers in which ours is better by the truth, equal ones counted half."""
    return float((np.sign(ours_PS[:, :, None] - theirs_PS[:, None, :]).mean() + 1) / 2)


def round_of(newest: str, number: int, seed: int, count: int, choose: Any) -> str:
    """Rates answers of the newest model, and trains and evaluates the next; returns its name."""
    model, rows = Model.read(Path("models") / newest), [*requests_of("train"), *requests_of("validation")]
    rater = Rater(choose, {row["instruction"]: row["language"] for row in rows})
    chosen = prompts.of_records(Path("data/samples"), config.load().split, seed, str(number)).prompts
    asked = tuple(one for one in chosen if one.text in rater.language)
    path = Path(f"inputs/ratings-{number}.jsonl")
    with ratings_file.opened(path, model, "u-0", "synthetic") as file:
        outcome = Session(model, asked, file, rater, Settings(count, SAMPLING, seed)).run()
    assert outcome.rated == count, outcome
    added = next_round.add(path, newest, model.sha256)
    edit.change(Path("params.yaml"), {f"finetune.{added.recipe}.seed": seed})
    take()
    run(f"finetune {added.recipe}")
    run(f"evaluate {added.recipe}")
    return added.recipe


def rounds(folder: Path, seed: int, rounds: int, count: int, noise: float, utility: str) -> list[dict[str, Any]]:
    """The figures of each round of one seed, in a copy of the project."""
    choose = taste.rater(seed, noise, "null" if utility == "null" else "taste")
    copy = folder.with_name(f"{folder.name}-{utility}-{seed}")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in ("data/samples", "data/tokens/tokenizer", "models/base", f"models/{SUPERVISED}", "reports"):
        shutil.copytree(folder / name, copy / name)
    shutil.copy(folder / "params.yaml", copy)
    figures, newest = [], SUPERVISED
    try:
        with contextlib.chdir(copy):
            before_PS = utilities(SUPERVISED, seed)
            for number in range(1, rounds + 1):
                began = time.process_time(), os.times().children_user
                newest = round_of(newest, number, seed, count, choose)
                seconds = time.process_time() - began[0] + os.times().children_user - began[1]
                after_PS = utilities(newest, seed)
                metrics = files.read_json(Path(f"reports/evaluation/{newest}/metrics.json"))
                figures.append({
                    "round": number, "win_rate": wins(after_PS, before_PS), "utility": float(after_PS.mean()),
                    "utility_before": float(before_PS.mean()), "exact_match": metrics["exact_match"],
                    "rated_pairs_accuracy": metrics["rated_pairs_accuracy"],
                    "rated_pairs_low": metrics["rated_pairs_low"], "candidate": metrics["rated_pairs_low"] >= 0.5,
                    "cpu_seconds": seconds,
                })  # fmt: skip
                print(f"{utility}, seed {seed}: {figures[-1]}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return figures


def judged(runs: dict[str, list[list[dict[str, Any]]]], exact_match: float) -> dict[str, Any]:
    """The claims: each figure and whether it holds."""
    by_round = [statistics.fmean(one["win_rate"] for one in same) for same in zip(*runs["taste"], strict=True)]
    lost = [exact_match - run[-1]["exact_match"] for run in runs["taste"]]
    null = [one["candidate"] for run in runs["null"] for one in run]
    changes = [later - earlier for earlier, later in itertools.pairwise(by_round)]
    return {
        "win_rate_by_round": by_round,
        "wins_after_the_first": bool(by_round) and by_round[0] >= LEAST_WINS,
        "not_falling": all(change >= 0 for change in changes),
        "exact_match_lost": statistics.fmean(lost) if lost else None,
        "old_tasks_kept": bool(lost) and statistics.fmean(lost) <= MOST_LOST,
        "null_candidates": sum(null),
        "no_candidate_of_coins": not any(null),
        "candidates": [one["candidate"] for run in runs["taste"] for one in run],
    }


def main() -> None:
    """Runs all seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--null-rounds", type=int, default=1)
    parser.add_argument("--ratings", type=int, default=1000)
    parser.add_argument("--noise", type=float, default=0.2)
    given = parser.parse_args()
    make(given.folder, params_of(requests=5000, documents=12000, steps=660, supervised_steps=400))
    exact_match = files.read_json(given.folder / f"reports/evaluation/{SUPERVISED}/metrics.json")["exact_match"]
    runs = {
        utility: [rounds(given.folder, seed, n, given.ratings, given.noise, utility) for seed in given.seeds if n]
        for utility, n in (("taste", given.rounds), ("null", given.null_rounds))
    }
    result = {
        "settings": vars(given) | {"folder": given.folder.name}, "exact_match": exact_match,
        "claims": judged(runs, exact_match), "runs": runs,
    }  # fmt: skip
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
