"""Texts that repeat another: exactly (equal normal form) or nearly (Jaccard similarity of word shingles).

`Forms` reads texts once, in a stream, and notes for each distinct normal form its shingle set and, from a MinHash
signature, its buckets; `Forms.families` then gives the records that might repeat each other, and `Forms.near` answers
which of some forms are near a given one. MinHash and buckets only propose: the true Jaccard similarity decides.
Sources: those of minhash.py.

Both ends of a text are padded, so every word stands in as many shingles, `shingle_words` = k. Two texts of
w words that differ in one word then have similarity (w - 1) / (w + 2k - 1): at a threshold of 0.85 and k =
5 they are near from 58 words on. Short texts that differ by one name are therefore never near, and need no
rule of their own. A text of several fields (an instruction and its input) is near another only if every
field is: other questions about one long passage are no copies. Punctuation is ignored; any other sign (+ %
# and emoji, say) is a word, and a field without a word is a word.

Memory: a byte per text and about 100 per text that repeats another or shares a bucket with one (tests/bench/memory.py).
All else lies on disk (external.py), about 4 bytes per word and 170 per text, and is sorted there; no text is kept. Two
texts are one if digests of 128 bits of their normal forms are equal: among 10^12 texts the chance of one
such accident is 10^-15. The engine is ours because it is one: texts of 600 bytes cost 0.2 ms each all told, where
datasketch 2.0 takes 0.3 ms for the signatures and buckets alone and knows no true similarity
(tests/bench/deduplicate.py).
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
from pipeline.data.external import Rows, group_starts, in_order
from pipeline.data.hashing import mixed
from pipeline.data.minhash import Bands, Signatures, bands
from pipeline.errors import UserError

Text = tuple[Sequence[str], str]
"""The fields of one record that are compared, and its language."""

FIELD_MARK = "\x1f"  # white space, so no normal form holds it
_PUNCTUATION = r".,;:!?…·•'\"“”„‘’«»‹›`´()\[\]{}_–—"
_TOKEN = re.compile(rf"{language.WORD}|[^\w\s{_PUNCTUATION}]")
_BATCH = 1024  # texts read at a time,
_CHARACTERS = 1 << 20  # or fewer with so many characters
_VOCABULARY = 1 << 16  # words remembered at a time, some 150 bytes each
_ONE, _SEVERAL = 1, 2  # texts that have a form


class Forms:
    """The distinct normal forms among texts, and which of them are near each other.

    A form is known by a number, in the order of first appearance, with gaps.
    """

    def __init__(self, texts: Iterable[Text], settings: Deduplicate, folder: Path | None = None) -> None:
        """Reads `texts` once, in order. All have the same number of fields.

        Args:
            folder: where temporary files may lie; none: the system's folder for such.

        Raises:
            UserError: a near_threshold of 0.
        """
        if not settings.near_threshold:
            raise UserError(
                "params.yaml: sample.deduplicate.near_threshold is 0, which calls any two texts copies; "
                "expected above 0 and at most 1, 0.85 is usual"
            )
        self.texts = 0
        """How many texts there were."""
        self._k, self._folder, self._signatures = settings.shingle_words, folder, Signatures(settings)
        self._row_of = Rows(folder, np.int64)  # of a form: the first text that has it
        self._shingled: Shingled | None = None
        filled = Bands(folder, *bands(settings.near_threshold, settings.permutations))
        digests = Rows(folder, np.uint64, 4)  # high and low half, text, form
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
        """Texts that might repeat each other, and the form of each: two arrays, texts ascending.

        Texts of two families have neither a form nor a bucket in common; a text in no family repeats none.
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

    def _read(self, batch: list[Text], words: "_WordHashes", digests: Rows, filled: Bands) -> None:
        """Notes the digest of every text, and shingles and buckets of each form that is new to the batch.

        A form that an earlier batch had gets another number here, which `_grouped` drops.
        """
        fresh: list[list[list[int]]] = []
        numbers: dict[bytes, int] = {}
        found: list[bytes] = []
        firsts: list[int] = []
        for row, (fields, tongue) in enumerate(batch):
            normal = [language.normal(field, tongue) for field in fields]
            digest = hashlib.blake2b(FIELD_MARK.join(normal).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if digest not in numbers:
                numbers[digest] = len(numbers)
                firsts.append(self.texts + row)
                fresh.append([words.of(field) for field in normal])
            found.append(digest)
        halves = np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)
        rows = np.arange(self.texts, self.texts + len(batch), dtype=np.uint64)
        forms = np.array([numbers[digest] for digest in found], np.uint64) + np.uint64(len(self._row_of))
        digests.append(np.column_stack([halves, rows, forms]))
        self.texts += len(batch)
        shingles, sizes = _shingles(fresh, len(batch[0][0]), self._k)
        shingled = self._shingled = self._shingled or _empty(sizes.shape[1], self._folder)
        starts = len(shingled.values) + (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
        shingled.extents.append(np.stack([starts, sizes], axis=2).reshape(len(sizes), -1))
        shingled.values.append(shingles)
        self._row_of.append(np.array(firsts))
        total = sizes.sum(axis=1)
        filled.add(self._signatures.of(shingles, total), total > 0)

    def _grouped(self, digests: Rows) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """_ONE or _SEVERAL for each number that stays a form, else 0; text and form of all texts that repeat."""
        state = np.zeros(len(self._row_of), np.uint8)
        repeats = [np.empty((0, 2), np.int64)]
        for part in in_order(digests, keys=2):
            starts = group_starts(part, keys=2)
            sizes = np.diff(starts, append=len(part))
            forms = part[starts, 3].astype(np.int64)  # the first text's, as equals stay in order
            state[forms] = np.where(sizes > 1, _SEVERAL, _ONE)
            several = np.repeat(sizes > 1, sizes)
            again = np.stack([part[several, 2].astype(np.int64), np.repeat(forms, sizes)[several]], axis=1)
            repeats.append(again)
        return state, np.concatenate(repeats)


def _empty(fields: int, folder: Path | None) -> Shingled:
    return Shingled(Rows(folder, np.uint32), Rows(folder, np.int64, 2 * fields))


class _WordHashes(dict[str, int]):
    """Word -> 64-bit hash, stable across processes; remembered, because words repeat."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _VOCABULARY:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = self[word] = int.from_bytes(digest, "big")
        return value

    def of(self, normal: str) -> list[int]:
        """The hashes of a normal form's words and signs; of the whole if it has none."""
        return [self[word] for word in _TOKEN.findall(normal) or filter(None, [normal])]


def _ranges(starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """start, start + 1, ... for each start, as many as its size, one after the other."""
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
    """The sorted, distinct 32-bit shingle hashes of each (text, field), one after the other, and how many."""
    pads = mixed(np.arange(n_fields, dtype=np.uint64))  # a field's own, so equal words in two fields differ
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
