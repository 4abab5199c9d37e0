"""What the next token is computed from: each row's window, read with or without a cache.

A row's window is its prompt and the tokens generated since, at most context_length of them. When a full
window must take another token, its older half (rounded up) is dropped, and what is left is read again
from position 0. A model whose positions are learned has no other right way: a token's keys and values
carry the position that it was read at, and there is none beyond the last. Half, because the re-read then
happens once in context_length / 2 tokens; dropping one token at a time would repeat it for each of them.

A window depends on its own row only, so a batch gives what each of its prompts gives alone.
"""

import contextlib
import time

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassgpt.decoding import (
    MOST_PACKED_ROWS,
    CompiledStep,
    NativeStep,
    PromptKernels,
    forget_copies,
    why_not_compiled,
    why_not_native,
)
from glassgpt.decoding.attention_kernels import attention_without_plans
from glassgpt.generation.guessing import Guesser
from glassgpt.model.gpt import GPT
from glassgpt.model.kv_cache import KVCache
from glassgpt.model.modes import evaluating


class WindowReader:
    """Reads every row's whole window for every token: nothing to get wrong, and slow.

    While PyTorch runs the model, the model is in eval mode, and afterwards as before; the C++ step knows no
    dropout.
    """

    def __init__(self, model: GPT, prompts: list[list[int]]) -> None:
        self.model, self.modules = model, list(model.modules())
        self.context_length = model.config.context_length
        self.device = model.head.weight.device
        self.windows = [list(prompt) for prompt in prompts]

    def append(self, token_ids: list[int]) -> None:
        """Add one token to each row's window, which loses its older half when it is full."""
        for window, token_id in zip(self.windows, token_ids, strict=True):
            if len(window) == self.context_length:
                del window[: self.context_length - self.context_length // 2]
            window.append(token_id)

    def next_logits(self) -> Float[Tensor, "B V"]:
        """The scores of the token that follows each window."""
        return torch.cat([self._read([window]) for window in self.windows])

    def read_ahead(self, newest: Int[Tensor, " B"]) -> Float[Tensor, "B V"] | None:
        """The scores of the token behind `newest`, ids on the model's device that are appended only later.

        None where they have to be appended first: here always.
        """
        return None

    def _read(self, rows: list[list[int]] | Tensor, cache: KVCache | None = None) -> Float[Tensor, "B V"]:
        with evaluating(self.model, self.modules):
            with kernels_for(self.device):
                hidden = self.model.hidden(torch.as_tensor(rows, device=self.device), cache)
            return self.model.head(hidden[:, -1])  # the head is large, and only the last position is wanted


class CachedWindowReader(WindowReader):
    """Reads the prompts once, then one token of each row at a time.

    All rows share the cache's columns, newest token rightmost; a row with fewer tokens than columns is
    padded on the left. A row that drops its older half is read again alone, into the same columns.

    With `speculate`, the C++ step reads guessed tokens of a single prompt along with the newest one. Those
    that turn out right are read already, and with the same bits: the step computes each token as if alone.
    """

    def __init__(
        self, model: GPT, prompts: list[list[int]], max_new_tokens: int, speculate: bool = False
    ) -> None:
        super().__init__(model, prompts)
        # The newest token of all is never read, but a window of one token still needs a column.
        n_columns = max(len(prompt) for prompt in prompts) + max_new_tokens
        self.step = _faster_step(model, max_new_tokens if len(prompts) <= MOST_PACKED_ROWS else 0)
        if isinstance(self.step, CompiledStep):
            n_columns = self.step.n_columns(n_columns, self.context_length)
        self.cache = self._empty_cache(len(prompts), min(n_columns, self.context_length))
        self.shortened: list[int] = []  # rows whose cached keys and values no longer fit their window
        self.guesser: Guesser | None = None
        if speculate and len(prompts) == 1 and isinstance(self.step, NativeStep):
            self.guesser = Guesser(prompts[0])
        self.n_wanted = max_new_tokens  # that have yet to be drawn
        # Guesses that stand in the cache behind its n_tokens, each with the logits (1, V) of what follows it.
        self.guesses: list[tuple[int, Tensor]] = []

    def append(self, token_ids: list[int]) -> None:
        self.n_wanted -= 1
        if self.guesser is not None:
            self.guesser.append(token_ids[0])
        if self.guesses and self.guesses[0][0] != token_ids[0]:
            self.guesses = []
        self.shortened = [
            row for row, window in enumerate(self.windows) if len(window) == self.context_length
        ]
        super().append(token_ids)

    def next_logits(self) -> Float[Tensor, "B V"]:
        if self.cache.n_tokens == 0:
            return self._read_prompts()
        if self.shortened:
            self._make_room()
        if self.guesses:
            self.cache.advance(1)
            return self.guesses.pop(0)[1]
        return self._read_newest()

    def read_ahead(self, newest: Int[Tensor, " B"]) -> Float[Tensor, "B V"] | None:
        """On a CUDA GPU, while no window is full: a full one has to drop its older half first."""
        if isinstance(self.step, NativeStep) or not runs_ahead(self.device):
            return None
        if any(len(window) == self.context_length for window in self.windows):
            return None
        if self.step is not None:
            return self.step.logits(newest, self.cache)
        return self._read(newest[:, None], self.cache)

    def _read_prompts(self) -> Float[Tensor, "B V"]:
        n_columns = max(len(window) for window in self.windows)
        self._set_padding(n_columns, [len(window) for window in self.windows])
        rows = [[0] * (n_columns - len(window)) + window for window in self.windows]
        if self.step is None:
            return self._read(rows, self.cache)
        if n_columns > 1:
            self._prefill([row[:-1] for row in rows], self.cache)
        return self._read_newest()

    def _prefill(self, rows: list[list[int]], cache: KVCache) -> None:
        # What the C++ step serves has no hooks, and our blocks. Else all of the model has to run.
        read = self.model.prefill if isinstance(self.step, NativeStep) else self.model.hidden
        with evaluating(self.model, self.modules), kernels_for(self.device):
            read(torch.tensor(rows, device=self.device), cache)

    def _read_newest(self) -> Float[Tensor, "B V"]:
        newest = [window[-1] for window in self.windows]
        if self.guesser is not None:
            return self._read_guesses(newest)
        if self.step is not None:
            return self.step.logits(newest, self.cache)
        return self._read([[token_id] for token_id in newest], self.cache)

    def _read_guesses(self, newest: list[int]) -> Float[Tensor, "1 V"]:
        assert isinstance(self.step, NativeStep)
        assert self.guesser is not None
        n_tokens = self.cache.n_tokens + 1
        guesses = self.guesser.guess(most=min(self.cache.max_tokens - n_tokens, self.n_wanted - 1))
        start = time.perf_counter()
        logits = self.step.logits(newest + guesses, self.cache, n_new=1 + len(guesses))
        self.guesser.took(len(guesses), time.perf_counter() - start)
        if not guesses:
            return logits
        self.cache.n_tokens = n_tokens  # the guesses have yet to turn out right
        first, *behind = logits.split(1)
        self.guesses = list(zip(guesses, behind, strict=True))
        return first

    def _make_room(self) -> None:
        """Read the shortened windows again, into the rightmost columns; drop what is now padding in all rows.

        A window was full, so every column is taken; only in the shortened rows was the first a real token.
        """
        n_cached = [len(window) - 1 for window in self.windows]  # the newest tokens are yet to be read
        end = self.cache.n_tokens
        if n_kept := self.context_length // 2:
            fresh = self._empty_cache(len(self.shortened), n_kept)
            self._prefill([self.windows[row][:-1] for row in self.shortened], fresh)
            self.cache.keys[:, self.shortened, :, end - n_kept : end] = fresh.keys
            self.cache.values[:, self.shortened, :, end - n_kept : end] = fresh.values

        longest = max(n_cached)
        for tensor in (self.cache.keys, self.cache.values):
            for layer in tensor:  # (B, G, S, Dh); the copy of one layer needs less memory than that of all
                layer[:, :, :longest] = layer[:, :, end - longest : end].clone()
        self.cache.n_tokens = longest
        self._set_padding(longest, n_cached)

    def _set_padding(self, n_columns: int, n_tokens: list[int]) -> None:
        padding = [n_columns - n for n in n_tokens]
        # Without padding attention needs no mask, and takes a faster kernel.
        self.cache.n_padding = torch.tensor(padding, device=self.device) if any(padding) else None

    def _empty_cache(self, n_rows: int, max_tokens: int) -> KVCache:
        # Norms and biases are of the activations' type, whatever the matrices are.
        vectors = (parameter for parameter in self.model.parameters() if parameter.ndim == 1)
        dtype = next((vector.dtype for vector in vectors), torch.float32)
        # Of a long text they are soon as much to read for each token as weights in fewer bits. The C++ step
        # widens them in registers; PyTorch would have to write all of them anew.
        if isinstance(self.step, NativeStep) and self.model.head.weight.dtype != dtype:
            dtype = torch.bfloat16
        return KVCache(self.model.config, n_rows, max_tokens, device=self.device, dtype=dtype)


def kernels_for(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Inside, PyTorch takes the kernels that are the fastest for lengths it has not met yet."""
    if device.type == "cpu":
        return PromptKernels()
    return attention_without_plans() if device.type == "cuda" else contextlib.nullcontext()


def runs_ahead(device: torch.device) -> bool:
    """Whether Python can ask `device` for the next thing while it is busy with the last."""
    return device.type == "cuda"


def _faster_step(model: GPT, n_tokens: int) -> NativeStep | CompiledStep | None:
    """What decodes `model` faster than PyTorch does by itself, where there is something."""
    if why_not_native(model) is None:
        return NativeStep(model, n_tokens)
    forget_copies(model)
    return CompiledStep(model) if why_not_compiled(model) is None else None
