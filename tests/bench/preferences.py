"""Claims about learning from judgement: reward at a KL, wins, over-optimisation, best-of-n, in worlds of known truth.

    python -m tests.bench.preferences                                   # five seeds, every world: about two CPU hours
    python -m tests.bench.preferences --seeds 1 --worlds taste --recipes reward,grpo --folder FOLDER

Prints JSON. The stages of the graph run with the recipes of profile `preferences`, in a folder for each world: `taste`,
`null` (every preference is a coin's) and `shortcut` (length alone decides a share of the pairs). Base and supervised
model are those of `taste` in all of them, whose documents and demonstrations are the same. Every seed has a reward
model of its own. With `--folder` trained models are kept and used again.

Claims and their figures were written down before the first run (infra/profiles/preferences.yaml); `holds` says of each
whether it holds on every seed that was run.
"""

import argparse
import contextlib
import io
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml

from pipeline import files, frontier
from pipeline.config import profiles
from pipeline.paths import EVALUATION, MODELS, TRAINING
from tests.bench.risk_projects import quiet
from tests.bench.risks import working_in

WORLDS = {"taste": ["preferences"], "null": ["preferences", "preferences-null"],
          "shortcut": ["preferences", "preferences-shortcut"]}  # fmt: skip
RECIPES = {
    "taste": ("reward", "dpo", "kto", "grpo", "ppo", "grpo-truth", "ppo-truth", "far"),
    "null": ("reward", "dpo", "grpo", "ppo"),
    "shortcut": ("reward", "far"),
}
"""World -> its recipes; `far` is `grpo` without a price of the KL, for fewer updates: its kept states lie close."""
SHARED = ("base", "sft")
FAR = {"steps": 60, "kl_weight": 0.0, "learning_rate": 0.0015}
BUDGET, CHOSEN_KL = 10.0, frontier.kl_of_best(64)
"""KL at which rewards are judged; KL up to which the rule without the truth goes, that of best-of-64: as far as the
reward model has seen better answers of the supervised model."""
LIMITS = {
    "share_of_best": 0.85,
    "win_rate": 0.70,
    "chosen": 0.95,
    "best_of_n": 0.95,
    "ceiling_gap": 0.03,
    "seconds": 60,
}


def params(world: str, seeds: Sequence[int]) -> dict[str, Any]:
    """The params of a world's project: the recipes of the profile by seed, each policy with its seed's reward model."""
    made: dict[str, Any] = yaml.safe_load(profiles.rendered(WORLDS[world]))
    quiet(made)
    recipes, evaluations = made["finetune"], made["evaluations"]
    made["finetune"] = {"sft": recipes["sft"]}
    made["evaluations"] = {name: evaluations[name] for name in SHARED}
    for seed in seeds:
        for name in RECIPES[world]:
            kind = {"far": "grpo-s1"}.get(name, name if name == "reward" else f"{name}-s1")
            text = json.dumps([recipes[kind], evaluations[kind]]).replace('"models/reward"', f'"models/reward-s{seed}"')
            recipe, evaluation = json.loads(text)
            recipe["seed"] = seed
            if name == "far":
                recipe["loss"]["kl"]["weight"], recipe["schedule"]["steps"] = FAR["kl_weight"], FAR["steps"]
                recipe["optimizer"]["learning_rate"] = FAR["learning_rate"]
                recipe["validation"]["keep"] = "last"
            if name == "reward":
                stated = made["download"]["sources"]["taste"]["taste"]
                ceiling = {key: stated[key] for key in ("noise", "shortcut", "utility")}
                evaluation["measures"]["reward_pairs"]["ceiling"] = ceiling
            made["finetune"][f"{name}-s{seed}"], made["evaluations"][f"{name}-s{seed}"] = recipe, evaluation
    made["register"]["models"], made["search"], made["experiments"] = [], {}, {}
    return made


def run(world: str, seeds: Sequence[int], recipes: Sequence[str], folder: Path, start: Path | None) -> dict[str, Any]:
    """Figures of one world: model -> metrics, points along the training, CPU seconds of training.

    Args:
        world: one of WORLDS.
        seeds: of the recipes.
        recipes: names in RECIPES.
        folder: of the project.
        start: a project whose base and supervised model are taken; None: they are trained.
    """
    from stages import download, pretrain, sample, tokenize

    made = params(world, seeds)
    folder.mkdir(parents=True, exist_ok=True)
    with working_in(folder):
        text = yaml.safe_dump(made, sort_keys=False, allow_unicode=True)
        Path("params.yaml").write_text(text, encoding="utf-8")
        if not Path("data/samples/manifest.json").exists():
            for stage in (download, tokenize, sample):
                stage.main()
        if start is not None:
            _take(start)
        if not (MODELS / "base").exists():
            pretrain.main()
        names = ["sft", *(name for name in made["finetune"] if name.rpartition("-s")[0] in recipes)]
        return {name: _trained(name, world) for name in names}


def _take(start: Path) -> None:
    """Copies base and supervised model with their training summaries, unless they are there."""
    for name in SHARED:
        for path in (MODELS / name, Path(f"{MODELS / name}.states")):
            if not path.exists():
                shutil.copytree(start / path, path)
        TRAINING.mkdir(parents=True, exist_ok=True)
        for source in (start / TRAINING).glob(f"{name}.*"):
            shutil.copy(source, TRAINING)


def _trained(name: str, world: str) -> dict[str, Any]:
    """Trains and measures a model, unless it is there, and returns its figures."""
    from stages import evaluate, finetune

    before = time.process_time()
    if not (MODELS / name).exists():
        with mock.patch.object(sys, "argv", ["finetune", name]):
            finetune.main()
        files.write_json(Path(f"seconds/{name}.json"), {"seconds": time.process_time() - before})
    if not (EVALUATION / name / "metrics.json").exists():
        with mock.patch.object(sys, "argv", ["evaluate", name]):
            evaluate.main()
    figures = _figures(name)
    shown = {key: value for key, value in figures.items() if key not in ("along", "frontier")}
    print(world, name, json.dumps(shown), file=sys.stderr, flush=True)
    return figures


def _figures(name: str) -> dict[str, Any]:
    metrics = files.read_json(EVALUATION / name / "metrics.json")
    details = files.read_json(EVALUATION / name / "details.json").get("judgement", {})
    seconds = Path(f"seconds/{name}.json")
    figures: dict[str, Any] = {key: round(value, 4) for key, value in metrics.items()}
    figures["seconds"] = round(files.read_json(seconds)["seconds"], 1) if seconds.exists() else None
    figures["along"] = details.get("along")
    figures["frontier"] = details.get("frontier")
    return figures


def claims(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every claim with its figure for each seed; a claim whose models were not run is left out."""
    made: dict[str, Any] = {}
    taste, null = found.get("taste", {}), found.get("null", {})
    sft = taste.get("sft", {}).get("true_reward")

    def add(claim: str, values: dict[str, float], holds: dict[str, bool]) -> None:
        if values:
            known = [value for value in values.values() if math.isfinite(value)]
            shown = {k: round(v, 4) if math.isfinite(v) else None for k, v in values.items()}
            mean = round(statistics.fmean(known), 4) if known else None
            made[claim] = {"values": shown, "holds": all(holds.values()), "mean": mean}

    for kind in ("grpo-truth", "ppo-truth", "grpo", "ppo", "dpo", "kto"):
        own = {name: one for name, one in taste.items() if name.rpartition("-s")[0] == kind}
        for bound, best in (("of 1", 1.0), ("of the best samples", None)):
            values, holds = {}, {}
            for name, one in own.items():
                highest = best or one.get("best_possible_reward")
                if highest:
                    values[name] = one["true_reward"] / highest
                    holds[name] = values[name] >= LIMITS["share_of_best"] and one["kl_nats"] <= BUDGET
            add(f"{kind}: share of the best possible reward, {bound}", values, holds)
        normalised = {name: (one["true_reward"] - sft) / (1 - sft) for name, one in own.items() if sft is not None}
        add(f"{kind}: gain as a share of the possible one", normalised, {})
        rates = {name: one["true_win_rate"] for name, one in own.items()}
        add(f"{kind}: win rate", rates, {name: rate >= LIMITS["win_rate"] and own[name]["kl_nats"] <= BUDGET
                                         for name, rate in rates.items()})  # fmt: skip
        seconds = {name: one["seconds"] for name, one in own.items() if one["seconds"]}
        add(f"{kind}: CPU seconds", seconds, {name: value <= LIMITS["seconds"] for name, value in seconds.items()})
        add(f"{kind}: KL, nats", {name: one["kl_nats"] for name, one in own.items()}, {})
        shares = {f"{name}, n={n}": share for name, one in own.items() for n, share in _beside_best_of(one).items()}
        add(f"{kind}: reward beside best-of-n at equal KL", shares,
            {name: share >= LIMITS["best_of_n"] for name, share in shares.items()})  # fmt: skip
    for name, one in null.items():
        if "true_win_rate" in one and name != "sft":
            add(f"null world, {name}: win rate", {name: one["true_win_rate"]},
                {name: one["true_win_rate_low"] <= 0.5 <= one["true_win_rate_high"]})  # fmt: skip
    for world, turns in (("shortcut", True), ("taste", False)):
        far = {
            name: one["along"] for name, one in found.get(world, {}).items() if name.startswith("far-") and one["along"]
        }
        add(f"{world}: turning point of the truth is {'found' if turns else 'not found'}",
            {name: -1.0 if (d := one["curves"]["true"]["turning"]) is None else d for name, one in far.items()},
            {name: one["curves"]["true"]["turns"] is turns for name, one in far.items()})  # fmt: skip
        kept = {name: chosen(one["points"]) for name, one in far.items()}
        add(f"{world}: share of the best true reward at the last state within {CHOSEN_KL:.2f} nats", kept,
            {name: share >= LIMITS["chosen"] for name, share in kept.items()})  # fmt: skip
    gaps = {name: one["reward_ceiling_gap"] for name, one in taste.items() if "reward_ceiling_gap" in one}
    add("reward model: accuracy below the noise ceiling", gaps,
        {name: gap <= LIMITS["ceiling_gap"] for name, gap in gaps.items()})  # fmt: skip
    return made


def chosen(points: Sequence[dict[str, float]]) -> float:
    """Share of the best true reward of all states that the rule of the KL budget keeps, which sees no truth."""
    place = frontier.within_budget([point["kl_nats"] for point in points], CHOSEN_KL)
    return points[place]["true_reward"] / max(point["true_reward"] for point in points)


def _beside_best_of(one: dict[str, Any]) -> dict[int, float]:
    """n -> true reward along the training at the KL of best-of-n, as a share of best-of-n's by the same judge."""
    if not (one.get("along") and one.get("frontier")):
        return {}
    points = one["along"]["points"]
    distance = np.sqrt([point["kl_nats"] for point in points])
    judge = "judge" if any(row["by"] == "judge" for row in one["frontier"]["best_of"]) else "true"
    rising = np.maximum.accumulate(distance)
    shares = {}
    for row in one["frontier"]["best_of"]:
        if row["by"] == judge and row["n"] > 1 and math.sqrt(row["kl_nats"]) <= rising[-1]:
            reward = np.interp(math.sqrt(row["kl_nats"]), rising, [point["true_reward"] for point in points])
            shares[row["n"]] = float(reward) / row["true_reward"]
    return shares


def main() -> int:
    """Runs the worlds and prints figures and claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--recipes", default="", help="only these; a policy needs `reward`")
    parser.add_argument("--folder", type=Path, help="keeps data and models")
    parser.add_argument("--start", type=Path, help="a project with models/base and models/sft")
    options = parser.parse_args()
    seeds, found, before = range(1, options.seeds + 1), {}, time.process_time()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tohum-preferences-")))
        start = options.start
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        for world in options.worlds.split(","):
            recipes = options.recipes.split(",") if options.recipes else RECIPES[world]
            found[world] = run(world, seeds, recipes, folder.absolute() / world, start and start.absolute())
            start = start or folder / world
    figures = {
        world: {name: {k: v for k, v in one.items() if k not in ("along", "frontier")} for name, one in models.items()}
        for world, models in found.items()
    }
    print(json.dumps({"bench": "preferences", "seeds": list(seeds), "cpu_seconds": round(time.process_time() - before),
                      "claims": claims(found), "figures": figures}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
