"""What lies in a checkpoint of any format: each tensor, what it holds, and which of our weights it fills."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glassgpt.pretrained.stored import StoredModel

PARTS = {  # by what our name of the weight contains; the first that fits, so attention_norm is a norm
    "embedding": "embeddings",
    "norm": "norms",
    "attention": "attention",
    "feedforward": "MLP",
    "head": "head",
}
UNUSED = "not a weight"

SHARES = (0.01, 0.25, 0.5, 0.75, 0.99)
MAX_SAMPLE = 1 << 16
"""Quantiles are of at most this many numbers, evenly spread over the tensor; sorting all takes long."""


@dataclass(frozen=True, kw_only=True)
class TensorSummary:
    """One tensor of a file, and statistics of its numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    fills: str | None
    """Our name of the weight; None for a tensor that is none."""
    n_numbers: int
    mean: float
    std: float
    lowest: float
    highest: float
    quantiles: tuple[float, ...]
    """At `SHARES`."""

    @property
    def part(self) -> str:
        """The part of the model that it belongs to."""
        return next((part for word, part in PARTS.items() if self.fills and word in self.fills), UNUSED)

    @property
    def layer(self) -> int | None:
        """The number of the block, or None outside the blocks."""
        found = re.match(r"blocks\.(\d+)\.", self.fills or "")
        return int(found[1]) if found else None


def summarise(stored: StoredModel) -> Iterator[TensorSummary]:
    """Read the tensors of `stored` one after another, in the order in which a token meets them.

    Nothing has to fit together: this is for looking at what there is. Raises CheckpointError where a
    tensor cannot be read. Chapter 08.
    """
    weights = stored.weights
    known = [name for name in stored.places if name in weights.shapes]
    known.sort(key=lambda name: _order(stored.places[name].ours))
    for name in [*known, *sorted(weights.shapes.keys() - set(known))]:
        place = stored.places.get(name)
        yield TensorSummary(
            name=name,
            shape=weights.shapes[name],
            dtype=str(weights.dtypes[name]).removeprefix("torch."),
            fills=None if place is None else place.ours,
            **_statistics(weights.read(name)),
        )


def count_by_part(tensors: Iterable[TensorSummary]) -> dict[str, int]:
    """How many numbers each part of the model has, in the order of `PARTS`."""
    counts = dict.fromkeys([*PARTS.values(), UNUSED], 0)
    for tensor in tensors:
        counts[tensor.part] += tensor.n_numbers
    return counts


def _order(ours: str) -> tuple[int, int]:
    """Embeddings, blocks by number, final norm, head; within them as the table has them."""
    layer = re.match(r"blocks\.(\d+)\.", ours)
    return (1, int(layer[1])) if layer else (0 if "embedding" in ours else 2 if "norm" in ours else 3, 0)


def _statistics(tensor: Tensor) -> dict[str, Any]:
    numbers = tensor.detach().flatten().float()
    n = numbers.numel()
    if n == 0:
        none = dict.fromkeys(("mean", "std", "lowest", "highest"), math.nan)
        return {"n_numbers": 0, **none, "quantiles": (math.nan,) * len(SHARES)}
    lowest, highest = torch.aminmax(numbers)
    std, mean = torch.std_mean(numbers, correction=0)
    sample = numbers[:: -(-n // MAX_SAMPLE)]
    return {
        "n_numbers": n,
        "mean": float(mean),
        "std": float(std),
        "lowest": float(lowest),
        "highest": float(highest),
        "quantiles": tuple(torch.quantile(sample, torch.tensor(SHARES)).tolist()),
    }
