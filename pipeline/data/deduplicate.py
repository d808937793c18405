"""Duplicate texts: exact (equal normal form) or near (Jaccard similarity of word shingles).

`Forms` reads texts once, as a stream, and stores for each distinct normal form its shingle set and, from a MinHash
signature, its buckets. `Forms.families` then gives the connected components of texts with common forms or buckets, and
`Forms.near` the near duplicates of a form. MinHash and buckets only propose pairs: the true Jaccard similarity decides.
Sources: see minhash.py.

Both ends of a text are padded, so every word is in equally many shingles, `shingle_words` = k. Two texts of w words
that differ in one word then have similarity (w - 1) / (w + 2k - 1): at a threshold of 0.85 and k = 5 they are near from
58 words on. Short texts that differ by one name are therefore never near and need no special case. A text of several
fields (an instruction and its input) is near another only if every field is: other questions about one long passage are
no duplicates. Punctuation is ignored; any other sign (+ % # and emoji, say) is a word, and a field without a word is a
word.

Memory: a byte per text and about 100 per text that repeats another or shares a bucket with one (tests/bench/memory.py).
All else lies on disk (external.py), about 4 bytes per word and 170 per text, and is sorted there; no text is kept. Two
texts count as equal if 128-bit digests of their normal forms are: among 10^12 texts the probability of a collision is
10^-15. The implementation is our own because texts of 600 bytes cost 0.2 ms each in all, where datasketch 2.0 takes
0.3 ms for signatures and buckets only, without true similarities (tests/bench/deduplicate.py).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.config.params import Deduplicate
from pipeline.data import language
from pipeline.data.candidates import Candidates, Shingled
from pipeline.data.external import DiskArray, group_starts, in_order
from pipeline.data.hashing import mixed
from pipeline.data.minhash import Bands, Signatures, bands
from pipeline.errors import UserError

Text = tuple[Sequence[str], str]
"""The compared fields of one record, and its language."""

FIELD_MARK = "\x1f"  # white space, so no normal form holds it
_PUNCTUATION = r".,;:!?…·•'\"“”„‘’«»‹›`´()\[\]{}_–—"
_TOKEN = re.compile(rf"{language.WORD}|[^\w\s{_PUNCTUATION}]")
_BATCH = 1024  # texts read at a time,
_CHARACTERS = 1 << 20  # or fewer with so many characters
_VOCABULARY = 1 << 16  # words cached at a time, some 150 bytes each
_ONE, _SEVERAL = 1, 2  # number of texts with a form


class Forms:
    """The distinct normal forms of a stream of texts, and the near duplicates among them.

    Forms have ascending numbers in the order of first appearance, with gaps.
    """

    def __init__(self, texts: Iterable[Text], settings: Deduplicate, folder: Path | None = None) -> None:
        """Reads `texts` once, in order. All have the same number of fields.

        Args:
            texts: compared fields and language of each record.
            settings: params.yaml: sample.deduplicate, or the samples gate's own.
            folder: for temporary files; None: the system's temporary folder.

        Raises:
            UserError: a near_threshold of 0.
        """
        if not settings.near_threshold:
            raise UserError(
                "params.yaml: sample.deduplicate.near_threshold is 0, which makes any two texts duplicates; "
                "expected above 0 and at most 1, 0.85 is usual"
            )
        self.texts = 0
        """Number of texts."""
        self._k, self._folder, self._signatures = settings.shingle_words, folder, Signatures(settings)
        self._row_of = DiskArray(folder, np.int64)  # form -> its first text
        self._shingled: Shingled | None = None
        filled = Bands(folder, *bands(settings.near_threshold, settings.permutations))
        digests = DiskArray(folder, np.uint64, 4)  # high and low half, text, form
        words = _WordHashes()
        for batch in _batches(texts):
            self._read(batch, words, digests, filled)
        self._state, self._repeats = self._grouped(digests)
        shingled = self._shingled or _empty(1, folder)
        pairs = filled.shared(self._state > 0)
        self._candidates = Candidates(pairs, shingled, self._signatures, settings.near_threshold, folder)
        self.buckets, self.near = self._candidates.buckets, self._candidates.near

    def __len__(self) -> int:
        return int(np.count_nonzero(self._state))

    def families(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Connected components of texts with common forms or buckets: texts (ascending) and the form of each.

        Both of shape (texts of the family). A text in no family has no duplicate.
        """
        candidates = self._candidates.forms
        once = self._state[candidates] == _ONE
        rows = np.concatenate([self._repeats[:, 0], self._row_of.take(candidates[once])[:, 0]])
        forms = np.concatenate([self._repeats[:, 1], candidates[once]])
        places = np.searchsorted(candidates, forms)
        places[places == len(candidates)] = 0
        shares = candidates[places] == forms if len(candidates) else np.zeros(len(forms), np.bool_)
        family = forms.copy()
        family[shares] = self._candidates.family[places[shares]]
        order = np.lexsort([rows, family])
        rows, forms, family = rows[order], forms[order], family[order]
        edges = np.concatenate([[0], np.flatnonzero(np.diff(family)) + 1, [len(rows)]])
        yield from ((rows[first:last], forms[first:last]) for first, last in pairwise(edges) if last > first)

    def _read(self, batch: list[Text], words: "_WordHashes", digests: DiskArray, filled: Bands) -> None:
        """Stores the digest of every text, and shingles and buckets of each form that is new in the batch.

        A form that an earlier batch has gets another number here, which `_grouped` drops.
        """
        new_words: list[list[list[int]]] = []
        numbers: dict[bytes, int] = {}
        batch_digests: list[bytes] = []
        firsts: list[int] = []
        for row, (fields, code) in enumerate(batch):
            normal = [language.normal(field, code) for field in fields]
            digest = hashlib.blake2b(FIELD_MARK.join(normal).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if digest not in numbers:
                numbers[digest] = len(numbers)
                firsts.append(self.texts + row)
                new_words.append([words.of(field) for field in normal])
            batch_digests.append(digest)
        halves = np.frombuffer(b"".join(batch_digests), np.uint64).reshape(-1, 2)
        rows = np.arange(self.texts, self.texts + len(batch), dtype=np.uint64)
        forms = np.array([numbers[digest] for digest in batch_digests], np.uint64) + np.uint64(len(self._row_of))
        digests.append(np.column_stack([halves, rows, forms]))
        self.texts += len(batch)
        shingles, sizes = _shingles(new_words, len(batch[0][0]), self._k)
        shingled = self._shingled = self._shingled or _empty(sizes.shape[1], self._folder)
        starts = len(shingled.values) + (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
        shingled.extents.append(np.stack([starts, sizes], axis=2).reshape(len(sizes), -1))
        shingled.values.append(shingles)
        self._row_of.append(np.array(firsts))
        total = sizes.sum(axis=1)
        filled.add(self._signatures.of(shingles, total), total > 0)

    def _grouped(self, digests: DiskArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Per number _ONE or _SEVERAL texts of a form, 0 for a dropped number; (text, form) of exact duplicates."""
        state = np.zeros(len(self._row_of), np.uint8)
        repeats = [np.empty((0, 2), np.int64)]
        for part in in_order(digests, keys=2):
            starts = group_starts(part, keys=2)
            sizes = np.diff(starts, append=len(part))
            forms = part[starts, 3].astype(np.int64)  # of the first text, as the sort is stable
            state[forms] = np.where(sizes > 1, _SEVERAL, _ONE)
            several = np.repeat(sizes > 1, sizes)
            repeats.append(np.stack([part[several, 2].astype(np.int64), np.repeat(forms, sizes)[several]], axis=1))
        return state, np.concatenate(repeats)


def _empty(fields: int, folder: Path | None) -> Shingled:
    return Shingled(DiskArray(folder, np.uint32), DiskArray(folder, np.int64, 2 * fields))


class _WordHashes(dict[str, int]):
    """Cache of word -> 64-bit hash, stable across processes."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _VOCABULARY:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = self[word] = int.from_bytes(digest, "big")
        return value

    def of(self, normal: str) -> list[int]:
        """Hashes of a normal form's words and signs; where it has none, of the whole text."""
        return [self[word] for word in _TOKEN.findall(normal) or filter(None, [normal])]


def _ranges(starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Concatenation of range(start, start + size) for each start and size."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(sizes.sum())


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += sum(map(len, text[0]))
        if len(batch) == _BATCH or characters >= _CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _shingles(
    texts: list[list[list[int]]], n_fields: int, k: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Sorted, distinct 32-bit shingle hashes of each (text, field), concatenated; their numbers, (texts, fields)."""
    pads = mixed(np.arange(n_fields, dtype=np.uint64))  # one per field, so equal words in two fields hash differently
    flat: list[int] = []
    lengths: list[int] = []
    for fields in texts:
        for words, pad in zip(fields, pads.tolist(), strict=True):
            if words:
                flat += [pad] * (k - 1) + words + [pad] * (k - 1)
            lengths.append(len(words) + 2 * (k - 1) if words else 0)
    counts = np.maximum(np.array(lengths, dtype=np.int64) - (k - 1), 0)
    owner = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    starts = np.cumsum(np.array([0, *lengths], dtype=np.int64))[:-1]
    first = _ranges(starts, counts)
    hashes = pads[owner % np.uint64(n_fields)] if len(owner) else np.empty(0, np.uint64)
    values = np.array(flat, dtype=np.uint64)
    for offset in range(k):
        hashes = mixed(hashes ^ values[first + offset])
    keys = np.sort(owner << np.uint64(32) | hashes >> np.uint64(32))
    keys = keys[np.flatnonzero(np.diff(keys, prepend=~keys[:1]))]
    sizes = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(counts)).astype(np.int64)
    return keys.astype(np.uint32), sizes.reshape(len(texts), n_fields)
