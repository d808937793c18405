"""splitmix64, a 64-bit hash for numpy arrays that is equal on every machine and in every version, unlike `hash`.

Source: splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 16).
"""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mixed(values: Words) -> Words:
    """splitmix64's hash of each value, same shape; a bijection on 64 bits."""
    values = values + _GOLDEN
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
