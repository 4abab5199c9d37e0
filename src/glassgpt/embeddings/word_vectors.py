"""Words and their vectors, and the questions one asks of them."""

import difflib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glassgpt.errors import ConfigError, DataError, TokenizerError, raise_problems

ROWS_AT_ONCE = 4096
SMALLEST_SQUARE = 1e-28  # of a float32 vector's length: below it the squares of its numbers lose digits
N_FREQUENT = 100_000  # where near spellings are looked for: word2vec files put frequent words first


class WordVectors:
    """n words, each with a vector of d numbers: row i of `vectors` belongs to `words[i]`.

    Similarity is the cosine of the angle between two vectors, a · b / (|a| |b|): 1 for the same direction, 0
    for a right angle. A vector of zeros has no direction; its similarity to everything is 0. Chapter 02.
    """

    def __init__(self, words: Sequence[str], vectors: ArrayLike) -> None:
        """Keep `vectors` as float32, without a copy where they are that already.

        An array of yours that is kept so must not change any more: the lengths are measured once, here.
        Raises DataError unless there is one vector for each word, no word comes twice, and all numbers are
        finite.
        """
        self.words = list(words)
        self.vectors: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32).view()
        self.vectors.flags.writeable = False
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.words) or not self.words:
            raise DataError(
                f"{len(self.words):,} words and vectors of shape {self.vectors.shape} do not go together. "
                "Give at least one word, and a matrix with one row for each."
            )
        self.index = {word: place for place, word in enumerate(self.words)}
        if len(self.index) < len(self.words):
            twice = next(word for place, word in enumerate(self.words) if self.index[word] != place)
            raise DataError(f"The word {twice!r} comes more than once. Give each word one vector.")
        # einsum sums the squares of a row in place, where np.linalg.norm would hold a second matrix.
        squares = np.einsum("nd,nd->n", self.vectors, self.vectors)
        self.norms: NDArray[np.float32] = np.sqrt(squares)
        # Rows for which float32 is too narrow: usually none, and what is computed with them takes float64.
        is_usual = (squares >= SMALLEST_SQUARE) & (squares < np.inf)
        self._extreme = np.flatnonzero(~is_usual)
        for rows in self._extreme_rows():
            norms = np.linalg.norm(self.vectors[rows].astype(np.float64), axis=1)
            if not np.isfinite(norms).all():
                wrong = self.words[rows[np.argmin(np.isfinite(norms))]]
                raise DataError(
                    f"The vector of {wrong!r} holds nan or infinity. Train or fetch the vectors again."
                )
            with np.errstate(over="ignore"):  # some are longer than any float32
                self.norms[rows] = norms
        self._divisors = np.where(is_usual, self.norms, np.float32(1))

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> NDArray[np.float32]:
        """The vector of `word`. Raises TokenizerError, naming near spellings, for a word without one."""
        return self.vectors[self._place(word)]

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} words × {self.vectors.shape[1]:,} numbers)"

    def similarity(self, a: str, b: str) -> float:
        """The cosine of the angle between the vectors of two words."""
        return float(self._unit(self._place(a)) @ self._unit(self._place(b)))

    def distance(self, a: str, b: str) -> float:
        """1 − similarity: from 0, the same direction, to 2, the opposite one."""
        return 1 - self.similarity(a, b)

    def nearest(self, query: str | ArrayLike, n: int = 10) -> list[tuple[str, float]]:
        """The `n` words most similar to a word, itself excepted, or to a vector; best first."""
        if isinstance(query, str):
            place = self._place(query)
            return self._closest(self.vectors[place], n, [place])
        direction = np.asarray(query, dtype=np.float64)
        if not np.isfinite(direction).all():
            raise DataError("The query holds nan or infinity, which is near to nothing. Give finite numbers.")
        if direction.shape != self.vectors.shape[1:]:
            raise DataError(
                f"A query of shape {direction.shape} cannot be compared with vectors of "
                f"{self.vectors.shape[1]:,} numbers. Give a word, or one vector of that many."
            )
        return self._closest(direction, n, [])

    def analogy(
        self, positive: Sequence[str], negative: Sequence[str] = (), n: int = 10
    ) -> list[tuple[str, float]]:
        """The `n` words most similar to the sum of some words' directions minus those of others.

        With positive = [king, woman] and negative = [man]: what is to woman as king is to man? Each vector is
        scaled to length 1 first, and the words of the question are no answers (3CosAdd: Mikolov et al. 2013,
        NAACL "Linguistic regularities"; Levy and Goldberg 2014, CoNLL §3).
        """
        _refuse_string(positive, "positive")
        _refuse_string(negative, "negative")
        places = self._places([*positive, *negative])
        if not places:
            raise ConfigError("An analogy needs words: both positive and negative are empty. Give some.")
        direction = np.zeros(self.vectors.shape[1])
        for number, place in enumerate(places):
            direction += self._unit(place) * (1 if number < len(positive) else -1)
        return self._closest(direction, n, sorted(set(places)))

    def odd_one_out(self, words: Sequence[str]) -> str:
        """The word whose direction fits the mean direction of all of them least."""
        _refuse_string(words, "words")
        places = self._places(words)
        if len(places) < 3:
            raise ConfigError(f"Of {len(places)} words none is the odd one. Give at least 3.")
        directions = np.stack([self._unit(place) for place in places])
        return words[int(np.argmin(directions @ directions.mean(axis=0)))]

    def _closest(
        self, direction: NDArray[np.floating], n: int, excluded: list[int]
    ) -> list[tuple[str, float]]:
        """All cosines at once: one product of the matrix with a vector, divided by the norms."""
        if n < 1:
            raise ConfigError(f"n={n} words cannot be listed. Give n of at least 1.")
        direction = direction / (float(np.abs(direction).max(initial=0)) or 1.0)  # or its square may be none
        direction = direction / (float(np.linalg.norm(direction)) or 1.0)
        with np.errstate(over="ignore", invalid="ignore"):  # in the extreme rows, which come anew
            scores = self.vectors @ direction.astype(np.float32)
            scores /= self._divisors
        for rows in self._extreme_rows():
            scores[rows] = self._units(rows) @ direction
        scores[excluded] = -np.inf
        n = min(n, len(self) - len(excluded))
        if n == 0:
            return []
        last = np.partition(scores, len(self) - n)[len(self) - n]
        best = np.flatnonzero(scores >= last)  # more than n where the last has equals
        best = best[np.argsort(-scores[best], kind="stable")][:n]  # of equal scores, the more frequent first
        return [(self.words[place], float(scores[place])) for place in best]

    def _extreme_rows(self) -> Iterator[NDArray[np.intp]]:
        """The places of vectors for which float32 is too narrow, some at a time."""
        for start in range(0, len(self._extreme), ROWS_AT_ONCE):
            yield self._extreme[start : start + ROWS_AT_ONCE]

    def _units(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        vectors = self.vectors[rows].astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms > 0, norms, 1)

    def _unit(self, place: int) -> NDArray[np.float64]:
        return self._units(np.array([place]))[0]

    def _place(self, word: str) -> int:
        return self._places([word])[0]

    def _places(self, words: Sequence[str]) -> list[int]:
        problems = [self._unknown(word) for word in words if word not in self.index]
        raise_problems(TokenizerError, problems, "The question")
        return [self.index[word] for word in words]

    def _unknown(self, word: str) -> str:
        guess = f"Did you mean {' or '.join(map(repr, near))}?" if (near := self._near(word)) else ""
        remedy = guess or "Ask `word in vectors` first, or train on text that has it."
        return f"{word!r} is not among the {len(self):,} words of these vectors. {remedy}"

    def _near(self, word: str) -> list[str]:
        """Known words that are spelt nearly like `word`: other capitals, another letter or two."""
        cases = dict.fromkeys([word.lower(), word.capitalize(), word.upper(), word.replace(" ", "_")])
        if known := [case for case in cases if case in self.index]:
            return known[:3]
        similar = [
            other
            for other in self.words[:N_FREQUENT]
            if abs(len(other) - len(word)) <= 2 and other[:1].lower() == word[:1].lower()
        ]
        return difflib.get_close_matches(word, similar, n=3)


def _refuse_string(words: Sequence[str], name: str) -> None:
    if isinstance(words, str):
        raise ConfigError(f"{name}={words!r} is one string. Give a list of words: [{words!r}].")
