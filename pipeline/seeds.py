"""Seeds: every random draw has one of its own, derived from the seed in params.yaml and its purpose.

Apart from pipeline/config because it decides bits: a change here makes every stage that draws stale.
"""

import hashlib


def seed_for(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, derived from the params seed: equal arguments, equal seed, on every machine."""
    text = "\0".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
