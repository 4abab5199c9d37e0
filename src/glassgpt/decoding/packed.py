"""Matrices in fewer bits, which the C++ step reads instead: bfloat16 in 12, float32 in 28 (`packed.h`).

They are copies beside the matrices, with three quarters of their bytes, or seven eighths. For one or two
rows the step reads the copies where that is faster; for more, and in a prompt, the matrices are read. What is
computed has the same bits.
"""

import ctypes
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from glassgpt.decoding.build import library
from glassgpt.decoding.free_memory import free_memory
from glassgpt.decoding.large_pages import side_by_side
from glassgpt.decoding.quantization import QuantizedLinear

MOST_PACKED_ROWS = 2
"""With more of them at once, arithmetic takes longer than reading. As in products.h."""
_LEAST_TOKENS = 256
"""To make the copies takes about as long as is saved with so many, where the memory is new to the process."""
_LEAST_OF_A_TEXT = 32
"""To compare them with the weights takes about as long as is saved with so many."""
_GROUP = 128
"""Weights that are packed together, where registers have 512 bits. As in packed.h."""
_MOST_UNPACKED = 1 / 8
"""Of a matrix's groups: these are read as they were, and waited for."""
_MOST_MEMORY = 1 / 2
"""Of what is free when copies are made."""

Place = tuple[int, torch.dtype, torch.Size]


@dataclass
class _Kept:
    """What is known of a model with the weights that it has now."""

    version: int
    n_tokens: int = 0  # that were asked for in long texts
    copies: dict[Place, Tensor] = field(default_factory=dict)  # of all its matrices, or none yet


_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()
_packing = threading.Lock()


def place_of(matrix: Tensor) -> Place:
    """Where it lies in memory, of which numbers, and its shape."""
    return matrix.data_ptr(), matrix.dtype, matrix.shape


def version_of(tensors: Iterable[Tensor]) -> int:
    """Another number after each change of one of them that PyTorch counts: not of one through `.data`, by
    NumPy or by a fused optimizer."""
    return sum(tensor._version for tensor in tensors)


def forget_copies(model: nn.Module) -> None:
    """Give their memory back; who is reading them just now keeps it until the end of that."""
    with _packing:
        _kept.pop(model, None)


def packed_matrices(model: nn.Module, n_tokens: int) -> dict[Place, Tensor]:
    """The packed copy of each linear layer's matrix in float32 or bfloat16, by its place, where there is one.

    For a text that may get `n_tokens` tokens. The copies are made once so many tokens have been asked for, in
    one text or several, that they repay themselves, and kept with the model until a text finds that its
    weights have changed (each compares them), or `forget_copies`.

    There are none where registers have less than 512 bits, as unpacking then takes as long as it saves; where
    they would take more than half of the memory that is free, or the system refuses it; of a model in
    training mode, as its weights will change before long; and of tensors made in inference mode, whose
    changes PyTorch does not count.
    """
    if model.training:
        forget_copies(model)
        return {}
    if n_tokens < _LEAST_OF_A_TEXT:
        return {}
    matrices = {
        place_of(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear | QuantizedLinear)
        and module.weight.dtype in (torch.float32, torch.bfloat16)
        and module.weight.is_contiguous()
        and not module.weight.is_inference()
        and _packed_bytes(module.weight)
    }
    if not matrices:
        return {}
    with _packing:
        kept, version = _kept.get(model), version_of(matrices.values())
        if kept is None or kept.version != version or not _are_packed(matrices, kept.copies):
            kept = _kept[model] = _Kept(version)
        kept.n_tokens += n_tokens
        if kept.n_tokens >= _LEAST_TOKENS and not kept.copies:
            kept.copies = _copies_of(matrices)
        return {place: copy for place, copy in kept.copies.items() if copy.numel()}


def _copies_of(matrices: dict[Place, Tensor]) -> dict[Place, Tensor]:
    """A packed copy of each, empty if it would not be read; none at all without enough memory."""
    sizes = list(map(_packed_bytes, matrices.values()))
    if sum(sizes) > _MOST_MEMORY * free_memory():
        return {}
    byte = torch.zeros(1, dtype=torch.uint8, device="cpu")
    try:
        room = side_by_side([byte.expand(size) for size in sizes])
    except RuntimeError:  # PyTorch got none; without a copy all is as right, and slower
        return {}
    return {place: _pack(matrices[place], copy) for place, copy in zip(matrices, room, strict=True)}


def _are_packed(matrices: dict[Place, Tensor], copies: dict[Place, Tensor]) -> bool:
    """Whether the copies, where there are some, are those of the matrices."""
    if not copies:
        return True
    return copies.keys() == matrices.keys() and all(
        _is_packed(matrices[place], copy) for place, copy in copies.items()
    )


def _pack(matrix: Tensor, copy: Tensor) -> Tensor:
    """The copy, filled; nothing in place of one that would be read too seldom."""
    n_rows, n_columns = matrix.shape
    n_unpacked = _call("glassgpt_pack", matrix, copy)
    return copy if n_unpacked <= _MOST_UNPACKED * n_rows * (n_columns // _GROUP) else copy.new_empty(0)


def _is_packed(matrix: Tensor, copy: Tensor) -> bool:
    return not copy.numel() or bool(_call("glassgpt_is_packed", matrix, copy))


def _packed_bytes(matrix: Tensor) -> int:
    return _call("glassgpt_packed_bytes", matrix)


def _call(name: str, matrix: Tensor, copy: Tensor | None = None) -> int:
    function = getattr(library(), name)
    function.restype = ctypes.c_int64
    about = [ctypes.c_int64(number) for number in (matrix.itemsize, *matrix.shape)]
    if copy is None:
        return int(function(*about))
    memory = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (matrix, copy)]
    return int(function(*about, *memory, ctypes.c_int32(torch.get_num_threads())))
