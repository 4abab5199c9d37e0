"""Which pairs become tokens: the merges of `by_hand.bpe.train`, thousands of times faster.

Three things make the difference. Equal pieces of text are counted once and merged once. All occurrences of a
pair are merged by a handful of array operations (see `merging`). And nothing is ever counted twice: once a
pair exists its count can only fall, so the count from its first day is an upper bound, and a heap ordered by
these bounds needs to recount only what comes to its top.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from glassgpt.tokenizers.ascii_pieces import ascii_pieces
from glassgpt.tokenizers.interface import each_text, split_special
from glassgpt.tokenizers.merging import LinkedTokens, Slots, pair_of
from glassgpt.tokenizers.pattern import chunks, cut

N_BYTES = 256
MAX_PIECES = 4_000_000
"""Most distinct pieces of text that are kept in mind at once, about half a gigabyte of them."""

_BATCH_CHARACTERS = 1 << 20  # so many are counted at once


def count_pieces(
    texts: str | Iterable[str], special_tokens: Iterable[str] = (), *, progress: bool = False
) -> Counter[str]:
    """How often each piece of the pattern occurs in `texts`; special tokens only divide them.

    Memory is bounded whatever the texts are: above MAX_PIECES distinct pieces the rarest are forgotten.
    Raises TokenizerError for text that is not text.
    """
    pieces: Counter[str] = Counter()
    words: Counter[str] = Counter()  # cutting costs more than counting, so words are counted before
    with tqdm(desc="counting", unit="char", unit_scale=True, disable=None if progress else True) as bar:
        for batch in _batches(texts, special_tokens):
            of_ascii, of_others = ascii_pieces(batch)
            pieces.update(of_ascii)
            words.update(of_others)
            if len(pieces) + len(words) > MAX_PIECES:
                _cut_words(words, pieces)
            bar.update(sum(map(len, batch)))
    _cut_words(words, pieces)
    return pieces


def _batches(texts: str | Iterable[str], special_tokens: Iterable[str]) -> Iterator[list[str]]:
    """`texts` without special tokens, in parts that can be cut each alone; together about a megabyte."""
    batch: list[str] = []
    size = 0
    for text in each_text(texts):
        for part in split_special(text, special_tokens)[::2]:
            for chunk in chunks(part, _BATCH_CHARACTERS):
                batch.append(chunk)
                size += len(chunk)
                if size >= _BATCH_CHARACTERS:
                    yield batch
                    batch, size = [], 0
    yield batch


def _cut_words(words: Counter[str], pieces: Counter[str]) -> None:
    """Move what was counted in `words` to the `pieces` that they are cut into."""
    for word, count in words.items():
        for piece in cut(word):
            pieces[piece] += count
    words.clear()
    rarest = 1
    while len(pieces) > MAX_PIECES:
        for piece in [piece for piece, count in pieces.items() if count <= rarest]:
            del pieces[piece]
        rarest *= 2


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
