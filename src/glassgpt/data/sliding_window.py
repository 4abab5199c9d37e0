"""Windows that slide over token ids, as a PyTorch Dataset and DataLoader."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from glassgpt.errors import ConfigError, DataError


class SlidingWindowDataset(Dataset[tuple[Tensor, Tensor]]):
    """Item i is `context_length` token ids from place i · `stride` on, and the ids that follow each of them.

        token_ids = ids[i·stride : i·stride + T]        targets = ids[i·stride + 1 : i·stride + T + 1]

    With `stride` = T every token is a target once; a smaller one makes windows overlap.
    Raises DataError for fewer than T + 1 ids, ConfigError for a length or stride below 1. Chapter 01.
    """

    def __init__(
        self, token_ids: Sequence[int] | NDArray[np.integer] | Tensor, context_length: int, stride: int
    ) -> None:
        if context_length < 1 or stride < 1:
            raise ConfigError(f"context_length={context_length} and stride={stride} must both be at least 1.")
        self.token_ids = torch.as_tensor(token_ids, dtype=torch.int64)
        if len(self.token_ids) < context_length + 1:
            raise DataError(
                f"The text has {len(self.token_ids):,} tokens; context_length={context_length:,} needs at "
                f"least {context_length + 1:,}. Use more text or a shorter context."
            )
        self.context_length = context_length
        self.stride = stride

    def __len__(self) -> int:
        return (len(self.token_ids) - 1 - self.context_length) // self.stride + 1

    def __getitem__(self, i: int) -> tuple[Int64[Tensor, " T"], Int64[Tensor, " T"]]:
        first = range(len(self))[i] * self.stride  # IndexError beyond the end, as for any sequence
        window = self.token_ids[first : first + self.context_length + 1]
        return window[:-1], window[1:]


def create_dataloader(
    token_ids: Sequence[int] | NDArray[np.integer] | Tensor,
    *,
    context_length: int,
    stride: int | None = None,
    micro_batch_size: int = 4,
    shuffle: bool = True,
    drop_last: bool = True,
    seed: int = 0,
    n_workers: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of sliding windows, shuffled anew in each epoch, in the same way for the same `seed`.

    `stride` None is `context_length`: no overlap. `drop_last` leaves out a last batch that is not full.
    Raises what `SlidingWindowDataset` does. Chapter 01.
    """
    dataset = SlidingWindowDataset(token_ids, context_length, context_length if stride is None else stride)
    return DataLoader(
        dataset,
        batch_size=micro_batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=n_workers,
        generator=torch.Generator().manual_seed(seed),
    )
