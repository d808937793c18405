"""Makes a released model, GGUF file or folder, ready to start from.

A GGUF file becomes a Hugging Face folder, FOLDER or else inputs/<its name>: weights dequantised, config, tokenizer,
chat template, and a README with its licence and how it was quantised. A folder stays as it is. Both are checked, and
the lines of params.yaml with their pins are printed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli._command import UserPath, shown, verb

if TYPE_CHECKING:
    from pipeline.model.open_weights import Released

GROUP = "Try your own data"
ORDER = 22
_SHOWN = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "context": ("max_position_embeddings", "n_positions"),
    "vocabulary": ("vocab_size",),
}


@verb("tohum adopt ~/models/SmolLM2-135M-Instruct.Q4_1.gguf", "tohum adopt ~/models/Qwen3-0.6B")
@click.argument("path", type=UserPath())
@click.argument("folder", type=UserPath(), required=False)
@click.option("--bfloat16", is_flag=True, help="GGUF: half the bytes; weights are rounded to bfloat16.")
def command(path: Path, folder: Path | None, bfloat16: bool) -> None:
    """Converts or checks the model."""
    from pipeline.errors import UserError
    from pipeline.model import open_weights
    from pipeline.tokenizer import adopt, adopted

    if not path.exists():
        raise UserError(f"{shown(path)}: no such file or folder; expected a GGUF file or a Hugging Face folder")
    if path.is_dir():
        if folder is not None or bfloat16:
            raise UserError(f"{shown(path)}: is a folder, which is used where it is; leave out FOLDER and --bfloat16")
        folder = path
    else:
        folder = folder or Path("inputs") / path.stem
        _convert(path, folder, bfloat16)
    model = open_weights.released(folder)
    for line in _summary(folder, model):
        click.echo(line)
    vocabulary = adopt(folder)
    template = "with a chat template" if vocabulary.chat_template else "without a chat template"
    click.echo(f"  tokenizer   {vocabulary.vocab_size:,} ids, {len(vocabulary.special)} special tokens, {template}")
    click.echo("\nFor params.yaml (with pretrain.task: {name: unchanged} the weights stay as they are):\n")
    click.echo(_params(folder, model, adopted.pin(folder)))


def _convert(path: Path, folder: Path, bfloat16: bool) -> None:
    """Writes the folder of a GGUF file, with a progress bar."""
    from pipeline.model import gguf_adoption

    with click.progressbar(length=1, label="tensors") as bar:

        def done(written: int, of: int) -> None:
            bar.length = of
            bar.update(written - bar.pos)

        gguf_adoption.adopt(path, folder, precision="bfloat16" if bfloat16 else None, done=done)


def _summary(folder: Path, model: "Released") -> list[str]:
    """Lines about a folder."""
    facts = {
        name: next((model.config[key] for key in keys if key in model.config), None) for name, keys in _SHOWN.items()
    }
    sizes = ", ".join(f"{name} {value:,}" for name, value in facts.items() if isinstance(value, int))
    types = ", ".join(f"{kind} ({count})" for kind, count in model.types.items())
    return [
        f"{shown(folder)}: {model.family}",
        f"  weights     {model.parameters:,} numbers, {model.n_bytes:,} bytes, tensors of type {types}",
        f"  size        {sizes}",
        f"  licence     {model.licence or 'not stated: look it up, and write it into params.yaml'}",
        f"  sha256      {model.sha256}",
    ]


def _params(folder: Path, model: "Released", tokenizer_sha256: str) -> str:
    """The sections of params.yaml that start from a folder."""
    import yaml

    start = {"kind": "folder", "path": str(folder), "revision": None, "sha256": model.sha256, "licence": model.licence}
    tokenize: dict[str, Any] = {"method": "folder", "vocab_size": None, "pattern": None}
    tokenize |= {"path": str(folder), "sha256": tokenizer_sha256}
    sections = {"tokenize": tokenize, "pretrain": {"start": start | {"zero_projections": False}}}
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True).rstrip()
