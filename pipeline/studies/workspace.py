"""A project in a folder of its own that runs the graph on a user's file with a small budget.

The folder gets the project's code, dvc.yaml, and a params.yaml that names the file. The gates' thresholds are opened,
so that one run shows all results.
"""

import contextlib
import copy
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.config import profiles
from pipeline.config.recipe import ALL_KINDS, Kind
from pipeline.errors import UserError
from pipeline.orchestration import dvc_lock
from pipeline.orchestration.process import GUARD, GUARD_STOPS_S
from pipeline.paths import CODE, INPUTS, SAMPLES, TOKENIZER
from pipeline.studies import sizing, speed
from pipeline.studies.guess import Guess
from pipeline.studies.sizes import Sizes, estimated, measured
from pipeline.studies.sizing import Budget
from pipeline.studies.survey import Survey, choose_split, survey

ROOT = CODE
# The embedded default's recipes for each kind of record.
RECIPES: dict[Kind, tuple[str, ...]] = {
    "documents": (),
    "labelled": ("spam-full", "spam-lora"),
    "instructions": ("chat-full", "chat-lora"),
    "preferences": (),
    "ratings": (),
}


def workspace(data: Path, guessed: Guess, folder: Path, made: dict[str, Any] | None = None) -> None:
    """Replaces the project in `folder`; DVC's cache there stays.

    Args:
        data: the user's file.
        guessed: its format and columns.
        folder: .tohum/try or a similar one.
        made: params; None: the result of `params`.

    Raises:
        UserError: a run is going on in the folder.
    """
    if alive := dvc_lock.running(folder) if folder.is_dir() else []:
        raise UserError(
            f"{folder}: a run is going on there (process {alive[0]}); wait for its end, or interrupt it, then run again"
        )
    for name in ("pipeline", "stages"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    before = files.sha256_of(folder / "inputs") if (folder / "inputs").is_dir() else ""
    shutil.rmtree(folder / "inputs", ignore_errors=True)
    (folder / "inputs").mkdir()
    if guessed.inputs is not None:
        guessed.inputs.copy_to(folder / "inputs")
    if before and before != files.sha256_of(folder / "inputs"):  # models and pages of other data would stay
        for name in ("dvc.lock", "data", "models", "reports"):
            files.remove(folder / name)
    files.write_text(folder / "params.yaml", _yaml(made or params(INPUTS / data.name, guessed)))


def params(data: Path, guessed: Guess) -> dict[str, Any]:
    """The params of a try: the embedded default with this file, a small model and few steps."""
    import yaml

    raw: dict[str, Any] = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["download"]["sources"] = sources(data, guessed, "not stated in a try")
    raw["tokenize"]["vocab_size"] = 1024
    raw["pretrain"]["model"] |= {"n_layers": 2, "d_model": 64, "n_heads": 2, "n_kv_heads": 2, "d_ff": 192}
    raw["pretrain"]["model"]["context_length"] = 128
    raw["pretrain"]["schedule"] |= {"steps": 150, "warmup_steps": 15}
    raw["pretrain"]["validation"] |= {"every": 50, "batches": 5}
    keep = RECIPES[guessed.kind]
    raw["finetune"] = {name: raw["finetune"][name] for name in keep}
    for recipe in raw["finetune"].values():
        recipe["schedule"] |= {"steps": 150, "warmup_steps": 15}
        recipe["validation"] |= {"every": 50, "batches": 5}
    raw["evaluations"] = {name: raw["evaluations"][name] for name in ("base", *keep)}
    for evaluation in raw["evaluations"].values():
        evaluation["thresholds"] = {}
    if guessed.label_form == "several":
        raw["evaluations"]["base"]["measures"].pop("bag_of_words")
        profiles.change(raw, several_labels(raw, keep))
    raw["evaluations"]["base"]["measures"]["perplexity"]["max_documents"] = 200
    if guessed.kind != "labelled":
        raw["evaluations"]["base"]["measures"].pop("bag_of_words")
    if guessed.kind == "instructions":
        for name in keep:
            raw["evaluations"][name]["measures"]["exact_match"]["max_records"] = 100
    raw["gates"] = lenient(raw["gates"])
    raw["register"]["models"], raw["search"] = [], {}
    raw["runtime"]["tracking"]["enabled"] = False
    return raw


def several_labels(raw: Mapping[str, Any], recipes: Sequence[str]) -> dict[str, Any]:
    """Changes by dotted path that turn classifiers into multi-label ones, with thresholds chosen on validation."""
    changes: dict[str, Any] = {}
    for name in recipes:
        task, measures = raw["finetune"][name]["task"], raw["evaluations"][name]["measures"]
        if task["name"] != "classify":
            continue
        settings = {"name": "multi_label", "max_tokens": task["max_tokens"], "decide": {"by": "f1"}}
        others = {measure: fields for measure, fields in measures.items() if measure != "classification"}
        changes |= {
            f"finetune.{name}.task": settings,
            f"finetune.{name}.loss": {"name": "binary_cross_entropy"},
            f"evaluations.{name}.measures": {"multi_label": measures["classification"]} | others,
        }
    return changes


def sources(data: Path, guessed: Guess, rights: str) -> dict[str, Any]:
    """Entries of `download.sources` for a file: its records, and their texts as documents to pretrain on.

    Args:
        data: its path in params.yaml.
        guessed: its format and columns.
        rights: licence and consent.
    """
    entry = guessed.entry(data) | {"licence": rights, "consent": rights}
    if guessed.kind == "documents":
        return {"own": entry}
    texts = {"own-text": guessed.running_text()}
    if (question := guessed.columns.get("instruction", guessed.columns.get("prompt"))) is not None:
        texts["own-questions"] = {"text": question}
    documents = {
        name: {k: v for k, v in entry.items() if k != "label_form"}
        | {"kind": "documents", "columns": columns, "labels": {}}
        for name, columns in texts.items()
    }
    return {"own": entry} | documents


def lenient(gates: dict[str, Any]) -> dict[str, Any]:
    """The gates' settings with every threshold opened as far as it goes."""

    def opened(name: str, value: Any) -> Any:
        if isinstance(value, str):
            return "warn" if value == "block" else value
        if name in ("near", "sample", "round_trip_documents", "language_sample"):
            return value
        if isinstance(value, dict):
            return {} if name == "min_share" else {key: opened(key, inner) for key, inner in value.items()}
        if name in ("at_least", "below") or name.startswith("min_"):
            return type(value)(1 if name in ("min_labels", "min_tokens") else 0)
        if isinstance(value, int) and not isinstance(value, bool):
            return 10**9 if name not in ("train", "validation", "test", *ALL_KINDS) else 0
        return 1.0 if name != "at_most" else 10.0**9

    opened_gates = {gate: opened(gate, settings) for gate, settings in gates.items()}
    opened_gates["raw"]["min_rows"] = dict.fromkeys(gates["raw"]["min_rows"], 0)
    opened_gates["samples"]["max_tokens"] = dict.fromkeys(gates["samples"]["max_tokens"], 10**9)
    return opened_gates


def fit(folder: Path, raw: dict[str, Any], kind: Kind, budget: Budget, beside: int = 1) -> dict[str, Any]:
    """Sizes the params of a project made by `workspace` to its data, and runs its data stages.

    A survey of the file gives split shares, vocabulary and the expected duration; the sampled records give the rest.
    Prints every derived setting with its reason, and writes params.yaml.

    Args:
        folder: the project.
        raw: its params.
        kind: the kind of record that the recipes learn from.
        budget: bounds of the sizes.
        beside: recipes that will run at the same time.

    Returns:
        The params.

    Raises:
        UserError: data that cannot be learned from, or a stage that failed.
    """
    raw = copy.deepcopy(raw)
    with contextlib.chdir(folder):
        surveyed = survey(raw["download"]["sources"], kind)
    settings = by_survey(surveyed, budget)
    sizing.apply(raw, settings, kind)
    print("settings by the data (the others as in profile embedded):", flush=True)
    print("\n".join(sizing.described(settings)), flush=True)
    sizes = estimated(surveyed, choose_split(surveyed, budget.tested))
    rough = copy.deepcopy(raw)
    with contextlib.suppress(UserError):  # three bytes a token is a guess; the measured sizes decide
        sizing.apply(rough, sizing.sized(rough, sizes, budget), kind)
        print_duration(rough, sizes, beside)
    files.write_text(folder / "params.yaml", _yaml(raw))
    repro(folder, "sample")
    with contextlib.chdir(folder):
        settings = sizing.sized(raw, measured(SAMPLES, TOKENIZER, kind), budget)
    sizing.apply(raw, settings, kind)
    print("settings by the sampled data:")
    print("\n".join(sizing.described(settings)), flush=True)
    files.write_text(folder / "params.yaml", _yaml(raw))
    return raw


def by_survey(surveyed: Survey, budget: Budget) -> list[sizing.Setting]:
    """Split, and the vocabulary where there is text that it is learned from."""
    texts = surveyed.sizes.get("documents", {})
    split = choose_split(surveyed, budget.tested)
    n = len(surveyed.sizes[surveyed.kind])
    held = f"{n:,} different {surveyed.kind}"
    return [
        sizing.Setting("split.validation", split.validation, held),
        sizing.Setting("split.test", split.test, held),
        sizing.Setting("split.seed", split.seed, "the first that leaves records in every split, of every label"),
        *([sizing.vocabulary(sum(texts.values()), budget)] if texts else []),
    ]


def print_duration(raw: dict[str, Any], sizes: Sizes, beside: int = 1) -> None:
    """States the expected duration of a whole run of these params; nothing where it cannot be timed."""
    usual = int(np.median(sizes.lengths)) if len(sizes.lengths) else 0
    if expected := speed.expected_seconds(raw, usual, beside):
        seconds, stages = expected
        print(
            f"expected duration: {speed.words(seconds)}, {stages} stages, at the present speed of this machine",
            flush=True,
        )


def repro(folder: Path, *targets: str, quiet: bool = False) -> None:
    """Runs `dvc repro` of these stages, or the whole graph, in a project made by `workspace`.

    An interrupt ends dvc and its stage, whose training saves its state first. `quiet` shows the output only where a
    stage fails.

    Raises:
        UserError: a stage failed; its own output names the reason.
    """
    if not (folder / ".dvc").exists():
        subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    for line in dvc_lock.repair(folder):
        print(line)
    # -P: the guard's folder must not shadow the standard library
    command = [sys.executable, "-P", str(GUARD), "dvc", "repro", "--quiet", *targets]
    output = subprocess.PIPE if quiet else None
    process = subprocess.Popen(
        command, cwd=folder, stdout=output, stderr=subprocess.STDOUT if quiet else None, text=True
    )
    try:
        shown, _ = process.communicate()
        code = process.returncode
    except KeyboardInterrupt:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GUARD_STOPS_S)
        raise
    if code:
        if shown:
            print(shown, flush=True)
        raise UserError(f"a stage failed; its error is above (work folder {folder})")


def _yaml(value: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
