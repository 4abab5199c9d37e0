"""One new token for each row: logits are read, checked, and ids drawn from them.

A CPU takes one token after the other. A CUDA GPU is asked for the next one before the last has come back: ids
are read where they were drawn, and copies of them follow while the next ones are computed. So the GPU
does not wait for Python, and Python waits once a token, for ids that are mostly there by then. (Only when a
window is full, or without a cache, is one token waited for before the next is asked for.)
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassgpt.decoding.native import lay_in_rows
from glassgpt.decoding.servable import why_not_native
from glassgpt.errors import GenerationError
from glassgpt.generation.config import SamplingConfig
from glassgpt.generation.sampling import next_tokens, row_generators, seen_tokens
from glassgpt.generation.window import CachedWindowReader, WindowReader, runs_ahead
from glassgpt.model.gpt import GPT


class Drawer:
    """Draws the next token of every row, for prompts that fit the context.

    The model runs as it is, without dropout or gradients; between two tokens it is as the caller left it:
    a generator that waits, or is never finished, must hold on to nothing.
    """

    def __init__(
        self, model: GPT, prompts: list[list[int]], sampling: SamplingConfig, vocab_size: int
    ) -> None:
        self.sampling, self.vocab_size = sampling, vocab_size
        with torch.inference_mode():
            if sampling.use_cache:
                self.reader: WindowReader = CachedWindowReader(
                    model, prompts, sampling.max_new_tokens, sampling.speculate
                )
            else:
                self.reader = WindowReader(model, prompts)
                if why_not_native(model) is None:  # or another thread would, while this one reads the weights
                    lay_in_rows(model)
            self.seen = None
            if sampling.repetition_penalty != 1:
                self.seen = seen_tokens(prompts, vocab_size, self.reader.device)
        self.generators = row_generators(sampling.seed, len(prompts))
        self.n_started = 0
        self.upcoming: _Drawn | None = None

    def draw(self, more: bool) -> list[int]:
        """The ids that follow all that was appended; append them before the next call.

        `more`: there will be one, so that a GPU can begin with it. Raises GenerationError for logits that
        are no numbers.
        """
        with torch.inference_mode():
            drawn = self.upcoming or self._start(self.reader.next_logits())
            self.upcoming = None
            if more and (logits := self.reader.read_ahead(drawn.token_ids)) is not None:
                self.upcoming = self._start(logits)
            return drawn.tolist()

    def append(self, token_ids: list[int]) -> None:
        """Add one token to each row."""
        self.reader.append(token_ids)

    def _start(self, logits: Float[Tensor, "B V"]) -> "_Drawn":
        self.n_started += 1
        drawn = _Drawn(logits, self.n_started)
        if not runs_ahead(logits.device):
            drawn.check()  # before anything is drawn from no numbers
        logits = _widened(logits)
        if self.vocab_size < logits.shape[1]:
            logits = logits[:, : self.vocab_size]
        drawn.send(next_tokens(logits, self.sampling, self.seen, self.generators))
        if self.seen is not None:
            self.seen.scatter_(-1, drawn.token_ids[:, None].to(self.seen.device), True)
        return drawn


class _Drawn:
    """The ids drawn from `logits`, the `number`th new ones: on their device, and on their way to the CPU."""

    def __init__(self, logits: Float[Tensor, "B V"], number: int) -> None:
        self.logits, self.number = logits, number
        is_at_hand = logits.device.type == "cpu" and not runs_ahead(logits.device)
        self.total = None if is_at_hand else _sent_to_cpu(_total(logits))
        self.is_checked = False
        self.arrived: torch.cuda.Event | None = None

    def send(self, token_ids: Int[Tensor, " B"]) -> None:
        self.token_ids = token_ids
        self.copy = _sent_to_cpu(token_ids)
        if token_ids.device.type == "cuda":
            self.arrived = torch.cuda.Event()
            self.arrived.record(torch.cuda.current_stream(token_ids.device))

    def tolist(self) -> list[int]:
        if self.arrived is not None:
            self.arrived.synchronize()
        self.check()
        token_ids: list[int] = self.copy.tolist()
        return token_ids

    def check(self) -> None:
        """Raise GenerationError where nothing sensible can be drawn from the logits."""
        if self.is_checked:
            return
        # Very large ones may have no finite sum either, and have to be counted.
        if not self._seem_finite() and (n_bad := int((~self.logits.isfinite()).sum())):
            raise GenerationError(
                f"{n_bad:,} of {self.logits.numel():,} logits of new token {self.number:,} are nan or "
                f"infinite. The weights are damaged, or too large for {self.logits.dtype}: load another "
                f"checkpoint, or use float32."
            )
        self.is_checked = True

    def _seem_finite(self) -> bool:
        if self.total is not None:
            return math.isfinite(self.total.item())
        # NumPy finds the largest, which is no number if any is none, and the smallest; for a sum PyTorch
        # would wake its other threads.
        numbers = _widened(self.logits).numpy().reshape(-1)
        return math.isfinite(numbers[numbers.argmax()]) and math.isfinite(numbers[numbers.argmin()])


def _total(logits: Tensor) -> Float[Tensor, ""]:
    """A sum costs little to send, and is no number if anything in it is none. Float16 would soon overflow."""
    return logits.sum(dtype=torch.promote_types(logits.dtype, torch.float32))


def _widened(logits: Tensor) -> Tensor:
    """`logits` in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _sent_to_cpu(tensor: Tensor) -> Tensor:
    """`tensor` on the CPU, where it has yet to arrive from CUDA."""
    return tensor.to("cpu", non_blocking=tensor.device.type == "cuda")
