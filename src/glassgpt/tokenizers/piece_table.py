"""Token ids of long texts: pieces that were met before are looked up, thousands at once.

In a megabyte of English nineteen of twenty pieces have been met before, so nearly all of the work is to find
them again. That is done by array operations on the two whole numbers that a piece of up to 16 bytes is: they
say in which two slots its ids may lie, and are compared with the numbers there. The slots of the first half
are kept by the pieces that came first, likely the common ones; those of the second have what came last.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassgpt.tokenizers.ascii_pieces import Pieces, cut_ascii

Ids = NDArray[np.integer]
Keys = NDArray[np.uint64]
Numbers = NDArray[np.int64]

_KEY_BYTES = 16
_SLOT_BITS = 17
_MAX_IDS = 1 << 19  # of all pieces together, also of those that lost their slot: then all begins anew
# Odd numbers without a pattern, which spread pieces evenly (Knuth, The Art of Computer Programming 3, §6.4).
_MIX_LOW, _MIX_HIGH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class _Table(NamedTuple):
    """Slots: the two numbers of a piece, and where its ids lie. Replaced, never changed: threads share it."""

    low: Keys
    high: Keys
    first: Numbers
    n_ids: Numbers
    ids: Ids

    @classmethod
    def empty(cls) -> "_Table":
        n = 1 << _SLOT_BITS
        of_pieces = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        return cls(*of_pieces, np.zeros(n, np.int64), np.zeros(n, np.int64), np.empty(0, np.uint32))

    def find(self, low: Keys, high: Keys) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """For each piece the slot where it lies, or else is to lie, and whether it lies there."""
        half, bits = 1 << (_SLOT_BITS - 1), np.uint64(65 - _SLOT_BITS)
        mixed = (low ^ high * _MIX_HIGH) * _MIX_LOW
        slots = (mixed >> bits).astype(np.intp)
        is_known = (self.low[slots] == low) & (self.high[slots] == high)
        missed = np.flatnonzero(~is_known)
        second = half + ((mixed[missed] << np.uint64(_SLOT_BITS - 1)) >> bits).astype(np.intp)
        is_known[missed] = (self.low[second] == low[missed]) & (self.high[second] == high[missed])
        is_free = self.low[slots[missed]] == 0  # so what is found in a second slot has a first that is taken
        slots[missed] = np.where(is_free, slots[missed], second)
        return slots, is_known

    def filled(
        self, slots: NDArray[np.intp], low: Keys, high: Keys, first: Numbers, n_ids: Numbers, ids: Ids
    ) -> "_Table":
        """This table with pieces in `slots`, and all of its `ids`. Of two for one slot the last is there."""
        table = _Table(self.low.copy(), self.high.copy(), self.first.copy(), self.n_ids.copy(), ids)
        table.low[slots], table.high[slots] = low, high
        table.first[slots], table.n_ids[slots] = first, n_ids
        return table


class PieceTable:
    """Encodes ASCII texts by their pieces, and words with other characters one by one."""

    def __init__(self, encode_text: Callable[[str], Ids], n_bytes: Numbers) -> None:
        """`encode_text` gives the ids of any text; `n_bytes[i]` is how long the token of id i is."""
        self._encode_text = encode_text
        self._n_bytes = n_bytes
        self._table = _Table.empty()

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each of `texts`, one or more; about a quarter of a megabyte at a time is fastest."""
        pieces = cut_ascii(texts)
        first, n_ids, ids = self._found(pieces)
        ends = np.cumsum(n_ids)
        whole = ids[np.repeat(first - ends + n_ids, n_ids) + np.arange(n_ids.sum())]
        return np.split(whole, np.append(0, ends)[pieces.bounds[1:-1]])

    def _found(self, pieces: Pieces) -> tuple[Numbers, Numbers, Ids]:
        """Where the ids of each piece begin, how many they are, and the ids."""
        table = self._table
        low, high = pieces.eight_bytes(0), pieces.eight_bytes(8)
        slots, is_known = table.find(low, high)
        first, n_ids, ids = table.first[slots], table.n_ids[slots], table.ids
        fits = (pieces.lengths <= _KEY_BYTES) & ~pieces.is_left
        new = np.flatnonzero(fits & ~is_known)
        if len(new):
            new = new[np.lexsort((low[new], high[new]))]  # equal ones are neighbours
            differs = (np.diff(low[new]) != 0) | (np.diff(high[new]) != 0)
            one = new[np.append(True, differs)]  # of each
            ids, first[one], n_ids[one] = self._encoded(pieces, one, ids)
            which = np.append(0, np.cumsum(differs))
            first[new], n_ids[new] = first[one][which], n_ids[one][which]
            table = table.filled(slots[one], low[one], high[one], first[one], n_ids[one], ids)
            self._table = table if len(ids) <= _MAX_IDS else _Table.empty()
        left = np.flatnonzero(~fits)
        if len(left):
            ids, first[left], n_ids[left] = self._encoded(pieces, left, ids)
        return first, n_ids, ids

    def _encoded(self, pieces: Pieces, places: NDArray[np.intp], ids: Ids) -> tuple[Ids, Numbers, Numbers]:
        """`ids` and behind them those of the pieces at `places`; where each piece's begin; how many they are.

        Those that are no white space are encoded together, a line each: the pattern cuts before such a
        newline and behind it, since these pieces begin with no more than one blank.
        """
        starts, lengths = pieces.starts[places], pieces.lengths[places]
        data = np.frombuffer(pieces.data, np.uint8)
        last = data[starts + lengths - 1]
        is_line = ~pieces.is_left[places] & (last != ord(" ")) & ((last < ord("\t")) | (last > ord("\r")))
        begins = np.append(0, np.cumsum(lengths[is_line] + 1))
        lines = data[np.repeat(starts[is_line] - begins[:-1], lengths[is_line] + 1) + np.arange(begins[-1])]
        lines[begins[1:] - 1] = ord("\n")
        of_lines = self._encode_text(lines.tobytes().decode("ascii"))
        token_ends = np.cumsum(self._n_bytes[of_lines])
        first, n_ids = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
        first[is_line] = len(ids) + np.searchsorted(token_ends, begins[:-1], "right")
        n_ids[is_line] = len(ids) + np.searchsorted(token_ends, begins[1:] - 1, "left") + 1 - first[is_line]

        all_ids, n_all = [ids, of_lines], len(ids) + len(of_lines)
        met: dict[str, tuple[int, int]] = {}
        for place in np.flatnonzero(~is_line).tolist():
            text = pieces.text(places[place])
            if text not in met:
                all_ids.append(self._encode_text(text))
                met[text] = n_all, len(all_ids[-1])
                n_all += len(all_ids[-1])
            first[place], n_ids[place] = met[text]
        return np.concatenate(all_ids), first, n_ids
