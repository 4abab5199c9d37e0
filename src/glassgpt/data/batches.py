"""Batches as a pure function of (seed, step, rank): there is no state to save, and none to get wrong.

The tokens are cut into windows of `context_length` + 1 that share their end tokens. In each epoch every
window comes once, in an order of its own, and the cuts lie elsewhere, so that no token is always the first
of its window, which sees nothing before it.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from glassgpt.data.permutation import permute, scramble
from glassgpt.data.token_array import TokenArray, check_ids
from glassgpt.errors import ConfigError, DataError, TokenizerError, raise_problems

WINDOWS_AT_ONCE = 4096
"""How many windows' places are computed together: for those of one batch it takes longer than to read it."""

TOKENS_AT_ONCE = 2**15
"""About how many tokens are read together: for a small batch alone, asking takes longer than reading."""

Batch = tuple[Int64[Tensor, "B T"], Int64[Tensor, "B T"]]


class _Order:
    """Which window is which: sample number → place of the window's first token."""

    def __init__(self, n_tokens: int, context_length: int, seed: int) -> None:
        self.context_length = context_length
        self.key = scramble(np.uint64(seed % 2**64))
        # One window fewer than would fit, so that the cuts can move; from the first phase to the last they
        # reach from the first token to the last.
        self.n_windows = max(1, n_tokens // context_length - 1)
        self.n_phases = n_tokens - self.n_windows * context_length
        # A stride without a common divisor visits every phase before one returns; the golden ratio keeps
        # neighbouring epochs far apart.
        golden = range(round(0.618 * self.n_phases), 2 * self.n_phases)
        self.phase_stride = next(stride for stride in golden if math.gcd(stride, self.n_phases) == 1)
        self.first_phase = int(self.key % np.uint64(self.n_phases))

    def starts(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        epoch, place = np.divmod(samples, self.n_windows)
        phase = (self.first_phase + epoch * self.phase_stride) % self.n_phases
        window = permute(place, self.n_windows, scramble(self.key ^ scramble(epoch)))
        return phase + window * self.context_length


class Batches:
    """`batch(step)` for one rank: token ids and, one place further, the targets.

    Who asks for one step after another gets small batches that were read together. No number of one belongs
    to another, but they lie in one piece of memory, which is given back with the last of them.

    All ranks together take the next `world_size` × `micro_batch_size` windows of the epoch's order at each
    step; where an epoch ends inside a batch, the rest comes from the next. `vocab_size` is the bound that
    the ids are checked against; None takes that of the tokens, where they know it.

    Raises DataError if the tokens are fewer than `context_length` + 1, ConfigError for sizes that make no
    sense.
    """

    def __init__(
        self,
        tokens: TokenArray | NDArray[np.integer],
        *,
        context_length: int,
        micro_batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        vocab_size: int | None = None,
    ) -> None:
        problems = [
            f"{name}={value!r} must be at least 1."
            for name, value in [
                ("context_length", context_length),
                ("micro_batch_size", micro_batch_size),
                ("world_size", world_size),
            ]
            if value < 1
        ]
        if not 0 <= rank < world_size:
            problems.append(f"rank={rank} is not in 0 … world_size − 1 = {world_size - 1}.")
        raise_problems(ConfigError, problems, "The batches' configuration")
        self.tokens = TokenArray.of(tokens, vocab_size)
        self.context_length = context_length
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.world_size = world_size
        _check_length(len(self.tokens), context_length, "The text", "Use more text")
        self._order = _Order(len(self.tokens), context_length, seed)
        self._block: tuple[int, NDArray[np.int64]] = -1, np.empty((0, micro_batch_size), np.int64)
        self._n_together = max(1, TOKENS_AT_ONCE // (micro_batch_size * context_length))
        self._newest = -1  # the step last asked for
        self._ahead: dict[int, Batch] = {}  # of the steps behind it; each is given away once

    @property
    def windows_per_epoch(self) -> int:
        """Windows that an epoch goes through, all ranks together."""
        return self._order.n_windows

    def batch(self, step: int) -> Batch:
        """The token ids of `step`, and the ids that follow them.

        Raises TokenizerError for an id outside the vocabulary.
        """
        if step < 0:
            raise ConfigError(f"step={step} is below 0; steps count from 0.")
        is_next, self._newest = step == self._newest + 1, step
        if (batch := self._ahead.pop(step, None)) is not None:
            return batch
        n_steps = self._n_together if is_next else 1
        try:
            batch, *others = self._read(step, n_steps)
        except TokenizerError:
            if n_steps == 1:
                raise
            batch, *others = self._read(step, 1)  # the id may be of a later step, which may never come
        self._ahead = dict(enumerate(others, step + 1))
        return batch

    def _read(self, step: int, n_steps: int) -> list[Batch]:
        """The batches of `step` and those behind it, at most `n_steps`."""
        starts = self._starts(step, n_steps)  # (steps, B)
        pair = _inputs_and_targets(self.tokens, starts.ravel(), self.context_length)
        token_ids, targets = pair.reshape(2, *starts.shape, self.context_length)
        # Each a tensor of its own, which PyTorch does not know to lie beside the others.
        return list(zip(map(torch.from_numpy, token_ids), map(torch.from_numpy, targets), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_ahead": {}}

    def _starts(self, step: int, n_steps: int) -> NDArray[np.int64]:
        """Where the windows of `step` and of those behind it begin, a row each: at most `n_steps` rows.

        Those of all steps around are computed with them and kept.
        """
        n_computed = -(-WINDOWS_AT_ONCE // self.micro_batch_size)
        number, place = divmod(step, n_computed)
        block = self._block
        if block[0] != number:
            steps = np.arange(number * n_computed, (number + 1) * n_computed)
            first = (steps * self.world_size + self.rank) * self.micro_batch_size  # (steps,)
            samples = first[:, None] + np.arange(self.micro_batch_size)  # (steps, B)
            block = self._block = number, self._order.starts(samples.ravel()).reshape(samples.shape)
        return block[1][place : place + n_steps]


def eval_windows(
    tokens: TokenArray | NDArray[np.integer],
    context_length: int,
    n_windows: int | None = None,
    *,
    vocab_size: int | None = None,
) -> Batch:
    """At most `n_windows` windows, evenly spaced and without overlap: the same ones at every evaluation.

    None takes all that there are. Raises DataError if not one fits.
    """
    tokens = TokenArray.of(tokens, vocab_size)
    _check_length(
        len(tokens), context_length, "The held-out text", "Hold out more (prepare with a larger val_fraction)"
    )
    n_all = (len(tokens) - 1) // context_length
    n_taken = n_all if n_windows is None else min(n_windows, n_all)
    if n_taken < 1:
        raise ConfigError(f"n_windows={n_windows} must be at least 1, or None for all.")
    starts = np.arange(n_taken) * n_all // n_taken * context_length
    token_ids, targets = _inputs_and_targets(tokens, starts, context_length)
    return torch.from_numpy(token_ids), torch.from_numpy(targets)


def _inputs_and_targets(
    tokens: TokenArray, starts: NDArray[np.int64], context_length: int
) -> NDArray[np.int64]:
    """(2, B, T): the ids of each window, and those that follow them."""
    windows = tokens.windows(starts, context_length + 1)  # (B, T + 1)
    if tokens.vocab_size is not None:
        check_ids(windows, tokens.vocab_size)
    pair = np.empty((2, len(starts), context_length), np.int64)
    pair[0], pair[1] = windows[:, :-1], windows[:, 1:]
    return pair


def _check_length(n_tokens: int, context_length: int, text: str, remedy: str) -> None:
    if n_tokens < context_length + 1:
        if n_tokens > 1:
            remedy += f", or use a context_length of at most {n_tokens - 1:,}"
        raise DataError(
            f"{text} has {n_tokens:,} tokens; context_length={context_length:,} needs at least "
            f"{context_length + 1:,}. {remedy}."
        )
