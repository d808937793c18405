"""Gate on data/tokens: the expectations on token ids before sampling and training.

`profile` reads data/tokens and the source texts in parts (pipeline.gates.profiles.token_frames); `EXPECTATIONS` is the
table of conditions: ids within the vocabulary, special tokens only where code placed them, an index that fits the ids,
texts that decode to themselves (of a vocabulary that changes text: ids that are the library's), few texts that the
vocabulary does not know, and a vocabulary that suits the text.
"""

from pathlib import Path

from pipeline import integrity
from pipeline.config.recipe import Kind
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.errors import UserError
from pipeline.gates._rules import (
    Expectation,
    Frame,
    Row,
    at_least,
    at_most,
    equals,
    suite,
    warning,
    within,
    zero,
)
from pipeline.gates.profiles import token_frames
from pipeline.gates.profiles.tokens import TokenFolder


class BytesPerToken(Section):
    """Compression: UTF-8 bytes of text per token, the end-of-text tokens not counted."""

    at_least: float
    at_most: float


class Outliers(Section):
    """Documents that compress much worse than ordinary text: binary data, other scripts, gibberish."""

    below: float
    """Bytes per token under which a document is an outlier."""
    min_tokens: Positive
    """Documents with fewer tokens are no outliers."""
    max_share: Share
    """Of all documents."""


class Settings(Section):
    """gates.tokens: the bounds of every expectation that has one."""

    min_documents: Count
    """Fewest documents."""
    bytes_per_token: BytesPerToken
    """Bounds for each language."""
    outliers: Outliers
    max_unknown_share: Share
    """Of the tokens of all documents, the token of unknown text (`[UNK]`, `<unk>`), where the vocabulary has one."""
    max_rejected_share: Share
    """Of all documents, those with a byte or character that the vocabulary cannot encode."""
    max_unused_vocabulary_share: Share
    """Of the vocabulary without special tokens, ids that no document uses."""
    round_trip_documents: Positive
    """Documents decoded and compared with their text (with a vocabulary that changes text: encoded again by the
    tokenizers library and compared): evenly spaced ones, and all that spell a special token."""
    max_spelled_specials: Count
    """Documents that spell a special token as text (harmless here, odd in a corpus): a warning."""


CODE = "no bound: fix pipeline/tokenizer or pipeline/data/tokens.py"
COMPRESSION = within("bytes_per_token.at_least", "bytes_per_token.at_most", "gates.tokens.bytes_per_token")
MARKERS = warning(at_most("max_spelled_specials"))
# Frame, column, condition (with the setting below gates.tokens that holds the bound), condition and values in words.
EXPECTATIONS: list[Row] = [
    (
        "ids",
        "ids_outside_vocabulary",
        zero(CODE),
        "every id is below vocab_size",
        "{ids_outside_vocabulary} ids are not below vocab_size",
    ),
    (
        "ids",
        "specials_inside",
        zero(CODE),
        "no special token came out of text",
        "{specials_inside} special tokens stand inside documents",
    ),
    (
        "ids",
        "missing_ends",
        zero(CODE),
        "every document ends with the end-of-text token",
        "{missing_ends} documents do not end with it",
    ),
    (
        "index",
        "misplaced",
        zero(CODE),
        "documents lie one after the other, without gap or overlap",
        "{misplaced} documents start elsewhere",
    ),
    (
        "index",
        "other_order",
        zero(CODE),
        "documents have the order of data/raw/documents.parquet",
        "{other_order} documents are out of order",
    ),
    (
        "index",
        "tokens_in_file",
        equals("tokens_in_index", CODE),
        "the index covers the ids file exactly",
        "{tokens_in_file} tokens in ids.bin, {tokens_in_index} in the index",
    ),
    (
        "index",
        "tokens_in_meta",
        equals("tokens_in_index", CODE),
        "meta.json counts the tokens right",
        "{tokens_in_meta} tokens in meta.json, {tokens_in_index} in the index",
    ),
    (
        "index",
        "documents_in_index",
        equals("documents_in_raw", CODE),
        "every document was tokenized",
        "{documents_in_index} documents of {documents_in_raw} were tokenized",
    ),
    (
        "index",
        "documents_in_meta",
        equals("documents_in_index", CODE),
        "meta.json counts the documents right",
        "{documents_in_meta} documents in meta.json, {documents_in_index} in the index",
    ),
    (
        "index",
        "documents_in_index",
        at_least("min_documents"),
        "there are enough documents",
        "{documents_in_index} documents",
    ),
    (
        "texts",
        "changed_texts",
        zero(CODE),
        "decoding gives every sampled text back, byte for byte",
        "{changed_texts} of {compared} texts are not what their ids decode to",
    ),
    (
        "texts",
        "other_ids",
        zero(CODE),
        "a vocabulary that changes text gives the ids of the tokenizers library",
        "{other_ids} of {compared} texts have other ids than the tokenizers library gives",
    ),
    (
        "texts",
        "wrong_sizes",
        zero(CODE),
        "the index counts each text's bytes right",
        "{wrong_sizes} of {compared} sizes in the index are wrong",
    ),
    (
        "texts",
        "spelled_specials",
        MARKERS,
        "texts seldom spell a special token",
        "{spelled_specials} texts spell a special token such as <|endoftext|>",
    ),
    (
        "unknown",
        "unknown_share",
        at_most("max_unknown_share"),
        "the vocabulary knows the text",
        "{unknown_tokens} of {text_tokens} tokens are the token of unknown text, a share of {unknown_share}",
    ),
    (
        "rejected",
        "rejected_share",
        at_most("max_rejected_share"),
        "the vocabulary can encode the documents",
        "{rejected} of {documents} documents cannot be encoded, a share of {rejected_share}",
    ),
    (
        "languages",
        "bytes_per_token",
        COMPRESSION,
        "the vocabulary compresses each language well, not too well",
        "{bytes_per_token} bytes per token in language {language}",
    ),
    (
        "compression",
        "outlier_share",
        at_most("outliers.max_share", "gates.tokens.outliers"),
        "few documents compress badly",
        "{outliers} documents compress badly, a share of {outlier_share}",
    ),
    (
        "vocabulary",
        "unused_share",
        at_most("max_unused_vocabulary_share"),
        "the vocabulary is not too large for the text",
        "{unused_ids} of {vocab_size} ids are never used, a share of {unused_share}",
    ),
]


def profile(settings: Settings, data: Path) -> dict[str, Frame]:
    """Profile tables of `<data>/tokens`: the ids, the index, round trips, languages, vocabulary.

    Raises:
        UserError: a file is missing, or the ids file is no whole number of ids.
    """
    tokens = TokenFolder.open(data / "tokens")
    documents = data / "raw" / "documents.parquet"
    if not documents.exists():
        raise UserError(f"{documents}: no such file; run `dvc repro download`")
    return {
        "ids": token_frames.ids(tokens, data),
        "index": token_frames.index(tokens, documents),
        "texts": token_frames.round_trips(tokens, documents, settings.round_trip_documents),
        "unknown": token_frames.unknown(tokens),
        "rejected": token_frames.rejected(tokens),
        "languages": token_frames.languages(tokens),
        "compression": token_frames.compression(tokens, settings.outliers.below, settings.outliers.min_tokens),
        "vocabulary": token_frames.vocabulary(tokens),
    }


def expectations(settings: Settings) -> list[Expectation]:
    """The expectations on `profile`'s frames."""
    return suite("gates.tokens", settings, EXPECTATIONS)


def admits(data: Path) -> dict[Kind, str]:
    """The SHA-256 of the files that a pass admits: ids, index, meta.json and tokenizer."""
    return integrity.admits("tokens", data)
