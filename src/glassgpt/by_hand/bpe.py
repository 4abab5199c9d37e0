"""Byte-pair encoding with nothing hidden: what the tokenizers package does fast. Chapter 01.

Training (Sennrich et al. 2016, arXiv:1508.07909, algorithm 1, over bytes as in Radford et al. 2019 §2.2):
cut the texts into pieces, write each as its bytes, and again and again give the most frequent pair of
neighbours an id of its own. Everything is counted anew each time, which is why this is slow.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from glassgpt.tokenizers.pattern import cut

Pair = tuple[int, int]


def train(texts: Iterable[str], n_merges: int) -> list[Pair]:
    """The pairs that become ids 256, 257, …: most frequent first, of equals the smallest ids first."""
    pieces = Counter(piece for text in texts for piece in cut(text))
    words = {tuple(piece.encode("utf-8")): count for piece, count in pieces.items()}
    merges: list[Pair] = []
    while len(merges) < n_merges:
        pairs: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break  # every piece is one token: nothing is left to merge
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        words = {tuple(merge(word, best, 256 + len(merges))): count for word, count in words.items()}
        merges.append(best)
    return merges


def merge(ids: Iterable[int], pair: Pair, new_id: int) -> list[int]:
    """Put `new_id` for each `pair` in `ids`, from left to right: (a, a) in a a a leaves one a at the end."""
    merged: list[int] = []
    for token_id in ids:
        if merged and (merged[-1], token_id) == pair:
            merged[-1] = new_id
        else:
            merged.append(token_id)
    return merged


def encode(text: str, merges: list[Pair], byte_ids: Sequence[int] = range(256)) -> list[int]:
    """Cut `text`, and in each piece merge what was learnt first, until no learnt pair is left.

    `byte_ids[b]` is the id of byte b: GPT-2 numbers the bytes in another order.
    """
    rank = {pair: place for place, pair in enumerate(merges)}
    ids: list[int] = []
    for piece in cut(text):
        word = [byte_ids[byte] for byte in piece.encode("utf-8")]
        while learnt := [pair for pair in pairwise(word) if pair in rank]:
            first = min(learnt, key=lambda pair: rank[pair])
            word = merge(word, first, 256 + rank[first])
        ids += word
    return ids


def decode(ids: Iterable[int], merges: list[Pair]) -> str:
    """Open every id into the two that it was merged from, down to bytes."""
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return b"".join(tokens[token_id] for token_id in ids).decode("utf-8", errors="replace")
