"""Windows that slide over token ids, as a PyTorch Dataset and DataLoader."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from glassgpt.checks import is_count
from glassgpt.data.token_array import row_of_ids
from glassgpt.errors import ConfigError, DataError


class SlidingWindowDataset(Dataset[tuple[Tensor, Tensor]]):
    """Item i is `context_length` token ids from place i · `stride` on, and the ids that follow each of them.

        token_ids = ids[i·stride : i·stride + T]        targets = ids[i·stride + 1 : i·stride + T + 1]

    With `stride` = T every token is a target once; a smaller one makes windows overlap.
    Raises DataError for fewer than T + 1 ids or what is no row of ids, ConfigError for a length or stride
    below 1. Chapter 01.
    """

    def __init__(
        self, token_ids: Sequence[int] | NDArray[np.integer] | Tensor, context_length: int, stride: int
    ) -> None:
        if not (is_count(context_length, 1) and is_count(stride, 1)):
            raise ConfigError(
                f"context_length={context_length!r} and stride={stride!r} must both be whole numbers of at "
                "least 1."
            )
        array = row_of_ids(token_ids.cpu() if isinstance(token_ids, Tensor) else token_ids)
        self.token_ids = torch.as_tensor(array, dtype=torch.int64)
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
    Raises what `SlidingWindowDataset` does, DataError if no batch is left, and ConfigError for a
    micro_batch_size below 1. Chapter 01.
    """
    if not is_count(micro_batch_size, 1):
        raise ConfigError(f"micro_batch_size={micro_batch_size!r} must be a whole number of at least 1.")
    if not is_count(n_workers, 0):
        raise ConfigError(f"n_workers={n_workers!r} must be a whole number of at least 0.")
    dataset = SlidingWindowDataset(token_ids, context_length, context_length if stride is None else stride)
    if drop_last and len(dataset) < micro_batch_size:
        raise DataError(
            f"The text gives {len(dataset):,} windows, too few for a batch of micro_batch_size="
            f"{micro_batch_size:,}. Use more text, a smaller micro_batch_size, or drop_last=False."
        )
    return DataLoader(
        dataset,
        batch_size=micro_batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=n_workers,
        generator=torch.Generator().manual_seed(seed),
    )
