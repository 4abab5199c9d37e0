"""Which pairs become tokens: the merges of `by_hand.bpe.train`, thousands of times faster.

Three things make the difference. Equal pieces of text are counted once and merged once. All occurrences of a
pair are merged by a handful of array operations (see `merging`). And nothing is ever counted twice: once a
pair exists its count can only fall, so the count from its first day is an upper bound, and a heap ordered by
these bounds needs to recount only what comes to its top.
"""

import heapq
from collections import Counter
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from glassgpt.tokenizers.merging import LinkedTokens, Slots, pair_of

N_BYTES = 256


def learn_merges(pieces: Counter[str], n_merges: int, *, progress: bool = False) -> list[tuple[int, int]]:
    """The pairs that become ids 256, 257, …: the most frequent first, of equals the smallest ids first.

    Fewer than `n_merges` when every piece has become one token before.
    """
    words = [piece.encode("utf-8") for piece in pieces]
    lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    text = LinkedTokens(np.frombuffer(b"".join(words), dtype=np.uint8), lengths)
    weight = np.repeat(np.fromiter(pieces.values(), dtype=np.int64, count=len(words)), lengths)

    def newborn(slots: Slots) -> Iterator[tuple[int, int, Slots]]:
        """The pairs at `slots` as (-count, pair, slots), best first."""
        pairs, slots, starts = text.grouped(slots)
        counts = np.add.reduceat(weight[slots], starts) if len(starts) else starts
        ends = np.append(starts[1:], len(slots))
        for place in np.argsort(-counts, kind="stable"):
            yield -int(counts[place]), int(pairs[place]), slots[starts[place] : ends[place]]

    # The heap holds the best pair of each litter, beside the litter that it came from.
    heap: list[tuple[tuple[int, int, Slots], Iterator[tuple[int, int, Slots]]]] = []

    def push_next(litter: Iterator[tuple[int, int, Slots]]) -> None:
        for best in litter:
            heapq.heappush(heap, (best, litter))
            return

    merges: list[tuple[int, int]] = []
    with tqdm(desc="merging", unit="merge", total=n_merges, disable=None if progress else True) as bar:
        push_next(newborn(text.pair_starts()))
        while heap and len(merges) < n_merges:
            (bound, pair, slots), litter = heapq.heappop(heap)
            push_next(litter)
            left, right = pair_of(pair)
            slots = text.occurrences(slots, left, right)
            count = int(weight[slots].sum())
            if count == 0:
                continue
            if count < -bound:
                heapq.heappush(heap, ((-count, pair, slots), iter(())))
                continue
            new_token = N_BYTES + len(merges)
            merges.append((left, right))
            push_next(newborn(text.merge(slots, new_token)))
            bar.update()
    return merges
