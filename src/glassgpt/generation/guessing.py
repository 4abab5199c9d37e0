"""What a text may go on with, guessed from the text itself: names return, code repeats, small models loop.

A guess costs next to nothing, and less to check than a step: while that waits for the weights, it can read
some tokens more. If they were right, the next steps have been taken already; if not, nothing of them is
used. This is speculative decoding (Leviathan et al. 2023, arXiv:2211.17192) with the text itself in place of
a small model, known as prompt lookup or n-gram speculation.
"""

_LENGTHS = (8, 4, 2)
_MOST = 7  # with the newest token two blocks of four, in which the C++ step multiplies
_WORTH_READING = 0.35  # a token more takes 5 to 40% of a step, by the weights' type and the memory's speed
_RATE = 0.1
_MOST_KEPT = 2**16  # of a longer text the older half is forgotten


class Guesser:
    """Guesses what follows a text: what followed its last 8, 4 or 2 tokens when they stood in it before.

    How often that was right lately, for each of the lengths, decides how many tokens are worth reading. It is
    counted also while none is, so that guessing begins again where the text begins to repeat itself.
    """

    def __init__(self, token_ids: list[int]) -> None:
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
        """The tokens worth reading ahead, `most` at most; often none."""
        guessed: list[int] = []
        if self.length:
            chance = self.hits[self.length]
            while len(guessed) < min(most, _MOST) and chance >= _WORTH_READING:
                place = self.start + len(guessed)
                beyond = place - len(self.text)  # there stand the guesses, which so go round in a circle
                guessed.append(self.text[place] if beyond < 0 else guessed[beyond])
                chance *= self.hits[self.length]
        return guessed

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
