"""Texts that repeat another: exactly (equal normal form) or nearly (Jaccard similarity of word shingles).

`Forms` reads texts once, in a stream, and keeps for each distinct normal form its shingle set, a MinHash
signature and its buckets; `Forms.near` then answers which of some forms are near a given one. MinHash and
buckets only propose: the true Jaccard similarity decides. Sources: Broder 1997, "On the resemblance and
containment of documents"; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3 (banding: 1 -
(1 - t^r)^b); Dietzfelbinger 1996, "Universal hashing and k-wise independent random variables via integer
arithmetic" (multiply-shift permutations).

Both ends of a text are padded, so every word stands in as many shingles, `shingle_words` = k. Two texts of
w words that differ in one word then have similarity (w - 1) / (w + 2k - 1): at a threshold of 0.85 and k =
5 they are near from 58 words on. Short texts that differ by one name are therefore never near, and need no
rule of their own. A text of several fields (an instruction and its input) is near another only if every
field is: other questions about one long passage are no copies. Punctuation is ignored; any other sign (+ %
# and emoji, say) is a word, and a field without a word is a word.

Memory: 4 bytes per word, 4 per permutation and distinct text, and the vocabulary; no text is kept. The
engine is ours because it is one: texts of 600 bytes cost 0.2 ms each all told, where datasketch 2.0 takes
0.3 ms for the signatures and buckets alone and knows no true similarity (tests/bench/deduplicate.py).
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.config import Deduplicate, UserError, seed_for
from pipeline.data import language
from pipeline.data.hashing import Words, mixed

Text = tuple[Sequence[str], str]
"""The fields of one record that are compared, and its language."""

FIELD_MARK = "\x1f"  # white space, so no normal form holds it
_PUNCTUATION = r".,;:!?…·•'\"“”„‘’«»‹›`´()\[\]{}_–—"
_TOKEN = re.compile(rf"{language.WORD}|[^\w\s{_PUNCTUATION}]")
_MISS = 0.01  # chance that a pair exactly at the threshold shares no bucket
_DOUBT = 4.0  # standard deviations by which an estimated similarity may lie below the truth
_BATCH = 4096
_VOCABULARY = 1 << 20


class Forms:
    """The distinct normal forms among texts, and which of them are near each other."""

    def __init__(self, texts: Iterable[Text], settings: Deduplicate) -> None:
        """Reads `texts` once, in order. All have the same number of fields.

        Raises:
            UserError: a near_threshold of 0.
        """
        if not settings.near_threshold:
            raise UserError(
                "params.yaml: sample.deduplicate.near_threshold is 0, which calls any two texts copies; "
                "expected above 0 and at most 1, 0.85 is usual"
            )
        self._threshold = settings.near_threshold
        self._k = settings.shingle_words
        self._multiply, self._add = _permutations(settings)
        self._words = _WordHashes()
        self._numbers: dict[bytes, int] = {}
        rows: list[int] = []
        parts = [self._read(batch, rows) for batch in _batches(texts)]
        self.form_of = np.array(rows, dtype=np.int64)
        """The form (0, 1, ... by first appearance) of each text, shape (texts)."""
        self._shingles = np.concatenate([shingles for shingles, _, _ in parts] or [np.empty(0, np.uint32)])
        sizes = np.concatenate([sizes for _, sizes, _ in parts] or [np.empty((0, 1), np.int64)])
        self._signatures = np.concatenate(
            [signatures for _, _, signatures in parts] or [np.empty((0, settings.permutations), np.uint32)]
        )
        self._sizes = sizes
        self._starts = np.cumsum(np.concatenate([[0], sizes.ravel()])).reshape(-1)[:-1].reshape(sizes.shape)
        del self._numbers, self._words
        self._buckets, self._offsets = _shared_buckets(
            self._signatures, sizes.sum(axis=1) > 0, *bands(settings.near_threshold, settings.permutations)
        )

    def __len__(self) -> int:
        return len(self._sizes)

    def buckets(self, form: int) -> list[int]:
        """The buckets that this form shares with at least one other."""
        return self._buckets[self._offsets[form] : self._offsets[form + 1]].tolist()

    def shares(self) -> npt.NDArray[np.bool_]:
        """Whether each form shares a bucket with another, shape (forms); the others are near none."""
        return np.diff(self._offsets) > 0

    def near(self, form: int, others: npt.NDArray[np.int64]) -> list[tuple[int, float]]:
        """Those of `others` whose similarity to `form` reaches the threshold, with it, in the order given."""
        sizes, total = self._sizes[others].sum(axis=1), self._sizes[form].sum()
        others = others[np.minimum(sizes, total) >= self._threshold * np.maximum(sizes, total)]
        equal = self._signatures[others] == self._signatures[form]
        slack = _DOUBT * math.sqrt(self._threshold * (1 - self._threshold) / equal.shape[1])
        others = others[equal.mean(axis=1) >= self._threshold - slack]
        found = self.similarities(form, others)
        return [(int(others[i]), float(found[i])) for i in np.flatnonzero(found >= self._threshold)]

    def similarities(self, form: int, others: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The smallest Jaccard similarity over the fields, shape (others); empty fields are equal."""
        found = np.ones(len(others))
        for field in range(self._sizes.shape[1]):
            own = self._shingles[self._starts[form, field] :][: self._sizes[form, field]]
            starts, sizes = self._starts[others, field], self._sizes[others, field]
            known = _stands_in(self._shingles[_ranges(starts, sizes)], own)
            shared = np.bincount(np.repeat(np.arange(len(others)), sizes)[known], minlength=len(others))
            union = len(own) + sizes - shared
            jaccard = np.divide(shared, union, out=np.ones(len(others)), where=union > 0)
            found = np.minimum(found, jaccard)
        return found

    def _read(
        self, batch: list[Text], rows: list[int]
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Shingles, their number per (form, field), and signatures, of the forms that `batch` shows first."""
        fresh: list[list[list[int]]] = []
        for fields, tongue in batch:
            normal = [language.normal(field, tongue) for field in fields]
            digest = hashlib.blake2b(FIELD_MARK.join(normal).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if digest not in self._numbers:
                self._numbers[digest] = len(self._numbers)
                fresh.append([self._words.of(field) for field in normal])
            rows.append(self._numbers[digest])
        n_fields = len(batch[0][0])
        shingles, sizes = _shingles(fresh, n_fields, self._k)
        return shingles, sizes, self._signed(shingles, sizes.sum(axis=1))

    def _signed(self, shingles: npt.NDArray[np.uint32], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """MinHash signatures, shape (forms, permutations); zeros for forms without a word."""
        signatures = np.zeros((len(sizes), len(self._multiply)), np.uint32)
        filled = np.flatnonzero(sizes)
        if len(filled):
            starts = (np.cumsum(sizes) - sizes)[filled]
            wide = shingles.astype(np.uint64)
            for column, (multiply, add) in enumerate(zip(self._multiply, self._add, strict=True)):
                signatures[filled, column] = np.minimum.reduceat(wide * multiply + add >> np.uint64(32), starts)
        return signatures


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows per band): the longest bands with which a pair at the threshold still meets, 99 times in
    100.

    Longer bands propose fewer pairs below the threshold. A false proposal costs only time, as the true
    similarity decides; a pair that never meets is lost: so the miss is bounded first, and the false
    proposals are minimised next.
    """
    for rows in range(permutations, 1, -1):
        count = permutations // rows
        if (1 - threshold**rows) ** count <= _MISS:
            return count, rows
    return permutations, 1


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


def _stands_in(values: npt.NDArray[np.uint32], ordered: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _permutations(settings: Deduplicate) -> tuple[Words, Words]:
    seeds = [seed_for(settings.seed, "minhash", i) for i in range(2 * settings.permutations)]
    values = mixed(np.array(seeds, dtype=np.uint64))
    return values[0::2] | np.uint64(1), values[1::2]


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


def _shared_buckets(
    signatures: npt.NDArray[np.uint32], filled: npt.NDArray[np.bool_], count: int, rows: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bucket numbers of all forms, one form after the other, and where each form's begin (forms + 1
    offsets).

    A form's bucket in a band is the hash of its signature there; buckets with one form in them are left
    out.
    """
    forms, buckets, used = [], [], 0
    candidates = np.flatnonzero(filled)
    for band in range(count):
        keys = np.zeros(len(candidates), np.uint64)
        for column in range(band * rows, (band + 1) * rows):
            keys = mixed(keys ^ signatures[candidates, column])
        _, bucket, members = np.unique(keys, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(members[bucket] > 1)
        forms.append(candidates[shared])
        buckets.append(bucket[shared] + used)
        used += len(members)
    owner = np.concatenate(forms)
    order = np.argsort(owner, kind="stable")
    offsets = np.searchsorted(owner[order], np.arange(len(signatures) + 1))
    return np.concatenate(buckets)[order].astype(np.int64), offsets
