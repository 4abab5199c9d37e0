"""Merging one very long piece of text, such as ten million letters without a space.

The usual loop looks through the whole piece for each merge, which takes n² steps. Here every merge is done
everywhere at once: the pair learnt first goes first, and what it creates waits its turn.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from glassgpt.tokenizers.merging import LinkedTokens, Slots, pair_key


class LongPieceEncoder:
    """Does the `merges` (the first makes id `first_id`) in one piece of any length."""

    def __init__(self, merges: Sequence[tuple[int, int]], first_id: int) -> None:
        self.merges = merges
        self.first_id = first_id
        pairs = np.array(merges, dtype=np.int64).reshape(-1, 2)
        keys = pair_key(pairs[:, 0], pairs[:, 1])
        self._rank = np.argsort(keys)
        self._keys = keys[self._rank]

    def encode(self, byte_ids: np.ndarray) -> list[int]:
        """The ids that the piece with these ids of bytes is merged to."""
        text = LinkedTokens(byte_ids, np.array([len(byte_ids)]))
        waiting = self._learnt(text, text.pair_starts())
        heapq.heapify(waiting)
        while waiting:
            rank, slots = heapq.heappop(waiting)
            slots = text.occurrences(slots, *self.merges[rank])
            if len(slots):
                created = text.merge(slots, self.first_id + rank)
                for group in self._learnt(text, created):
                    heapq.heappush(waiting, group)
        return text.tokens().tolist()

    def _learnt(self, text: LinkedTokens, slots: Slots) -> list[tuple[int, Slots]]:
        """The pairs at `slots` that are among the merges, each as (its rank, its slots).

        No rank comes twice in a life: a pair begins to exist in one merge only, that of its younger token.
        """
        pairs, slots, starts = text.grouped(slots)
        if not len(self._keys) or not len(pairs):
            return []
        place = np.searchsorted(self._keys, pairs).clip(max=len(self._keys) - 1)
        ends = np.append(starts[1:], len(slots))
        return [
            (int(self._rank[place[group]]), slots[starts[group] : ends[group]])
            for group in np.flatnonzero(self._keys[place] == pairs)
        ]
