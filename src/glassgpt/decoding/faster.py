"""Which of two ways to compute the same is faster here and now, found out while they are used."""

from collections import deque
from statistics import median

_ENOUGH = 5
"""Comparisons whose median decides."""
_EVERY = 64
"""Of so many uses one tries the way that is slower, so far as is known."""


class FasterOfTwo:
    """Two ways, the first and the second: ask `takes_first` before each use, and tell `took` its time.

    Only neighbouring uses of different ways are compared, as what a machine gives can double or halve within
    seconds, for both. Both are used in turns until enough is known; then the faster one is, and the
    other now and then. (Where the data of one fits into a cache but not that of both, a change of ways
    finds it cold: then the way in use keeps a small advantage.)
    """

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=_ENOUGH)  # the first way's time over the second's
        self._last: tuple[bool, float] | None = None  # was it the first way, and how long did it take?
        self._n_uses = 0

    def takes_first(self) -> bool:
        """Whether to use the first way now."""
        if len(self._ratios) < _ENOUGH:
            return self._last is None or not self._last[0]
        self._n_uses += 1
        is_trial = self._n_uses % _EVERY == 0
        return (median(self._ratios) < 1) != is_trial

    def took(self, first: bool, seconds: float) -> None:
        """Which way was used, and its time, above 0."""
        if self._last and self._last[0] != first:
            ratio = seconds / self._last[1]
            self._ratios.append(ratio if first else 1 / ratio)
        self._last = first, seconds
