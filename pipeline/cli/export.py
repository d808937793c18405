"""Writes a model as a GGUF file, or as a folder with all weights.

MODEL is a folder below models/; for llama.cpp a language model, chat or instruction model of family gpt2, llama,
mistral, qwen2, qwen3 or arcee. Beside the GGUF file is its Modelfile: `ollama create NAME -f chat-lora.Modelfile`. For
transformers and peft the folder itself is the export, and its README.md has the code; a model that is stored as an
adapter only gets its weights with --folder. The exported folder has the model card too (model_card.md).
"""

from pathlib import Path

import click

from pipeline.cli._command import UserPath, verb

GROUP = "Use a model"
ORDER = 34


@verb("tohum export chat-lora --gguf chat-lora.gguf", "tohum export spam-lora --folder spam-lora")
@click.argument("model")
@click.option("--gguf", type=UserPath(), help="The file to write, with a Modelfile for Ollama beside it.")
@click.option("--folder", type=UserPath(), help="The folder to write: all weights, the adapter merged where it merges.")
def command(model: str, gguf: Path | None, folder: Path | None) -> None:
    """Writes the file, the folder, or both."""
    if gguf is None and folder is None:
        raise click.UsageError("expected --gguf FILE or --folder FOLDER")
    from pipeline.errors import UserError
    from pipeline.model import checkpoint, gguf_format
    from pipeline.paths import MODELS

    if gguf is not None:
        gguf_format.write(MODELS / model, gguf)
        click.echo(f"{gguf}: {model}, float32, {gguf.stat().st_size:,} bytes")
        _write_modelfile(MODELS / model, gguf)
    if folder is not None:
        if folder.exists():
            raise UserError(f"{folder}: is there already; name a new folder, or remove this one")
        if not (MODELS / model / "config.json").is_file():
            raise UserError(f"{MODELS / model}: no such model; `ls models` lists them")
        checkpoint.write_whole(MODELS / model, folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        click.echo(f"{folder}: {model} with all weights, float32, {size:,} bytes")
        _write_card(model, folder)


def _write_card(model: str, folder: Path) -> None:
    """Writes the model card into an exported folder, or says why there is none."""
    from pipeline import config, files
    from pipeline.errors import UserError
    from pipeline.paths import MODELS
    from pipeline.registry import card, contents

    try:
        params = config.load()
        if model not in params.evaluations:
            raise UserError(f"{model} is no model of params.yaml")
        facts = card.gather(model, params, files.sha256_of(MODELS / model))
    except UserError as error:
        click.echo(f"no model card: {error}")
        return
    files.write_text(folder / contents.CARD, card.render(facts, f"{params.register_.name}-{model}"))
    click.echo(f"{folder / contents.CARD}: its card; as README.md of a repository on the Hub its header is read")


def _write_modelfile(folder: Path, gguf: Path) -> None:
    """Writes the Modelfile beside the GGUF file, or says why Ollama's language has no such chat template."""
    from pipeline import files
    from pipeline.errors import UserError
    from pipeline.model import ollama

    try:
        content = ollama.modelfile(folder, gguf)
    except UserError as error:
        click.echo(str(error))
        return
    path = gguf.with_suffix(".Modelfile")
    files.write_text(path, content)
    click.echo(f"{path}: for Ollama: ollama create {folder.name} -f {path}")
