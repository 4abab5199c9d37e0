"""What a text may go on with, guessed from the text itself: names return, code repeats, small models loop.

A guess costs next to nothing, and less to check than a step: while that waits for the weights, it can read
some tokens more. If they were right, the next steps have been taken already; if not, nothing of them is
used. This is speculative decoding (Leviathan et al. 2023, arXiv:2211.17192) with the text itself in place of
a small model, known as prompt lookup or n-gram speculation.
"""

from collections import deque
from statistics import median

_LENGTHS = (8, 4, 2)
_MOST = 7  # with the newest token two blocks of four, in which the C++ step multiplies
_RATE = 0.1
_MOST_KEPT = 2**16  # of a longer text the older half is forgotten
_COST_AT_FIRST, _LEAST_COST = 0.35, 0.02
_ENOUGH = 9
"""Comparisons whose median is the cost of a guess."""
_NEIGHBOURS = 16
"""At most so many steps ago there was the one without guesses that others are compared with."""
_EVERY = 64
"""Of so many times that no guess is worth reading one is read at the last."""


class Guesser:
    """Guesses what follows a text: what followed its last 8, 4 or 2 tokens when they stood in it before.

    How many are worth reading is decided by how often that was right lately, for each of the lengths, and by
    what reading one more costs: `took` is to be told the time of each step. Hits are counted also while
    nothing is read, so that guessing begins again where the text begins to repeat itself.
    """

    def __init__(self, token_ids: list[int]) -> None:
        self.cost = _Cost()
        self.n_passed = 0  # times that none was worth reading
        self.text: list[int] = []
        self.ends: dict[tuple[int, ...], int] = {}  # where the latest of the same runs of tokens ends
        self.hits = dict.fromkeys(_LENGTHS, 0.5)
        self.length, self.start = 0, 0  # the run that was found, and the place behind its earlier occurrence
        for token_id in token_ids:
            self._enter(token_id)

    def append(self, token_id: int) -> None:
        """Learn what followed in truth."""
        if self.length:
            hit = self.text[self.start] == token_id
            self.hits[self.length] += _RATE * (hit - self.hits[self.length])
        self._enter(token_id)

    def guess(self, most: int) -> list[int]:
        """The tokens worth reading ahead, `most` at most; often none. One in 64 that are not is read all the
        same, to learn what it costs by now."""
        guessed: list[int] = []
        if self.length:
            for place in range(self.start, self.start + self._n_worth_reading(min(most, _MOST))):
                beyond = place - len(self.text)  # there stand the guesses, which so go round in a circle
                guessed.append(self.text[place] if beyond < 0 else guessed[beyond])
        return guessed

    def took(self, n_guesses: int, seconds: float) -> None:
        """How long a step took that read so many guesses along."""
        self.cost.took(n_guesses, seconds)

    def _n_worth_reading(self, most: int) -> int:
        """With how many guesses a step brings the most tokens in its time, if not the one in 64."""
        n, cost, hits = 0, self.cost.of_one, self.hits[self.length]
        tokens, chance = 1.0, hits  # that are expected of the step; that the next guess is right as well
        while n < most and (tokens + chance) / (1 + cost * (n + 1)) > tokens / (1 + cost * n):
            n, tokens, chance = n + 1, tokens + chance, chance * hits
        if n == 0 < most:
            self.n_passed += 1
            return int(self.n_passed % _EVERY == 0)
        return n

    def _enter(self, token_id: int) -> None:
        if len(self.text) == _MOST_KEPT:
            kept, self.text, self.ends = self.text[_MOST_KEPT // 2 :], [], {}
            for earlier in kept:
                self._enter(earlier)
        self.text.append(token_id)
        self.length = 0
        for length in _LENGTHS:
            if length > len(self.text):
                continue
            run = tuple(self.text[-length:])
            if not self.length and run in self.ends:
                self.length, self.start = length, self.ends[run]
            self.ends[run] = len(self.text)


class _Cost:
    """What it costs to read a guess along, as a share of a step that reads none: 5 to 40%, by the weights'
    type and by what the memory gives at the moment, and more where the weights lie in a cache.

    A machine's speed can double or halve within seconds: so steps are compared with one of just before. The
    step behind guesses counts with them, as it may find less in the processor's cache.
    """

    def __init__(self) -> None:
        self.of_one = _COST_AT_FIRST
        self.shares: deque[float] = deque([_COST_AT_FIRST] * 3, maxlen=_ENOUGH)
        self.plain: float | None = None  # the time of a step that read none
        self.age = 0  # how many steps ago that was
        self.n_guesses = self.n_steps = 0  # since the last step that read none
        self.seconds = 0.0

    def took(self, n_guesses: int, seconds: float) -> None:
        self.age += 1
        self.n_guesses += n_guesses
        self.n_steps += 1
        self.seconds += seconds
        if n_guesses:
            return
        if self.n_guesses and self.plain and self.age <= _NEIGHBOURS:
            self.shares.append((self.seconds / self.plain - self.n_steps) / self.n_guesses)
            self.of_one = max(_LEAST_COST, median(self.shares))
        else:
            self.plain, self.age = seconds, 0
        self.n_guesses = self.n_steps = 0
        self.seconds = 0.0
