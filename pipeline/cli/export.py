"""Writes a model as a file for llama.cpp (GGUF).

MODEL is a folder below models/: a language model, chat or instruction model of family gpt2, llama, mistral, qwen2,
qwen3 or arcee. For transformers and peft the folder itself is the export, and its README.md has the code.
"""

from pathlib import Path

import click

from pipeline.cli._command import UserPath, verb

GROUP = "Use a model"
ORDER = 34


@verb("tohum export chat-lora --gguf chat-lora.gguf")
@click.argument("model")
@click.option("--gguf", type=UserPath(), required=True, help="The file to write.")
def command(model: str, gguf: Path) -> None:
    """Writes the file."""
    from pipeline.model import gguf_format
    from pipeline.paths import MODELS

    gguf_format.write(MODELS / model, gguf)
    click.echo(f"{gguf}: {model}, float32, {gguf.stat().st_size:,} bytes")
