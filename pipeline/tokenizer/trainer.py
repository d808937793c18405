"""Training of a byte-level BPE: by rustbpe, or by gigatoken, which is faster, where it gives equal merges."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.errors import UserError
from pipeline.tokenizer import fast
from pipeline.tokenizer.pretokenizer import PATTERNS, short_runs

_SEPARATOR = b"\xff"  # occurs in no UTF-8
_ONCE = 1 << 20  # bytes read at a time


def learn(texts: Iterable[str], size: int, pattern: str, scratch: Path | None) -> dict[bytes, int]:
    """Ranks of the 256 bytes and the learned merges: `size` ids, or fewer where the texts have too few pairs.

    Args:
        texts: read once, as a stream.
        size: ids in all.
        pattern: a name of PATTERNS.
        scratch: folder for a temporary copy of the texts; None: the system's.

    Raises:
        UserError: no text.
    """
    parts = _not_empty(part for text in texts for part in short_runs(text))
    # gigatoken's trainer supports GPT-2's pattern only.
    if pattern != "gpt2" or not fast.available(PATTERNS[pattern].tiktoken):
        return _rustbpe(parts, size, pattern)
    with TemporaryDirectory(dir=scratch, prefix=".training-texts-") as folder:
        path = Path(folder) / "texts"
        if _written(parts, path, PATTERNS[pattern].tiktoken, size - 256):
            return _gigatoken(path, size)
        return _rustbpe(_read(path), size, pattern)


def _not_empty(texts: Iterable[str]) -> Iterator[str]:
    empty = True
    for text in texts:
        if text:
            empty = False
            yield text
    if empty:
        raise UserError(
            "tokenize: the training split has no text to train on; add documents under download.sources, or lower "
            "split.validation and split.test in params.yaml"
        )


def _rustbpe(texts: Iterable[str], size: int, pattern: str) -> dict[bytes, int]:
    import rustbpe

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), size, pattern=PATTERNS[pattern].tiktoken)
    return dict(trainer.get_mergeable_ranks())


def _gigatoken(path: Path, size: int) -> dict[bytes, int]:
    from gigatoken import TextFileSource, train_bpe

    with fast.silent():
        # Of equally frequent pairs, rustbpe too merges the one with lower ids first.
        tokens, _ = train_bpe(TextFileSource([path], separator=_SEPARATOR), size, [], tie_breaking="raw_token_ids")
    return {token: rank for rank, token in tokens.items()}


def _written(texts: Iterable[str], path: Path, pattern: str, merges: int) -> bool:
    """Writes the texts to `path`; returns whether gigatoken learns the same merges from them as rustbpe.

    It does not where a character has another class in it, nor where pairs run out before all merges are made (it counts
    the pairs of "000" differently). With at least as many words as merges they cannot run out: each word would be one
    token by then.
    """
    characters = fast.CharacterClasses(pattern)  # 20 MB, freed before training
    waiting: list[bytes] = []
    words: set[str] = set()
    same, held = True, 0
    with path.open("wb") as file:

        def flush() -> bool:
            data = _SEPARATOR.join(waiting)
            file.write(data + _SEPARATOR)
            return not characters.differing(np.frombuffer(data.replace(_SEPARATOR, b""), dtype=np.uint8))

        for text in texts:
            if len(words) < merges:  # letters between two blanks are one piece together with the first blank
                words.update(word for word in text.split(" ")[1:-1] if word.isalpha())
            waiting.append(text.encode())
            held += len(waiting[-1])
            if held > _ONCE:
                same = flush() and same
                waiting, held = [], 0
        return flush() and same and len(words) >= merges


def _read(path: Path) -> Iterator[str]:
    """The texts that `_written` wrote."""
    rest = b""
    with path.open("rb") as file:
        while data := file.read(_ONCE):
            *complete, rest = (rest + data).split(_SEPARATOR)
            yield from (text.decode() for text in complete)
