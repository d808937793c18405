"""Extension of an adopted byte-level BPE by merges learned from other text (another language).

`extend` counts the words of the texts that the old vocabulary splits, continues BPE training (Sennrich et al. 2016,
algorithm 1) from the split into old tokens, and appends merges and tokens: ids of old tokens stay as they are, and
every new merge comes after all old ones, so a text is first encoded as before and only then merged further.
"""

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from pipeline.errors import UserError
from pipeline.tokenizer import library, vocabulary
from pipeline.tokenizer.pretokenizer import parts as parts_of_text

_LEAST = 2
"""Occurrences of a pair in the texts below which it becomes no token."""
_MOST_WORDS = 1 << 21
"""Distinct words that are held; of more, those that occurred once so far are dropped."""
Pair = tuple[int, int]


class Extension(NamedTuple):
    """A tokenizer.json with more merges, and the old tokens that each new token is made of."""

    data: bytes
    parts: list[list[int]]
    """Of each new id in order: ids of the old vocabulary."""


def extend(data: bytes, special: Mapping[str, int], first: int, size: int, texts: Iterable[str]) -> Extension:
    """tokenizer.json with new merges, and new tokens with the ids `first` to `size` - 1 (fewer if pairs run out).

    Args:
        data: tokenizer.json of a byte-level BPE.
        special: its control tokens.
        first: first free id.
        size: ids in all.
        texts: read once, as a stream.

    Raises:
        UserError: no text, or none with a word that the vocabulary splits into tokens that occur together twice.
    """
    from tokenizers import Tokenizer

    raw: dict[str, Any] = json.loads(data)
    encoder = Tokenizer.from_str(json.dumps(library.hidden(raw, special)))
    counts = _words(encoder, texts)
    words, numbers = [], []
    for word, number in counts.items():
        ids = [token.id for token in encoder.model.tokenize(word)]
        if len(ids) > 1:
            words.append(ids)
            numbers.append(number)
    names = {number: token for token, number in library.ordinary(raw, special).items()}
    taken = {vocabulary.spelled(text.encode()) for text in special} | set(names.values())
    merges, parts = _learn(words, numbers, names, taken, (first, size))
    if not merges:
        raise UserError(
            "tokenize: the training split has no word that the vocabulary splits twice in the same way; add documents "
            "of the new language under download.sources, or set tokenize.method to folder"
        )
    model = raw["model"]
    as_pairs = any(not isinstance(merge, str) for merge in model["merges"])
    model["merges"] += [[left, right] if as_pairs else f"{left} {right}" for left, right in merges]
    # The library numbers an added token after the vocabulary unless it finds it there.
    model["vocab"] |= {token["content"]: token["id"] for token in raw.get("added_tokens") or []}
    model["vocab"] |= {left + right: first + at for at, (left, right) in enumerate(merges)}
    return Extension(vocabulary.to_json(raw), parts)


def _words(encoder: Any, texts: Iterable[str]) -> dict[str, int]:
    """Words, as the vocabulary cuts them, with their numbers of occurrences, in a fixed order."""
    counts: Counter[str] = Counter()
    for text in texts:
        for part in parts_of_text(text):
            normal = encoder.normalizer.normalize_str(part) if encoder.normalizer is not None else part
            counts.update(word for word, _ in encoder.pre_tokenizer.pre_tokenize_str(normal))
        if len(counts) > _MOST_WORDS:
            counts = Counter({word: number for word, number in counts.items() if number > 1})
    return dict(sorted(counts.items()))


def _learn(
    words: list[list[int]], numbers: list[int], names: dict[int, str], taken: set[str], room: tuple[int, int]
) -> tuple[list[tuple[str, str]], list[list[int]]]:
    """The most frequent pairs one after the other, each merged before the next is chosen; ties by lower ids."""
    first, size = room
    totals: defaultdict[Pair, int] = defaultdict(int)
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for place, word in enumerate(words):
        for pair in pairwise(word):
            totals[pair] += numbers[place]
            places[pair].add(place)
    queue = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(queue)
    parts_of = {number: [number] for number in names}
    merges: list[tuple[str, str]] = []
    while queue and first + len(merges) < size:
        negative, pair = heapq.heappop(queue)
        if -negative != totals.get(pair, 0):
            continue  # counted before an earlier merge
        if -negative < _LEAST:
            break
        left, right = names[pair[0]], names[pair[1]]
        if left + right in taken:
            del totals[pair]  # an old token that its own merges do not make
            continue
        new = first + len(merges)
        names[new] = left + right
        taken.add(left + right)
        parts_of[new] = parts_of[pair[0]] + parts_of[pair[1]]
        merges.append((left, right))
        changed = _merge(words, numbers, pair, new, totals, places)
        for other in changed:
            if totals.get(other, 0) > 0:
                heapq.heappush(queue, (-totals[other], other))
    return merges, [parts_of[first + at] for at in range(len(merges))]


def _merge(  # noqa: PLR0913 - the state of one training
    words: list[list[int]],
    numbers: list[int],
    pair: Pair,
    new: int,
    totals: defaultdict[Pair, int],
    places: defaultdict[Pair, set[int]],
) -> set[Pair]:
    """Merges a pair in all words that have it; returns the pairs whose totals changed."""
    changed: set[Pair] = set()
    for place in sorted(places.pop(pair, ())):
        word, merged = words[place], []
        at = 0
        while at < len(word):
            if tuple(word[at : at + 2]) == pair:
                merged.append(new)
                at += 2
            else:
                merged.append(word[at])
                at += 1
        before, after = Counter(pairwise(word)), Counter(pairwise(merged))
        for other in before.keys() | after.keys():
            if difference := after[other] - before[other]:
                totals[other] += difference * numbers[place]
                changed.add(other)
            if other in after:
                places[other].add(place)
        words[place] = merged
    totals.pop(pair, None)
    return changed - {pair}
