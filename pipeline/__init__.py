"""Tohum's library: the nouns (config, data, model, objectives, tuners, training, evaluation, gates, registry)."""

import os

# Before anything imports Arrow. Its own allocators keep much of what was freed, and the peak of a stage that reads in
# small batches was a sixth higher with them (tests/bench/memory.py). No bit depends on it.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
