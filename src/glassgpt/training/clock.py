"""How long a run has taken, how fast it is, and when its time is over."""

import contextlib
import math
import time
from collections.abc import Iterator


class Clock:
    """Counts on from `seconds_before`, what the run took before it was interrupted."""

    def __init__(self, seconds_before: float, max_minutes: float | None) -> None:
        self._before = seconds_before
        self._started = time.monotonic()
        self._limit = math.inf if max_minutes is None else 60 * max_minutes
        self._lap_tokens, self._lap_started, self._lap_paused = 0, self._started, 0.0

    def seconds(self) -> float:
        """Since the run began, the time when it lay still not counted."""
        return self._before + time.monotonic() - self._started

    def is_over(self) -> bool:
        """Whether `max_minutes` have passed since this start."""
        return time.monotonic() - self._started >= self._limit

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count as training, for the speed."""
        begun = time.monotonic()
        yield
        self._lap_paused += time.monotonic() - begun

    def count(self, n_tokens: int) -> None:
        """So many more tokens have been trained on."""
        self._lap_tokens += n_tokens

    def tokens_per_second(self) -> float:
        """The speed of training since the last time this was asked."""
        now = time.monotonic()
        speed = self._lap_tokens / max(now - self._lap_started - self._lap_paused, 1e-9)
        self._lap_tokens, self._lap_started, self._lap_paused = 0, now, 0.0
        return speed
