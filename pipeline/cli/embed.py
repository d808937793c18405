"""Writes the embeddings of a file's texts, one vector a text.

MODEL is the name of a model of this pipeline, or a model folder: one of ours, of transformers or of
sentence-transformers. FILE is txt (a text a line), csv, jsonl or parquet. OUT ends in .parquet (columns id, text,
embedding) or .npy (the matrix; the ids are in OUT.ids.txt, one a line).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli._command import UserPath, verb

if TYPE_CHECKING:
    from pipeline.inference.embeddings import Pooling

GROUP = "Use a model"
ORDER = 33


@verb(
    "tohum embed base questions.csv --column question --out questions.parquet",
    "tohum embed ~/models/all-MiniLM-L6-v2 texts.txt --out texts.npy",
)
@click.argument("model")
@click.argument("file", type=UserPath())
@click.option("--out", type=UserPath(), required=True, help="The file to write: .parquet or .npy.")
@click.option("--column", default="text", show_default=True, help="Column of the texts.")
@click.option("--id", "identity", default="id", show_default=True, help="Column of the ids, if the file has it.")
@click.option(
    "--pooling",
    type=click.Choice(["mean", "last", "first"]),
    help="Token states that make the vector; by default the folder's own choice, else the mean.",
)
@click.option("--raw", is_flag=True, help="Keep the length of the vectors.")
def command(  # noqa: PLR0913 - one argument per option
    model: str, file: Path, out: Path, column: str, identity: str, pooling: "Pooling | None", raw: bool
) -> None:
    """Embeds and writes."""
    from pipeline.cli._texts import read_texts
    from pipeline.errors import UserError
    from pipeline.inference.embeddings import Embedder
    from pipeline.paths import MODELS

    if out.suffix not in (".parquet", ".npy"):
        raise UserError(f"{out}: expected a file that ends in .parquet or .npy")
    named = MODELS / model
    folder: Path = named if named.is_dir() else UserPath().convert(model, None, click.get_current_context())
    texts, ids = read_texts(file, column, identity)
    embedder = Embedder(folder, pooling)
    vectors_ND = embedder.embed(texts, normalise=not raw)
    _write(out, ids, texts, vectors_ND)
    cut = sum(len(embedder.ids(text)) == embedder.max_tokens for text in texts)
    told = f"; {cut:,} reach the limit of {embedder.max_tokens} tokens and may be cut" if cut else ""
    click.echo(f"{out}: {len(texts):,} vectors of {embedder.width} numbers, {embedder.pooling} of the tokens{told}")


def _write(out: Path, ids: list[str], texts: list[str], vectors_ND: Any) -> None:
    """Writes the vectors with their ids."""
    import numpy as np
    import pyarrow as pa

    from pipeline import files

    if out.suffix == ".npy":
        with files.replacing(out) as path, path.open("wb") as stream:
            np.save(stream, vectors_ND)
        files.write_text(out.with_name(f"{out.name}.ids.txt"), "".join(f"{identity}\n" for identity in ids))
        return
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1])
    files.write_table(out, pa.table({"id": ids, "text": texts, "embedding": vectors}))
