"""Many texts in one UTF-8 buffer, as in an Arrow column: counted and sliced without copies."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_CACHED = 1 << 17  # bytes per step, so that they and the arrays made of them stay in a core's cache


@dataclass(frozen=True, eq=False)
class Utf8:
    """UTF-8 texts: text i is letters[starts[i] : starts[i + 1]]."""

    letters: Bytes
    starts: npt.NDArray[np.int64]

    @classmethod
    def column(cls, texts: Any) -> "Utf8":
        """From a pyarrow.StringArray. Raises ValueError for nulls and for types with another layout."""
        if str(texts.type) != "string" or texts.null_count:
            raise ValueError(f"expected strings without nulls, found {texts.type} with {texts.null_count} nulls")
        _, offsets, data = texts.buffers()
        starts = np.frombuffer(offsets, dtype="<i4")[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        letters = np.frombuffer(data or b"", dtype=np.uint8)
        return cls(letters[starts[0] : starts[-1]], starts - starts[0])

    def cut(self) -> list[bytes]:
        """The texts, one bytes object each."""
        view = self.letters.data
        return [bytes(view[start:end]) for start, end in pairwise(self.starts.tolist())]

    def words(self, first: int, last: int) -> int:
        """Number of words, runs without ASCII white space, in texts `first` to `last` - 1."""
        begins, end = self.starts[first:last], self.starts[last]
        begins = np.unique(begins[begins < end])  # an empty text begins where the next one does
        letters, begins = self.letters[self.starts[first] : end], begins - self.starts[first]
        words = 0
        for at in range(0, len(letters) - 1, _CACHED):
            blank = _blank(letters[at : at + _CACHED + 1])
            words += int(np.count_nonzero(blank[:-1] > blank[1:]))
        # First words of texts, which no blank precedes.
        first_letters = ~_blank(letters[begins])
        first_letters[1:] &= ~_blank(letters[begins[1:] - 1])
        return words + int(np.count_nonzero(first_letters))


def _blank(letters: Bytes) -> npt.NDArray[np.bool_]:
    """Whether each byte is ASCII white space."""
    blank: npt.NDArray[np.bool_] = np.less(letters - np.uint8(0x09), 5)  # bytes below 0x09 wrap to large values
    np.logical_or(blank, letters == 0x20, out=blank)
    return blank
