"""One fast, stable 64-bit mixer for numpy arrays; the same on every machine and version, unlike Python's
`hash`.

Source: splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 16).
"""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mixed(values: Words) -> Words:
    """Each 64-bit value, its bits thoroughly mixed; a bijection."""
    values = values + _GOLDEN
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
