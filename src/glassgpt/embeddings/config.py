"""How word vectors are trained: every setting, checked together."""

from dataclasses import dataclass

from glassgpt.checks import is_count, is_number, is_positive
from glassgpt.errors import ConfigError, raise_problems


@dataclass(frozen=True, kw_only=True)
class SkipGramConfig:
    """How word vectors are trained. The defaults are word2vec's own."""

    d_vector: int = 100
    """Numbers in a vector."""
    window: int = 5
    """Neighbours are at most so many words away; the distance is drawn anew for each word, 1 to `window`."""
    n_negatives: int = 5
    """Words drawn from the noise for each pair."""
    min_count: int = 5
    """Rarer words are left out of the text."""
    subsample: float = 1e-3
    """Words with a larger share of the text are dropped at random, the more the more frequent. 0: never."""
    noise_power: float = 0.75
    """Noise is drawn as count to this power (arXiv:1310.4546 §2.2)."""
    n_epochs: int = 5
    """Passes over the text."""
    lr: float = 0.025
    """Learning rate at the beginning; it falls linearly."""
    min_lr: float = 1e-4
    """Learning rate at the end."""
    batch_pairs: int | None = None
    """Pairs whose gradients are taken at the same weights and then all applied. None: 256, and fewer for a
    vocabulary below 1,536 words, whose rows would otherwise be moved too often at once."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError naming every setting that is out of range."""
        problems = [
            f"{name}={getattr(self, name)!r} must be a whole number of at least 1."
            for name in ("d_vector", "window", "n_negatives", "min_count", "n_epochs")
            if not is_count(getattr(self, name), 1)
        ]
        problems += [
            f"{name}={getattr(self, name)!r} must be a positive number."
            for name in ("lr", "min_lr")
            if not is_positive(getattr(self, name))
        ]
        if not problems and self.min_lr > self.lr:
            problems.append(f"min_lr={self.min_lr!r} is above lr={self.lr!r}, and the rate can only fall.")
        problems += [
            f"{name}={getattr(self, name)!r} must be a number of at least 0."
            for name in ("subsample", "noise_power")
            if not is_number(getattr(self, name)) or getattr(self, name) < 0
        ]
        if self.batch_pairs is not None and not is_count(self.batch_pairs, 1):
            problems.append(f"batch_pairs={self.batch_pairs!r} must be at least 1, or None.")
        if not is_count(self.seed, 0):
            problems.append(f"seed={self.seed!r} must be a whole number of at least 0.")
        raise_problems(ConfigError, problems, "SkipGramConfig")
