"""What deduplication costs, ours beside datasketch's signatures and buckets: `python -m
tests.bench.deduplicate`.

Prints CPU milliseconds per text. datasketch is optional and used nowhere else.
"""

import random
import time

import numpy as np

from pipeline.config.params import Deduplicate
from pipeline.data.contamination import removals

TEXTS, WORDS = 4000, 95  # about 600 bytes a text
SETTINGS = Deduplicate(near_threshold=0.85, shingle_words=5, permutations=128, seed=1)


def main() -> None:
    """Measures both on the same random texts."""
    draw = random.Random(1)
    vocabulary = ["".join(draw.choices("abcdefghıijklmnoöprsştuüvyz", k=draw.randint(2, 9))) for _ in range(3000)]
    texts = [draw.choices(vocabulary, k=WORDS) for _ in range(TEXTS)]
    before = time.process_time()
    removals([([" ".join(text)], "tr") for text in texts], np.zeros(TEXTS, np.uint8), SETTINGS, across_splits=True)
    print(f"ours, all told: {(time.process_time() - before) / TEXTS * 1e3:.2f} ms per text")
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        print("datasketch: not installed")
        return
    before = time.process_time()
    shingles = [[" ".join(text[i : i + 5]).encode() for i in range(WORDS - 4)] for text in texts]
    index = MinHashLSH(threshold=SETTINGS.near_threshold, num_perm=SETTINGS.permutations)
    for number, signature in enumerate(MinHash.bulk(shingles, num_perm=SETTINGS.permutations)):
        index.insert(str(number), signature)
    print(f"datasketch, signatures and buckets: {(time.process_time() - before) / TEXTS * 1e3:.2f} ms per text")


if __name__ == "__main__":
    main()
