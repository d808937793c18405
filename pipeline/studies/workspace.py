"""A project in a folder of its own that runs the graph on a user's file with a small budget.

The folder gets the project's code, dvc.yaml, and a params.yaml that names the file. The gates' thresholds are opened,
so that one run shows all results.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.paths import CODE, INPUTS
from pipeline.studies.guess import Guess

ROOT = CODE
# The embedded default's recipes for each kind of record.
RECIPES: dict[Kind, tuple[str, ...]] = {
    "documents": (),
    "labelled": ("spam-full", "spam-lora"),
    "instructions": ("chat-full", "chat-lora"),
    "preferences": (),
}


def workspace(data: Path, guessed: Guess, folder: Path, made: dict[str, Any] | None = None) -> None:
    """Replaces the project in `folder`; DVC's cache there stays.

    Args:
        data: the user's file.
        guessed: its format and columns.
        folder: .tohum/try or a similar one.
        made: params; None: the result of `params`.
    """
    for name in ("pipeline", "stages"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.rmtree(folder / "inputs", ignore_errors=True)
    (folder / "inputs").mkdir()
    if guessed.inputs is not None:
        guessed.inputs.copy_to(folder / "inputs")
    files.write_text(folder / "params.yaml", _yaml(made or params(INPUTS / data.name, guessed)))


def params(data: Path, guessed: Guess) -> dict[str, Any]:
    """The params of a try: the embedded default with this file, a small model and few steps."""
    import yaml

    raw: dict[str, Any] = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    entry = guessed.entry(data)
    sources = {"own": entry}
    if guessed.kind != "documents":
        sources["own-text"] = entry | {"kind": "documents", "columns": guessed.running_text(), "labels": {}}
    raw["download"]["sources"] = sources
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


def lenient(gates: dict[str, Any]) -> dict[str, Any]:
    """The gates' settings with every threshold opened as far as it goes."""

    def opened(name: str, value: Any) -> Any:
        if isinstance(value, str) or name in ("near", "sample", "round_trip_documents", "language_sample"):
            return value
        if isinstance(value, dict):
            return {} if name == "min_share" else {key: opened(key, inner) for key, inner in value.items()}
        if name in ("at_least", "below") or name.startswith("min_"):
            return type(value)(1 if name in ("min_labels", "min_tokens") else 0)
        if isinstance(value, int) and not isinstance(value, bool):
            return (
                10**9
                if name not in ("train", "validation", "test", "documents", "labelled", "instructions", "preferences")
                else 0
            )
        return 1.0 if name != "at_most" else 10.0**9

    opened_gates = {gate: opened(gate, settings) for gate, settings in gates.items()}
    opened_gates["raw"]["min_rows"] = dict.fromkeys(gates["raw"]["min_rows"], 0)
    opened_gates["samples"]["max_tokens"] = dict.fromkeys(gates["samples"]["max_tokens"], 10**9)
    return opened_gates


def repro(folder: Path, *targets: str) -> None:
    """Runs `dvc repro` of these stages, or the whole graph, in a project made by `workspace`.

    Raises:
        UserError: a stage failed; its own output names the reason.
    """
    if not (folder / ".dvc").exists():
        subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    if subprocess.run(["dvc", "repro", "--quiet", *targets], cwd=folder, check=False).returncode:
        raise UserError(f"a stage failed; its error above holds for a full run too (work folder {folder})")


def _yaml(value: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
