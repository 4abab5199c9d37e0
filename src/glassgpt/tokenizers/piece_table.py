"""Token ids of long texts: pieces that were met before are looked up, thousands at once.

In a megabyte of English nineteen of twenty pieces have been met before, so nearly all of the work is to find
them again. That is done by array operations on the two whole numbers that a piece of up to 16 bytes is: they
say in which two slots its ids may lie, and are compared with the numbers there. The slots of the first half
are kept by the pieces that came first, likely the common ones; those of the second have what came last.

Where pieces hardly come back (random numbers, base64) or hold other characters than ASCII, looking them up
takes longer than encoding them, so it is left off for a while.
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
_MAX_IDS = 1 << 19  # those of newlines and of pieces that lost their slot included; beyond, it begins anew
_LONG_BYTES = 1 << 13
_JUDGED_BYTES = 1 << 18  # looked up, before it is judged whether that pays
_MOST_NEW = 0.4  # of these bytes, encoded all the same
_RESTING_CHARACTERS = 1 << 23  # encoded without looking up where it does not pay
# 2⁶⁴ divided by the golden ratio (Knuth, The Art of Computer Programming 3, §6.4), and another odd number
# whose bits look drawn: the second prime of xxHash64.
_MIX_LOW, _MIX_HIGH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class _Table(NamedTuple):
    """Slots: the two numbers of a piece, and where its ids lie. Replaced, never changed: threads share it.

    `low` is 0 where a slot is free, since no piece that is looked up holds the byte 0.
    """

    low: Keys
    high: Keys
    first: Numbers
    n_ids: Numbers
    ids: Ids

    @classmethod
    def empty(cls) -> "_Table":
        n = 1 << _SLOT_BITS
        return cls(
            low=np.zeros(n, np.uint64),
            high=np.zeros(n, np.uint64),
            first=np.zeros(n, np.int64),
            n_ids=np.zeros(n, np.int64),
            ids=np.empty(0, np.uint32),
        )

    def find(self, low: Keys, high: Keys) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """For each piece the slot where it lies, or else is to lie, and whether it lies there."""
        half, bits = 1 << (_SLOT_BITS - 1), np.uint64(65 - _SLOT_BITS)
        mixed = (low ^ high * _MIX_HIGH) * _MIX_LOW
        slots = (mixed >> bits).astype(np.intp)
        is_known = (self.low[slots] == low) & (self.high[slots] == high)
        missed = np.flatnonzero(~is_known)
        second = half + (mixed[missed] * _MIX_HIGH >> bits).astype(np.intp)
        is_known[missed] = (self.low[second] == low[missed]) & (self.high[second] == high[missed])
        is_free = self.low[slots[missed]] == 0  # so what is found in a second slot has a first that is taken
        slots[missed] = np.where(is_free, slots[missed], second)
        return slots, is_known

    def filled(
        self, slots: NDArray[np.intp], low: Keys, high: Keys, first: Numbers, n_ids: Numbers, ids: Ids
    ) -> "_Table":
        """This table with pieces in `slots`, and all of its `ids`. Of two for one slot the last gets it."""
        table = _Table(self.low.copy(), self.high.copy(), self.first.copy(), self.n_ids.copy(), ids)
        # NumPy assigns in the order of `slots`, so where one comes twice all four arrays hold the same piece.
        table.low[slots], table.high[slots] = low, high
        table.first[slots], table.n_ids[slots] = first, n_ids
        return table


class PieceTable:
    """Encodes texts by their pieces; words that hold other characters than ASCII are not looked up."""

    def __init__(self, encode_text: Callable[[str], Ids], n_bytes: Numbers) -> None:
        """`encode_text` gives the ids of any text; `n_bytes[i]` is how long the token of id i is."""
        self._encode_text = encode_text
        self._n_bytes = n_bytes
        self._table = _Table.empty()
        self._n_looked_up, self._n_new = 0, 0  # bytes since it was judged
        self._n_resting = 0  # characters

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each of `texts`, one or more; about a quarter of a megabyte at a time is fastest."""
        if self._n_resting > 0:
            self._n_resting -= sum(map(len, texts))
            return [self._encode_text(text) for text in texts]
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
        fits = (pieces.lengths <= _KEY_BYTES) & ~pieces.is_uncut
        n_new = 0
        new = np.flatnonzero(fits & ~is_known)
        if len(new):
            new = new[np.lexsort((low[new], high[new]))]  # equal ones are neighbours
            differs = (np.diff(low[new]) != 0) | (np.diff(high[new]) != 0)
            one = new[np.append(True, differs)]  # the first of each run of equals
            ids, first[one], n_ids[one] = self._encoded(pieces, one, ids)
            which = np.append(0, np.cumsum(differs))
            first[new], n_ids[new] = first[one][which], n_ids[one][which]
            n_new += int(pieces.lengths[one].sum())
            table = table.filled(slots[one], low[one], high[one], first[one], n_ids[one], ids)
            self._table = table if len(ids) <= _MAX_IDS else _Table.empty()
        others = np.flatnonzero(~fits)
        if len(others):
            ids, first[others], n_ids[others] = self._encoded(pieces, others, ids)
            n_new += int(pieces.lengths[others].sum())
        self._judge(int(pieces.lengths.sum()), n_new)
        return first, n_ids, ids

    def _judge(self, n_bytes: int, n_new: int) -> None:
        """Count what was looked up, and rest where too much was new. Threads may lose each other's counts."""
        self._n_looked_up += n_bytes
        self._n_new += n_new
        if self._n_looked_up >= _JUDGED_BYTES:
            if self._n_new > _MOST_NEW * self._n_looked_up:
                self._n_resting = _RESTING_CHARACTERS
            self._n_looked_up, self._n_new = 0, 0

    def _encoded(self, pieces: Pieces, places: NDArray[np.intp], ids: Ids) -> tuple[Ids, Numbers, Numbers]:
        """`ids` and behind them those of the pieces at `places`; where each piece's begin; how many they are.

        Most are encoded together, with something between them that the pattern cuts off on both sides. ASCII
        pieces begin with no more than one blank: a newline is cut off if none of them is white space. Behind
        uncut words, which may end with white space of any kind, a blank and a full stop are, if what follows
        begins with white space.
        """
        starts, lengths = pieces.starts[places], pieces.lengths[places]
        data = np.frombuffer(pieces.data, np.uint8)
        is_short, is_uncut = lengths < _LONG_BYTES, pieces.is_uncut[places]
        is_line = is_short & ~is_uncut & ~_is_white(data[starts + lengths - 1])
        is_words = is_short & is_uncut & _is_white(data[starts])
        all_ids, n_all = [ids], len(ids)
        first, n_ids = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
        for chosen, separator in ((is_line, b"\n"), (is_words, b" .")):
            found, begins, n_ids[chosen] = self._together(
                pieces.data, starts[chosen], lengths[chosen], separator
            )
            first[chosen] = n_all + begins
            all_ids.append(found)
            n_all += len(found)
        met: dict[str, tuple[int, int]] = {}
        for place in np.flatnonzero(~is_line & ~is_words).tolist():
            text = pieces.text(places[place])
            if text not in met:
                all_ids.append(self._encode_text(text))
                met[text] = n_all, len(all_ids[-1])
                n_all += len(all_ids[-1])
            first[place], n_ids[place] = met[text]
        return np.concatenate(all_ids), first, n_ids

    def _together(
        self, data: bytes, starts: NDArray[np.intp], lengths: NDArray[np.intp], separator: bytes
    ) -> tuple[Ids, Numbers, Numbers]:
        """The ids of pieces with `separator` behind each; where each piece's begin; how many they are."""
        padded = np.frombuffer(data + separator, np.uint8)
        n_bytes = lengths + len(separator)
        ends = np.cumsum(n_bytes)
        begins = ends - n_bytes
        joined = padded[np.repeat(starts - begins, n_bytes) + np.arange(n_bytes.sum())]
        for place, byte in enumerate(separator):
            joined[begins + lengths + place] = byte
        ids = self._encode_text(joined.tobytes().decode("utf-8"))
        token_ends = np.cumsum(self._n_bytes[ids])
        first = np.searchsorted(token_ends, begins, "right")
        return ids, first, np.searchsorted(token_ends, begins + lengths, "left") + 1 - first


def _is_white(byte: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (byte == ord(" ")) | (byte >= ord("\t")) & (byte <= ord("\r"))
