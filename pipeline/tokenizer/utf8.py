"""Many texts as one run of UTF-8, as they lie in a column of a table: nothing is copied to look at all of them."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_CACHED = 1 << 17  # bytes looked at together: with what is made of them they stay in a core's cache


@dataclass(frozen=True, eq=False)
class Utf8:
    """Text i is letters[starts[i] : starts[i + 1]]."""

    letters: Bytes
    starts: npt.NDArray[np.int64]

    @classmethod
    def column(cls, texts: Any) -> "Utf8":
        """Of a pyarrow.StringArray. Raises ValueError for nulls, and for other kinds: their bytes lie otherwise."""
        if str(texts.type) != "string" or texts.null_count:
            raise ValueError(f"expected strings without nulls, found {texts.type} with {texts.null_count} nulls")
        _, offsets, data = texts.buffers()
        starts = np.frombuffer(offsets, dtype="<i4")[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        letters = np.frombuffer(data or b"", dtype=np.uint8)
        return cls(letters[starts[0] : starts[-1]], starts - starts[0])

    def cut(self) -> list[bytes]:
        """The texts."""
        view = self.letters.data
        return [bytes(view[start:end]) for start, end in pairwise(self.starts.tolist())]

    def words(self, first: int, last: int) -> int:
        """How many runs of anything but ASCII white space the texts from `first` to before `last` have."""
        begins, end = self.starts[first:last], self.starts[last]
        begins = np.unique(begins[begins < end])  # an empty text begins where the next one does
        letters, begins = self.letters[self.starts[first] : end], begins - self.starts[first]
        found = 0
        for at in range(0, len(letters) - 1, _CACHED):
            blank = _blank(letters[at : at + _CACHED + 1])
            found += int(np.count_nonzero(blank[:-1] > blank[1:]))
        # What follows no blank but begins a text.
        first_letters = ~_blank(letters[begins])
        first_letters[1:] &= ~_blank(letters[begins[1:] - 1])
        return found + int(np.count_nonzero(first_letters))


def _blank(letters: Bytes) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = letters - np.uint8(0x09) < 5  # what is less than 0x09 wraps
    return np.logical_or(found, letters == 0x20, out=found)
