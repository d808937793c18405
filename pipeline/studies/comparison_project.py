"""The project of a comparison: a user's file, a released model as its start, and the recipes that are compared.

It lies in .tohum/which: params.yaml with the model as an unchanged base, the file's source, and a recipe per method
and seed, `lora-s1`, `full-s1`...; below it, in `scratch`, a project with the small model of a try. Both have the same
split of the same records.
"""

import contextlib
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config.params import Split
from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.paths import INPUTS, WORK
from pipeline.studies import workspace
from pipeline.studies.guess import Guess
from pipeline.studies.released import Base
from pipeline.studies.sizing import TRY
from pipeline.studies.survey import choose_split, survey

FOLDER = WORK / "which"
SCRATCH = "scratch"
"""Folder of the small model's project, below the comparison's."""
KINDS: dict[Kind, str] = {
    "labelled": "labelled texts (text, label)",
    "instructions": "instructions (instruction, output)",
}


SMALL = replace(TRY, tested=200)
"""Bounds of the small model; so many held-out records tell differences of a few per cent."""


def make(data: Path, guessed: Guess, base: Base) -> dict[str, Any]:
    """Writes both projects and samples the data; returns the params of the comparison, whose recipes are not yet there.

    Raises:
        UserError: data that cannot be learned from, a model that cannot be a start, or a stage that failed.
    """
    if guessed.kind not in KINDS:
        raise UserError(f"{data}: holds {guessed.kind}; methods are compared on {' or on '.join(KINDS.values())}")
    if guessed.label_form != "one":
        raise UserError(f"{data}: holds several labels a row; methods are compared on one label a text: use tohum try")
    raw = _params(data, guessed, base)
    workspace.workspace(data, guessed, FOLDER, raw)
    with contextlib.chdir(FOLDER):
        surveyed = survey(raw["download"]["sources"], guessed.kind)
        split = choose_split(surveyed, SMALL.tested)
    raw["split"] |= {"validation": split.validation, "test": split.test, "seed": split.seed}
    write(raw)
    _write_scratch(data, guessed, split)
    workspace.repro(FOLDER, "sample", quiet=True)
    return raw


def write(raw: dict[str, Any], folder: Path = FOLDER) -> None:
    """Writes params.yaml of a comparison."""
    import yaml

    files.write_text(folder / "params.yaml", yaml.safe_dump(raw, sort_keys=False, allow_unicode=True))


def _params(data: Path, guessed: Guess, base: Base) -> dict[str, Any]:
    """Params with the released model as the base, and no recipe."""
    raw = workspace.params(INPUTS / data.name, guessed)
    raw["compute"]["threads"], raw["runtime"]["progress"] = 1, False  # methods run side by side
    raw["tokenize"] = {
        "method": "folder", "vocab_size": None, "pattern": None, "path": str(base.folder),
        "sha256": base.tokenizer_sha256,
    }  # fmt: skip
    raw["pretrain"]["start"] = {
        "kind": "folder", "path": str(base.folder), "revision": None, "sha256": base.sha256, "licence": base.licence,
        "zero_projections": False,
    }  # fmt: skip
    raw["pretrain"]["task"] = {"name": "unchanged"}
    raw["pretrain"]["schedule"] |= {"steps": 0, "warmup_steps": 0}
    measures = {"bag_of_words": {"split": "test"}} if guessed.kind == "labelled" else {}
    raw["finetune"], raw["evaluations"] = {}, {"base": {"measures": measures, "thresholds": {}}}
    return raw


def _write_scratch(data: Path, guessed: Guess, split: Split) -> None:
    """The project of the small model: a try's params, the same split, one recipe of full fine-tuning."""
    raw = workspace.params(INPUTS / data.name, guessed)
    raw["compute"]["threads"], raw["runtime"]["progress"] = 1, False
    raw["split"] |= {"validation": split.validation, "test": split.test, "seed": split.seed}
    name = next(name for name in raw["finetune"] if name.endswith("-full"))
    raw["finetune"] = {"scratch": raw["finetune"][name]}
    raw["evaluations"] = {"base": raw["evaluations"]["base"], "scratch": raw["evaluations"][name]}
    workspace.workspace(data, guessed, FOLDER / SCRATCH, raw)


def recipe(  # noqa: PLR0913 - each is one axis of a recipe
    kind: Kind, method: str, seed: int, task: dict[str, Any], setting: dict[str, Any], sizes: dict[str, int]
) -> dict[str, Any]:
    """A recipe of `finetune`.

    Args:
        kind: of the records.
        method: lora or full.
        seed: of the recipe.
        task: with its limits.
        setting: learning_rate, and of lora rank.
        sizes: batch_size, steps and validation_batches.
    """
    tuner: dict[str, Any] = {"name": "full"}
    if method == "lora":
        rank = setting["rank"]
        tuner = {
            "name": "lora", "rank": rank, "alpha": 2.0 * rank, "rank_stabilised": False, "decompose": False,
            "dropout": 0.0, "targets": ["attention", "mlp"], "merged": False,
        }  # fmt: skip
    steps = sizes["steps"]
    return {
        "from": "base", "reference": "base", "judge": {"name": "none", "reads": "models/base"},
        "data": kind, "depth": None, "few": None, "seed": seed, "privacy": None,
        "task": copy.deepcopy(task), "loss": {"name": "cross_entropy"}, "tuner": tuner,
        "weighting": {"name": "uniform"}, "ordering": {"name": "shuffled", "batch_size": sizes["batch_size"]},
        "optimizer": {
            "name": "adamw", "learning_rate": setting["learning_rate"], "weight_decay": 0.0, "beta1": 0.9,
            "beta2": 0.999, "epsilon": 1.0e-8,
        },
        "schedule": {
            "shape": "cosine", "steps": steps, "warmup_steps": max(1, steps // 10), "final_share": 0.0,
            "accumulate": 1, "batch_warmup_steps": 0, "clip_norm": 1.0,
        },
        "validation": {
            "every": max(1, steps // 5), "batches": sizes["validation_batches"], "patience": 0, "keep": "best",
        },
    }  # fmt: skip


def evaluation(kind: Kind, score: str, answer_tokens: int, most: int | None) -> dict[str, Any]:
    """The entry of a recipe in `evaluations`, by which its full run is measured."""
    if kind == "labelled":
        measures: dict[str, Any] = {"classification": {"split": "test", "batch_size": 64, "baseline": "bag_of_words"}}
    else:
        shared = {"split": "test", "batch_size": 32, "max_tokens": answer_tokens, "max_records": most}
        measures = {"exact_match": shared} if score == "exact_match" else {"overlap": shared | {"source": None}}
    return {"measures": measures, "thresholds": {}}
