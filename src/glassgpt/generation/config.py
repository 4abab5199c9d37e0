"""How the next token is chosen, and how long to go on: checked together before anything is generated."""

from dataclasses import dataclass
from typing import Literal

from glassgpt.checks import is_count, is_number
from glassgpt.errors import GenerationError, raise_problems


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What generation does with the model's logits; the defaults sample from the model as it is. Chapter 05.

    The settings act in the order repetition_penalty, temperature, top_k, top_p, min_p.
    Raises GenerationError naming every problem at once.
    """

    max_new_tokens: int = 200
    """The most tokens to generate for a prompt."""
    temperature: float = 1.0
    """Logits are divided by it: below 1 safer, above 1 wilder. 0: always the most probable token."""
    top_k: int | None = None
    """Only the k most probable tokens can be drawn (arXiv:1805.04833); those tied with the k-th stay."""
    top_p: float | None = None
    """Only the fewest tokens that together reach probability p can be drawn (arXiv:1904.09751)."""
    min_p: float | None = None
    """Only tokens at least min_p times as probable as the likeliest can be drawn (arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Above 1: tokens of the prompt and of the text so far become less probable (arXiv:1909.05858)."""
    seed: int | None = None
    """The same seed draws the same tokens; prompt i of a batch has seed + i. None: different every time."""
    stop: tuple[str, ...] = ()
    """A text ends before the first of these strings. Seen where text is generated, not bare token ids."""
    truncate: Literal["left"] | None = None
    """left: of a prompt longer than the context, only the end is read. None: it is an error."""
    speculate: bool = True
    """Where the text repeats itself, guess what follows and read it in the same step: the same tokens, but
    sooner. With a single prompt, where the C++ step decodes."""
    use_cache: bool = True
    """Keep keys and values of the tokens read. Without, each token reads all again: slow, and equal but
    for rounding."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, list):  # as JSON gives it
            object.__setattr__(self, "stop", tuple(self.stop))
        raise_problems(GenerationError, self._problems(), "The sampling configuration")

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise GenerationError when these settings ask for more tokens than the vocabulary has."""
        if self.top_k is not None and self.top_k > vocab_size:
            raise GenerationError(
                f"top_k={self.top_k:,} is above vocab_size={vocab_size:,}. "
                f"Choose 1 to {vocab_size:,}, or None."
            )

    def _problems(self) -> list[str]:
        problems = []
        if not is_count(self.max_new_tokens, 0):
            problems.append(f"max_new_tokens={self.max_new_tokens!r} must be a whole number of at least 0.")
        if not is_number(self.temperature) or self.temperature < 0:
            problems.append(
                f"temperature={self.temperature!r} must be at least 0; 0 always takes the likeliest token."
            )
        if self.top_k is not None and not is_count(self.top_k, 1):
            problems.append(f"top_k={self.top_k!r} must be a whole number of at least 1, or None.")
        if self.top_p is not None and (not is_number(self.top_p) or not 0 < self.top_p <= 1):
            problems.append(f"top_p={self.top_p!r} must be above 0 and at most 1, or None.")
        if self.min_p is not None and (not is_number(self.min_p) or not 0 <= self.min_p <= 1):
            problems.append(f"min_p={self.min_p!r} must be from 0 to 1, or None.")
        if not is_number(self.repetition_penalty) or not 0.01 <= self.repetition_penalty <= 100:
            problems.append(
                f"repetition_penalty={self.repetition_penalty!r} must be from 0.01 to 100; 1 changes "
                f"nothing, 1.2 is usual."
            )
        if self.seed is not None and (not is_count(self.seed, 0) or self.seed >= 2**63):
            problems.append(f"seed={self.seed!r} must be a whole number from 0 to 2**63 - 1, or None.")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) for text in self.stop):
            problems.append(f"stop={self.stop!r} must be a tuple of strings, as in stop=('\\n\\n',).")
        elif "" in self.stop:
            problems.append(f"stop={self.stop!r} has an empty string, which would end every text at once.")
        if self.truncate not in (None, "left"):
            problems.append(f"truncate={self.truncate!r} must be 'left' or None.")
        if not isinstance(self.speculate, bool):
            problems.append(f"speculate={self.speculate!r} must be True or False.")
        if not isinstance(self.use_cache, bool):
            problems.append(f"use_cache={self.use_cache!r} must be True or False.")
        return problems
