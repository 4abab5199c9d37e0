"""Merging pairs of neighbours in many words at once: a constant number of array operations a merge.

All words lie one behind the other in flat arrays, one slot a byte. A word is a linked list through them:

    slot      0    1    2    3    4  │  5    6            merging (t, h) → Z:   0    1    2    3    4
    token     t    h    e    r    e  │  t    o                                  Z    ·    e    r    e
    after     1    2    3    4    7  │  6    7                                  2    ·    3    4    7
    before    7    0    1    2    3  │  7    5                                  7    ·    0    2    3

A merged pair lives on in its left slot and its right slot dies, so nothing ever moves; slot 7, behind the
last byte, is nobody's and ends every word. A pair of neighbours can only come into being when the younger of
its two tokens does, and only by that token's own merge. So whoever keeps the slots that `merge` returns
knows every occurrence there will ever be; later merges only take some away, which `occurrences` sees.
"""

from typing import TypeVar

import numpy as np

Ids = TypeVar("Ids", int, np.ndarray)

Slots = np.ndarray  # of int64: places in the flat arrays
NOBODY = -1  # the token of a dead slot and of the end


class LinkedTokens:
    """Words as linked lists of token ids; `lengths` says where `tokens` is cut into words."""

    def __init__(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        n_slots = len(tokens)
        self.end = n_slots
        self.token = np.append(tokens, NOBODY).astype(np.int64)
        self.after = np.arange(1, n_slots + 2)
        self.before = np.arange(-1, n_slots)
        last = np.cumsum(lengths) - 1  # of each word
        self.after[last] = self.end
        self.before[last - lengths + 1] = self.end

    def tokens(self) -> np.ndarray:
        """What is left of all words, in order."""
        return self.token[self.token != NOBODY]

    def pair_starts(self) -> Slots:
        """Every slot that has a neighbour after it, before anything was merged."""
        return np.flatnonzero(self.after[:-1] != self.end)

    def occurrences(self, slots: Slots, left: int, right: int) -> Slots:
        """Those of `slots` where `left` is still followed by `right`."""
        slots = slots[self.token[slots] == left]
        return slots[self.token[self.after[slots]] == right]

    def merge(self, slots: Slots, new_token: int) -> Slots:
        """Put `new_token` for the pairs at `slots`, ascending occurrences of one pair.

        Returns the slots at which a pair with the new token begins; those of any one pair are ascending.
        """
        slots = self._without_overlaps(slots)
        right = self.after[slots]
        beyond = self.after[right]
        self.token[slots] = new_token
        self.token[right] = NOBODY
        self.after[slots] = beyond
        self.before[beyond] = slots  # at the end this writes to nobody's slot, which is never read
        previous = self.before[slots]
        # Where the neighbour before was merged as well, the pair of the two begins in `slots` already.
        previous = previous[(previous != self.end) & (self.token[previous] != new_token)]
        return np.concatenate([previous, slots[beyond != self.end]])

    def _without_overlaps(self, slots: Slots) -> Slots:
        """In a run a a a a a the pair (a, a) begins at four slots; from left to right, take each second."""
        continues = np.empty(len(slots), dtype=bool)
        continues[0] = False
        np.equal(self.after[slots[:-1]], slots[1:], out=continues[1:])
        if not continues.any():
            return slots
        place = np.arange(len(slots))
        run_start = np.maximum.accumulate(np.where(continues, 0, place))
        return slots[(place - run_start) % 2 == 0]

    def grouped(self, slots: Slots) -> tuple[np.ndarray, Slots, np.ndarray]:
        """Sort `slots` by the pair that begins there: (pairs, slots, where each pair's slots start).

        A pair is one number, `pair_key`, so that their order is that of (left id, right id).
        """
        keys = pair_key(self.token[slots], self.token[self.after[slots]])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
        return keys[starts], slots[order], starts


def pair_key(left: Ids, right: Ids) -> Ids:
    """(left id, right id) as one number that sorts as the two do."""
    return (left << 32) | right


def pair_of(key: int) -> tuple[int, int]:
    """The inverse of `pair_key`."""
    return key >> 32, key & 0xFFFF_FFFF
