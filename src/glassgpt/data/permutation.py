"""A shuffle of n things that is computed one place at a time, so that it needs no memory.

A Feistel network turns a number of w bits into another, one to one, whatever its round function is: each
round changes one half by something computed from the other, which can be undone. Numbers below n are
encrypted until they fall below n again (cycle walking; Black and Rogaway 2002, "Ciphers with arbitrary
finite domains", §3), which makes it a permutation of 0 … n − 1.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_ROUNDS = 6
_ROUNDS = np.arange(N_ROUNDS, dtype=np.uint64)[:, None]


def scramble(x: ArrayLike) -> NDArray[np.uint64]:
    """A 64-bit number in which each bit depends on all bits of `x` (the finaliser of SplitMix64)."""
    z = np.asarray(x, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2⁶⁴ is meant
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def permute(places: ArrayLike, n: int, keys: ArrayLike) -> NDArray[np.int64]:
    """Where each of a row of `places` in 0 … n − 1 goes under the permutation that its key selects."""
    x, keys = np.broadcast_arrays(np.asarray(places, np.uint64), np.asarray(keys, np.uint64))
    n_bits = max(1, (n - 1).bit_length())
    x = _encrypt(x, n_bits, keys)
    while (walking := x >= n).any():
        x[walking] = _encrypt(x[walking], n_bits, keys[walking])
    return x.astype(np.int64)


def _encrypt(x: NDArray[np.uint64], n_bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One to one on numbers of `n_bits`: each round XORs one half with a function of the other."""
    n_low = np.uint64(n_bits // 2)
    low_mask = (np.uint64(1) << n_low) - np.uint64(1)
    high_mask = (np.uint64(1) << np.uint64(n_bits - n_bits // 2)) - np.uint64(1)
    low, high = x & low_mask, x >> n_low
    round_keys = scramble(_ROUNDS ^ keys)  # (rounds, places)
    for n_round, key in enumerate(round_keys):
        if n_round % 2:
            low = low ^ (scramble(key ^ high) & low_mask)
        else:
            high = high ^ (scramble(key ^ low) & high_mask)
    return (high << n_low) | low
