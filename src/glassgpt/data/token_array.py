"""Token ids that lie in one array or in several, memory-mapped or not, and are read by place."""

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glassgpt.errors import DataError
from glassgpt.tokenizers.interface import unknown_id


class TokenArray:
    """Token ids that lie in one array or in several shards, read as if they were one."""

    def __init__(self, shards: list[NDArray[np.integer]], *, vocab_size: int | None = None) -> None:
        self.vocab_size = vocab_size
        self.dtype = shards[0].dtype if shards else np.dtype("<u2")
        self._shards = [np.ascontiguousarray(shard) for shard in shards]
        self._ends = list(accumulate(map(len, shards)))
        self._starts = [0, *self._ends][:-1]

    @classmethod
    def of(cls, tokens: "TokenArray | NDArray[np.integer]", vocab_size: int | None = None) -> "TokenArray":
        """`tokens` as a TokenArray; `vocab_size`, where given, is the one to hold."""
        if isinstance(tokens, TokenArray):
            if vocab_size in (None, tokens.vocab_size):
                return tokens
            return cls(tokens._shards, vocab_size=vocab_size)
        return cls([row_of_ids(tokens)], vocab_size=vocab_size)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, place: slice | int) -> Any:
        """The ids at a slice (a copy), or the id at one place."""
        if not isinstance(place, slice):
            return int(self[range(len(self))[place] : range(len(self))[place] + 1][0])
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise IndexError(f"A slice of tokens has step 1, not {step}.")
        parts = [
            shard[max(start - first, 0) : stop - first]
            for shard, first, end in zip(self._shards, self._starts, self._ends, strict=True)
            if first < stop and start < end
        ]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.integer]:
        """The ids at `start` … `start + length − 1` for each of `starts`, a row each."""
        if len(self._shards) == 1:  # all windows that there are, seen as one matrix of overlapping rows
            (shard,) = self._shards
            every = np.ndarray((len(shard) - length + 1, length), shard.dtype, shard, 0, shard.strides * 2)
            return every[starts]
        rows = [np.empty(0, self.dtype)]
        for start in starts.tolist():
            number = bisect_right(self._ends, start)
            first, stop = self._starts[number], start + length
            if stop <= self._ends[number]:
                rows.append(self._shards[number][start - first : stop - first])
            else:  # across the end of a shard
                rows.append(self[start:stop])
        return np.concatenate(rows).reshape(len(starts), length)


def row_of_ids(tokens: ArrayLike) -> NDArray[np.integer]:
    """`tokens` as an array. Raises DataError unless they are one row of whole numbers that int64 holds."""
    array = np.asarray(tokens)
    if array.shape == (0,):
        array = array.astype(np.int64)  # NumPy takes an empty list for fractions
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"Tokens must be one row of whole numbers, not shape {array.shape} of {array.dtype}. Give what "
            "a tokenizer's encode gives."
        )
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        raise DataError(
            f"Token id {array.max()} is above 2⁶³ − 1, the largest that PyTorch takes. Was a negative number "
            "stored without its sign?"
        )
    return array


def check_ids(ids: NDArray[np.integer], vocab_size: int) -> None:
    """Raise TokenizerError if one of `ids` is outside the vocabulary."""
    if not ids.size:
        return
    extremes = [ids.max()] if ids.dtype.kind == "u" else [ids.max(), ids.min()]
    for token_id in map(int, extremes):
        if not 0 <= token_id < vocab_size:
            raise unknown_id(token_id, vocab_size)
