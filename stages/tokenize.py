"""Stage tokenize: data/raw/documents.parquet -> data/tokens, the vocabulary and every document's ids."""

from pipeline import config, integrity
from pipeline.data.tokens import describe, tokenize
from pipeline.paths import RAW, TOKENS
from pipeline.tracking.stage import tracked_stage
from stages import entry


def main() -> None:
    """Reads `tokenize` and `split` of params.yaml."""
    params = config.load()
    with tracked_stage("tokenize", params) as run:
        with run.work():
            integrity.require_admitted("raw", "documents")
            summary = tokenize(
                params.tokenize, params.split, RAW / "documents.parquet", TOKENS, params.runtime.progress
            )
        run.log({key: summary[key] for key in ("vocab_size", "n_documents", "n_tokens", "bytes_per_token")})
        run.log({f"tokens_per_word_{language}": n for language, n in summary["tokens_per_word"].items()})
    print(describe(summary, params.tokenize))


if __name__ == "__main__":
    entry(main)
