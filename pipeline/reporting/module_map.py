"""The map of the code for pipeline/README.md: layers of imports, and a table per folder with a row per Python file."""

import tomllib
from pathlib import Path

from pipeline.config import plugins
from pipeline.reporting.docstrings import first_sentence, module_docstring, source_file
from pipeline.reporting.params_page import PART_FOLDERS

FOLDERS = ("pipeline", "stages")


def module_map(root: Path) -> str:
    """Markdown: the layers of imports, then the folders of `pipeline` and `stages`, each with its sentence and files.

    A folder of variants (`pipeline/tuners`) lists them by the name that params.yaml uses, and its other files below.

    Raises:
        UserError: a file with code and without a docstring.
    """
    files = [path for top in FOLDERS for path in (root / top).rglob("*.py") if path.read_text(encoding="utf-8").strip()]
    folders = sorted({path.parent for path in files})
    rooms = [_room(root, folder, sorted(p for p in files if p.parent == folder)) for folder in folders]
    return "\n\n".join([_layers(root), *rooms])


def _layers(root: Path) -> str:
    """A drawing of the layers in pyproject.toml, which `make check` tests: a line imports from lines below it only."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    lines = [layer.replace("pipeline.", "").replace(" | ", " · ") for layer in layers]
    drawing = "\n   ↓\n".join(lines)
    return f"Imports go down only; rooms on one line do not import each other:\n\n```\n{drawing}\n```"


def _room(root: Path, folder: Path, files: list[Path]) -> str:
    name = folder.relative_to(root).as_posix()
    keys = [key for key, variants in PART_FOLDERS.items() if name == f"pipeline/{variants}"]
    module = name.replace("/", ".")
    variants = {
        choice: source_file(root, f"{module}.{choice}") for key in keys for choice in plugins.choices(PART_FOLDERS[key])
    }
    package = folder / "__init__.py"
    lines = [f"### {name}", ""]
    if package in files:
        lines += [" ".join(module_docstring(package).split("\n\n")[0].split()), ""]
    if variants:
        lines += [f"| {_choosing(keys[0])} | variant |", "|---|---|"]
        lines += [*(_row(root, path, choice) for choice, path in variants.items()), ""]
    others = [path for path in files if path not in [package, *variants.values()]]
    if others:
        lines += ["| file | content |", "|---|---|", *(_row(root, path, path.name) for path in others)]
    return "\n".join(lines).rstrip()


def _choosing(key: str) -> str:
    """The key of params.yaml that chooses among a folder's variants."""
    return {"sources": "`name` of a source", "measures": "below `measures`", "gates": "below `gates`"}.get(
        key, f"`{key}.name`"
    )


def _row(root: Path, path: Path, shown: str) -> str:
    inside = path.is_relative_to(root / "pipeline")
    link = path.relative_to(root / "pipeline") if inside else Path("..") / path.relative_to(root)
    return f"| [`{shown}`]({link.as_posix()}) | {first_sentence(module_docstring(path)).replace('|', chr(92) + '|')} |"
