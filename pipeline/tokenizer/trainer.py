"""Learns the merges of a byte-level BPE: rustbpe, or gigatoken where it is installed and gives the same ones sooner."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.errors import UserError
from pipeline.tokenizer import fast
from pipeline.tokenizer.pretokenizer import PATTERNS, short_runs

_SEPARATOR = b"\xff"  # stands in no UTF-8
_ONCE = 1 << 20  # bytes read at a time


def learn(texts: Iterable[str], size: int, pattern: str, scratch: Path | None) -> dict[bytes, int]:
    """The 256 bytes and the merges that the texts teach, `size` ids in all or as many as there are pairs.

    Args:
        texts: read once, never held in memory. pattern: a name of PATTERNS. scratch: where the texts may lie on disk
            meanwhile; none: the system's folder for such.

    Raises:
        UserError: no text.
    """
    parts = _not_empty(part for text in texts for part in short_runs(text))
    # gigatoken's trainer cuts by GPT-2's pattern alone.
    if pattern != "gpt2" or not fast.available(PATTERNS[pattern].tiktoken):
        return _rustbpe(parts, size, pattern)
    with TemporaryDirectory(dir=scratch, prefix=".training-texts-") as folder:
        path = Path(folder) / "texts"
        if _written(parts, path, PATTERNS[pattern].tiktoken, size - 256):
            return _gigatoken(path, size)
        return _rustbpe(_read(path), size, pattern)


def _not_empty(texts: Iterable[str]) -> Iterator[str]:
    found = False
    for text in texts:
        if text:
            found = True
            yield text
    if not found:
        raise UserError("tokenize: no text to train on; the training split is empty")


def _rustbpe(texts: Iterable[str], size: int, pattern: str) -> dict[bytes, int]:
    import rustbpe

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), size, pattern=PATTERNS[pattern].tiktoken)
    return dict(trainer.get_mergeable_ranks())


def _gigatoken(path: Path, size: int) -> dict[bytes, int]:
    from gigatoken import TextFileSource, train_bpe

    with fast.silent():
        # Of two pairs as frequent as each other rustbpe, too, merges the one of lower ids first.
        tokens, _ = train_bpe(TextFileSource([path], separator=_SEPARATOR), size, [], tie_breaking="raw_token_ids")
    return {token: rank for rank, token in tokens.items()}


def _written(texts: Iterable[str], path: Path, pattern: str, merges: int) -> bool:
    """Writes the texts one after the other; whether gigatoken learns from them what rustbpe does.

    It does not where a character is of another class to it, and where pairs run out before so many merges are made (it
    counts those of "000" otherwise). With as many words they cannot run out: by then each word would be one token.
    """
    characters = fast.Characters(pattern)  # 20 MB, gone when the trainer needs room
    waiting: list[bytes] = []
    words: set[str] = set()
    same, held = True, 0
    with path.open("wb") as file:

        def flush() -> bool:
            data = _SEPARATOR.join(waiting)
            file.write(data + _SEPARATOR)
            return not characters.strange(np.frombuffer(data.replace(_SEPARATOR, b""), dtype=np.uint8))

        for text in texts:
            if len(words) < merges:  # between two blanks letters are one piece, with the blank before them
                words.update(word for word in text.split(" ")[1:-1] if word.isalpha())
            waiting.append(text.encode())
            held += len(waiting[-1])
            if held > _ONCE:
                same = flush() and same
                waiting, held = [], 0
        return flush() and same and len(words) >= merges


def _read(path: Path) -> Iterator[str]:
    """The texts of `_written`, again."""
    rest = b""
    with path.open("rb") as file:
        while data := file.read(_ONCE):
            *whole, rest = (rest + data).split(_SEPARATOR)
            yield from (text.decode() for text in whole)
