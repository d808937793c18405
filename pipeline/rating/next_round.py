"""A round in params.yaml: its source `journal`, and a recipe that learns from the ratings by dpo.

The recipe starts from the rated model, which is the reference too. Ratings of earlier rounds are off-policy: other
models gave the answers. They stay in the data with their model's hash and are mixed in as replay, by the ordering
`mixture` over the column `model_sha256`: most of every batch is of the newest round.
"""

import glob
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline import config, files
from pipeline.config import edit
from pipeline.data import snapshot
from pipeline.errors import UserError
from pipeline.orchestration.added_source import SETTINGS, inserted
from pipeline.paths import MODELS, PARAMS

NEWEST_SHARE = 3.0
"""Weight of the newest round in a batch; each earlier one has 1."""
_PASSES = 3
"""Over the pairs of the newest round."""
_LEAST_STEPS = 20
_BATCH = 8
_LEARNING_RATE = 2e-4
_LOSS = {"name": "dpo", "beta": 0.6, "sft_weight": 0.3}
"""Near the reference, and with the likelihood of chosen answers held too: on a few hundred pairs of own answers dpo
alone takes it from both answers and gives it to texts that nobody judged. By `tests.bench.rounds`' first round."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_ANSWERING = frozenset({"instruct", "preference", "thumbs", "prompts"})
"""Tasks whose template and limits a recipe over preferences takes over."""


@dataclass(frozen=True)
class Added:
    """Names in params.yaml."""

    source: str
    recipe: str


def add(path: Path, model: str, model_sha256: str) -> Added:
    """Adds source, recipe and evaluation of a round to params.yaml; what is there already stays.

    Args:
        path: the round's file.
        model: the rated model, a recipe of params.yaml.
        model_sha256: of its folder.

    Raises:
        UserError: a model that no recipe of params.yaml makes, or that has changed since; a file without a choice; a
            params.yaml that config refuses afterwards. Nothing is written then.
    """
    text = PARAMS.read_text(encoding="utf-8")
    raw: Any = yaml.safe_load(text)
    names = Added(path.stem, f"{model}-{path.stem}")
    _require_own_source(raw, path)
    recipe = _recipe(raw, path, model, model_sha256)
    source = SETTINGS | {"path": path.as_posix(), "sha256": files.sha256_of(path)} | _kinds(path)
    new = {
        ("download", "sources"): {names.source: source},
        ("finetune",): {names.recipe: recipe},
        ("evaluations",): {names.recipe: _evaluation(raw, names.source, model)},
    }
    for section, entries in new.items():
        known = raw
        for key in section:
            known = known[key]
        missing = {name: entry for name, entry in entries.items() if name not in known}
        known |= missing
        text = inserted(text, missing, section) if missing else text
    if yaml.safe_load(text) != raw:
        raise UserError(f"{PARAMS}: is written with aliases or merge keys; add the round by hand:\n{_written(new)}")
    config.check(raw, PARAMS.name)
    files.write_text(PARAMS, text)
    # the file may have grown, and a registered model's next version is registered too
    changes: dict[str, Any] = {
        f"download.sources.{names.source}.{key}": source[key] for key in ("sha256", "corrections")
    }
    registered = raw["register"]["models"]
    if model in registered and names.recipe not in registered:
        changes["register.models"] = [*registered, names.recipe]
    edit.change(PARAMS, changes)
    return names


def _kinds(path: Path) -> dict[str, bool]:
    """Labels and corrections of the source only where the file has some: each adds columns to the records of further
    kinds, and all models that learn from those would be trained anew.
    """
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    corrected = any(rating["form"] == "correction" for line in lines for rating in line["ratings"])
    return {"corrections": corrected, "labels": False}


def _require_own_source(raw: Any, path: Path) -> None:
    """Raises UserError where a source cannot be named as the file, another one is, or one reads the file already."""
    if not _NAME.fullmatch(path.stem):
        raise UserError(
            f"{path}: source and recipe are named as the file, {path.stem!r}; expected letters without accents, "
            "digits, - and _: name it otherwise"
        )
    for other, read in _journals(raw):
        if read == path and other != path.stem:
            raise UserError(
                f"{PARAMS}: download.sources.{other} reads {path} already, and every rating would come twice; name the "
                "file of the round otherwise: --to"
            )
    known = raw["download"]["sources"].get(path.stem)
    if known is not None and known.get("path") != path.as_posix():
        raise UserError(
            f"{PARAMS}: download.sources.{path.stem} is another source, and that of {path} would have its name; "
            "name the file of the round otherwise"
        )


def _recipe(raw: Any, path: Path, model: str, model_sha256: str) -> dict[str, Any]:
    base = raw["finetune"].get(model)
    if base is None or base["task"]["name"] not in _ANSWERING:
        raise UserError(
            f"finetune.{model}: no recipe of {PARAMS} with one of the tasks {', '.join(sorted(_ANSWERING))} makes the "
            "rated model; write a recipe with `data: preferences` and `loss: {name: dpo, ...}` by hand"
        )
    if files.sha256_of(MODELS / model) != model_sha256:
        raise UserError(
            f"models/{model}: is no longer the rated model; restore it (`dvc checkout`), or rate the new one"
        )
    pairs = _pairs(path)
    if not pairs:
        raise UserError(f"{path}: holds no choice between two answers, so no preference; rate more first")
    limits = {name: base["task"][name] for name in ("template", "max_tokens", "max_prompt_tokens")}
    earlier = [sha256 for sha256 in _earlier(raw, path) if sha256 != model_sha256]
    share = NEWEST_SHARE / (NEWEST_SHARE + len(earlier))
    steps = max(_LEAST_STEPS, math.ceil(_PASSES * pairs / (share * _BATCH)))
    return {
        "from": model,
        "reference": model,
        "judge": {"name": "none", "reads": f"models/{model}"},
        "data": "preferences",
        "depth": None,
        "few": None,
        "seed": base["seed"],
        "privacy": None,
        "task": {"name": "preference", **limits},
        "loss": dict(_LOSS),
        "tuner": {"name": "full"},
        "weighting": {"name": "uniform"},
        "ordering": {
            "name": "mixture", "batch_size": _BATCH, "column": "model_sha256",
            "shares": {model_sha256: NEWEST_SHARE} | dict.fromkeys(earlier, 1.0),
        },
        "optimizer": {
            "name": "adamw", "learning_rate": _LEARNING_RATE, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.95,
            "epsilon": 1e-8,
        },
        "schedule": {
            "shape": "cosine", "steps": steps, "warmup_steps": steps // 10, "final_share": 0.0, "accumulate": 1,
            "batch_warmup_steps": 0, "clip_norm": 1.0,
        },
        "validation": {"every": max(1, steps // 4), "batches": 10, "patience": 0, "keep": "last"},
    }  # fmt: skip


def _evaluation(raw: Any, source: str, model: str) -> dict[str, Any]:
    """The rated model's evaluation, and agreement with held-out ratings, which must be above chance."""
    rated = raw["evaluations"].get(model, {"measures": {}, "thresholds": {}})
    agreement = {"split": "held_out", "source": source, "parent": model, "batch_size": 32}
    known = {name: rated["measures"][name] for name in rated["measures"] if name != "rated_pairs"}
    return {
        "measures": known | {"rated_pairs": agreement},
        "thresholds": rated["thresholds"] | {"rated_pairs_low": {"at_least": 0.5, "at_most": None}},
    }


def _pairs(path: Path) -> int:
    """Choices between two answers in a file, ties not counted."""
    last = {line["id"]: line for _, line in snapshot.read(path) if isinstance(line, dict)}
    return sum(
        rating["form"] == "choice" and rating["value"] != "tie" for line in last.values() for rating in line["ratings"]
    )


def _earlier(raw: Any, path: Path) -> list[str]:
    """Hashes of the models of earlier rounds, each once, in the order of their sources."""
    found: dict[str, None] = {}
    for _, other in _journals(raw):
        for _, line in snapshot.read(other) if other != path else ():
            if isinstance(line, dict) and any(
                rating["form"] == "choice" and rating["value"] != "tie" for rating in line["ratings"]
            ):
                found[line["model_sha256"]] = None
    return list(found)


def _journals(raw: Any) -> Iterator[tuple[str, Path]]:
    """Source and file of every snapshot whose choices become preferences."""
    for name, source in raw["download"]["sources"].items():
        if source["name"] == "journal" and source.get("choices"):
            yield from ((name, Path(found)) for found in sorted(glob.glob(source["path"], recursive=True)))


def _written(new: dict[tuple[str, ...], dict[str, Any]]) -> str:
    return "\n".join(
        f"{'.'.join(section)}:\n{yaml.safe_dump(entries, allow_unicode=True, sort_keys=False, width=110)}"
        for section, entries in new.items()
    )
