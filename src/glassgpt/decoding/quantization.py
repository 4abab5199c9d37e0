"""Weights in fewer bits: less to store, and less to read for each generated token.

Generating one token reads every weight once, so its time follows their bytes. Only matrices shrink; norms,
biases, positions, and what flows between them stay float32; for the C++ step keys and values are bfloat16.
(Of float32 and bfloat16 weights it may read a copy in fewer bits, which loses nothing: `packed.py`.)
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from glassgpt.checks import not_one_of
from glassgpt.decoding.large_pages import side_by_side
from glassgpt.errors import ConfigError
from glassgpt.hardware import multiplies_bfloat16
from glassgpt.model.gpt import GPT

Quantization = Literal["bfloat16", "int8"]

_WEIGHTS_AT_ONCE = 1 << 18  # rounded; with what is made of them they stay in the processor's cache


class QuantizedLinear(nn.Module):
    """y = x Wᵀ + b with W in bfloat16, or as 8-bit integers with a scale for each row: W = scale · integers.

    Products are computed in bfloat16 where the processor has it, which holds every 8-bit integer exactly.
    """

    scale: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor | None, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)  # (N, K)
        self.register_buffer("scale", scale)  # (N)
        self.bias = bias  # (N), in float32
        self.largest_activation = _largest_activation(self.weight)
        # Asked in `forward`, it would cut what is compiled in two.
        self.in_bfloat16 = multiplies_bfloat16(weight.device)

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(change, recurse)
        self.in_bfloat16 = multiplies_bfloat16(self.weight.device)  # it may have moved
        return self

    def forward(self, x: Float[Tensor, "*shape K"]) -> Float[Tensor, "*shape N"]:
        dtype = torch.bfloat16 if self.in_bfloat16 else x.dtype
        y = F.linear(x.to(dtype), self.weight.to(dtype)).to(x.dtype)  # nobody else's: changed in place
        if self.scale is not None:
            y *= self.scale
        if self.bias is not None:
            y += self.bias
        return y

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        # No buffer: model.bfloat16() would round it up, and another row may be the heaviest now.
        self.largest_activation = _largest_activation(self.weight)


def _largest_activation(weight: Tensor) -> int:
    """That a 16-bit activation may be for no sum with a row of 8-bit integers to leave 32 bits."""
    if weight.dtype != torch.int8:
        return 0
    heaviest_row = 1
    for rows in weight.detach().split(_rows_at_once(weight)):
        magnitudes = rows.abs().view(torch.uint8)  # of −128, too, which abs() leaves as it is
        heaviest_row = max(heaviest_row, int(magnitudes.sum(dim=1, dtype=torch.int32).max()))
    return min(2**15 - 1, (2**31 - 1) // heaviest_row)


class QuantizedEmbedding(nn.Module):
    """The rows of a matrix as `QuantizedLinear` stores it, looked up."""

    scale: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)  # (V, D)
        self.register_buffer("scale", scale)  # (V)

    def forward(self, token_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        rows = F.embedding(token_ids, self.weight).float()
        return rows if self.scale is None else rows * self.scale[token_ids, None]


def quantize(model: GPT, to: Quantization) -> GPT:
    """`model` for generating only, with its matrices in `to`: half or a quarter of float32's bytes.

    bfloat16 rounds each weight to 8 binary digits. int8 divides each row by scale = (its largest magnitude) /
    127 and rounds to whole numbers: nothing is clipped, and no row is measured by another's outlier (absmax
    by rows: Dettmers et al. 2022, arXiv:2208.07339 §2). `model` is left as it is, and the new one shares
    nothing with it: where its weights are mapped from a file, that is let go with it. Raises ConfigError for
    another name, for a model that is quantised already, and when its weights are not numbers.
    """
    if to not in get_args(Quantization):
        raise ConfigError(not_one_of("quantize", to, Quantization))
    if any(isinstance(module, QuantizedLinear | QuantizedEmbedding) for module in model.modules()):
        raise ConfigError(
            "This model is quantised already, and would be rounded twice. Quantise the one it was made from."
        )
    with torch.no_grad():
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        embedding = model.token_embedding
        tied = embedding.weight is model.head.weight
        matrices: list[nn.Linear | nn.Embedding] = [*linears, *([] if tied else [embedding])]
        rounded = _rounded(matrices, to)
        rounded_weights = {id(module.weight) for module in matrices}
        vectors = {
            id(parameter): nn.Parameter(parameter.to(torch.float32, copy=True), requires_grad=False)
            for parameter in model.parameters()
            if id(parameter) not in rounded_weights
        }
        for vector in vectors.values():
            _require_finite(vector)
        # deepcopy takes for the copy of an object what its memo holds: for a large module the small one, for
        # a vector its copy in float32.
        memo: dict[int, nn.Module | nn.Parameter] = {**vectors}
        for linear in linears:
            memo[id(linear)] = QuantizedLinear(*rounded[linear], vectors.get(id(linear.bias)))
        memo[id(embedding)] = QuantizedEmbedding(*rounded[model.head if tied else embedding])
        small = copy.deepcopy(model, memo).eval()
        if tied:
            small.tie_head()  # one parameter again, wherever it goes
        return small


def _rounded(
    modules: Sequence[nn.Linear | nn.Embedding], to: Quantization
) -> dict[nn.Module, tuple[Tensor, Float[Tensor, " N"] | None]]:
    """Their matrices in `to`, side by side in rows, however they lay before, and the scales of the rows."""
    dtype = {"bfloat16": torch.bfloat16, "int8": torch.int8}[to]
    places = side_by_side([module.weight for module in modules], dtype)
    return {
        module: (place, _round(module.weight, place)) for module, place in zip(modules, places, strict=True)
    }


def _round(weight: Float[Tensor, "N K"], place: Num[Tensor, "N K"]) -> Float[Tensor, " N"] | None:
    """Fill `place` with `weight`, rounded, and return the scales of its rows, if it has any.

    Some rows at a time: they stay in the processor's cache from one operation to the next.
    """
    n_rows = _rows_at_once(weight)
    largest = torch.empty(len(weight), device=weight.device)  # magnitude of each row
    for rows, rounded, magnitudes in zip(
        *(tensor.split(n_rows) for tensor in (weight, place, largest)), strict=True
    ):
        rows = rows.contiguous()
        magnitudes.copy_(rows.abs().amax(dim=1))  # nan if one of them is
        if place.dtype == torch.int8:
            scale = magnitudes / 127
            rows = (rows / scale.where(scale > 0, 1.0)[:, None]).round_()  # a row of zeros stays one
        rounded.copy_(rows)
    _require_finite(largest)
    return largest / 127 if place.dtype == torch.int8 else None


def _rows_at_once(weight: Tensor) -> int:
    return max(1, _WEIGHTS_AT_ONCE // weight.shape[1])


def _require_finite(numbers: Tensor) -> None:
    if not numbers.isfinite().all():
        raise ConfigError("Weights that are nan or infinite cannot be quantised. Load another checkpoint.")
