"""Settings of glibc's allocator: freed memory is kept for the next update, or returned where memory is to be saved.

By default it returns large pieces to the system after every update and pays for fresh pages in the next. Other C
libraries have no such setting.
"""

import ctypes

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of mallopt's parameters (malloc.h)."""
_SMALL = 2**17
_LARGEST = 2**31 - 1
_LARGEST_BEFORE = 2**25
"""The largest threshold that an older glibc takes, 32 MiB."""


def return_freed_memory() -> None:
    """Lets every tensor of 128 KiB or more be a mapping of its own, returned as soon as it is freed.

    What is kept lies in pieces that do not fit the next sizes: LoRA on SmolLM2's shape with 400 tokens a batch peaks at
    1,939 MiB, and at 1,584 without (`python -m tests.bench.training_memory`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _SMALL)


def keep_freed_memory() -> None:
    """Raises the thresholds, in bytes, above which memory is returned to the system."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    # M_MMAP_THRESHOLD: the size from which a piece is a mapping of its own, returned as soon as it is freed.
    if mallopt(_MMAP_THRESHOLD, _LARGEST) or mallopt(_MMAP_THRESHOLD, _LARGEST_BEFORE):
        # M_TRIM_THRESHOLD: how much may be free at the end of the heap.
        mallopt(_TRIM_THRESHOLD, _LARGEST)
