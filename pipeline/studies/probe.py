"""A probe of every fine-tuning method on a user's own file: the tuners of profile `methods`, few steps, two seeds.

It predicts which method is best in a full run; `tohum which` scores the prediction later.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import variants
from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.studies.guess import Guess
from pipeline.studies.sizing import TRY
from pipeline.studies.workspace import ROOT, params

PROFILE = ROOT / "infra/profiles/methods.yaml"
SEEDS = (1, 2)
STEPS = 60
BUDGET = replace(TRY, finetune=(STEPS, STEPS))
"""As a try, but every method takes as many updates."""
FULL: dict[Kind, str] = {"labelled": "methods", "instructions": "answers"}
"""The profile that compares methods on each kind of record in full."""
# Task and measures of each kind of record.
_COMPARED: dict[Kind, tuple[dict[str, Any], dict[str, Any]]] = {
    "labelled": (
        {"name": "classify", "max_tokens": 96},
        {"classification": {"split": "test", "batch_size": 64, "baseline": "bag_of_words"}},
    ),
    "instructions": (
        {"name": "instruct", "template": "chat", "max_tokens": 104, "max_prompt_tokens": 80},
        {"overlap": {"split": "test", "source": None, "batch_size": 64, "max_tokens": 24, "max_records": 100}},
    ),
}


def probe_params(data: Path, guessed: Guess) -> dict[str, Any]:
    """The params of a probe: the params of a try, with every method of the profile that needs all the records.

    Raises:
        UserError: a record kind without methods to compare.
    """
    if guessed.kind not in _COMPARED:
        raise UserError(
            f"{data}: holds {guessed.kind}; methods are compared on labelled texts (text, label) or on instructions "
            "(instruction, output)"
        )
    if guessed.label_form != "one":
        raise UserError(f"{data}: holds several labels a row; methods are compared on one label a text: use tohum try")
    raw = params(data, guessed)
    raw["compute"]["threads"], raw["runtime"]["progress"] = 1, False  # recipes run side by side
    task, measures = _COMPARED[guessed.kind]
    raw["finetune"] = {
        f"{name}-s{seed}": _recipe(recipe, guessed.kind, task, seed)
        for name, recipe in methods().items()
        for seed in SEEDS
    }
    forgetting = {"perplexity": {"split": "test", "batch_size": 32, "max_documents": 40}}
    judged = {"measures": measures | forgetting, "thresholds": {}}
    raw["evaluations"] = {"base": raw["evaluations"]["base"]} | dict.fromkeys(raw["finetune"], judged)
    return raw


def methods() -> dict[str, dict[str, Any]]:
    """Method -> its recipe for the first seed, as in the profile.

    Without few-shot recipes; of a tuner that comes in several lengths only the middle one.
    """
    recipes = variants.expanded(yaml.safe_load(PROFILE.read_text(encoding="utf-8")), PROFILE.name)["finetune"]
    first = {name.removesuffix("-s1"): recipe for name, recipe in recipes.items() if name.endswith("-s1")}
    lengths: dict[str, list[str]] = {}
    for name, recipe in first.items():
        if recipe["few"] is None:
            lengths.setdefault(name.rstrip("0123456789"), []).append(name)
    return {names[len(names) // 2]: first[names[len(names) // 2]] for names in lengths.values()}


def _recipe(recipe: dict[str, Any], kind: Kind, task: dict[str, Any], seed: int) -> dict[str, Any]:
    """The profile's recipe on this kind of record with fewer steps, otherwise as in a full run."""
    return recipe | {
        "data": kind,
        "task": task,
        "seed": seed,
        "schedule": recipe["schedule"] | {"steps": STEPS, "warmup_steps": 5},
        "validation": recipe["validation"] | {"every": STEPS // 2, "batches": 5},
    }
