"""Matrices in fewer bits, which the C++ step reads instead: bfloat16 in 12, float32 in 28 (`packed.h`).

They are copies beside the matrices, with three quarters of their bytes, or seven eighths. For one or two
rows the step reads the copies; for more, and in a prompt, the matrices are read. What is computed has the
same bits.
"""

import ctypes
import threading
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from glassgpt.decoding.build import library
from glassgpt.decoding.free_memory import free_memory
from glassgpt.decoding.large_pages import side_by_side
from glassgpt.decoding.quantization import QuantizedLinear

_MOST_ROWS = 2
"""With more of them at once, arithmetic takes longer than reading. As in products.h."""
_LEAST_TOKENS = 128
"""To pack the weights for the first time takes about as long as is saved with so many."""
_GROUP = 128
"""Weights that are packed together, where registers have 512 bits. As in packed.h."""
_MOST_RARE = 1 / 8
"""Of a matrix's groups: these are read as they were, and waited for."""
_MOST_MEMORY = 1 / 2
"""Of what is free: a copy is never what a process ends for."""

Place = tuple[int, torch.dtype, torch.Size]
_copies: WeakKeyDictionary[nn.Module, dict[Place, Tensor]] = WeakKeyDictionary()
_packing = threading.Lock()


def packing_pays(model: nn.Module, n_rows: int, n_tokens: int) -> bool:
    """Whether copies would be read for that many rows, and repay themselves within so many tokens of each.

    Not those of a model in training mode: its weights will change before long.
    """
    return n_rows <= _MOST_ROWS and n_tokens >= _LEAST_TOKENS and not model.training


def place_of(matrix: Tensor) -> Place:
    """Where it lies in memory, of which numbers, and its shape."""
    return matrix.data_ptr(), matrix.dtype, matrix.shape


def packed_matrices(model: nn.Module) -> dict[Place, Tensor]:
    """The packed copy of each linear layer's matrix in float32 or bfloat16, by its place, where there is one.

    Without registers of 512 bits there is none, as unpacking takes as long as it saves; nor where copies
    would take more than half of the memory that is free, or the system refuses it. They are made in the first
    call, and kept as long as the model. Later calls compare them with the weights, which takes as long as
    some tokens, and make them anew if these have changed.
    """
    matrices = {
        place_of(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear | QuantizedLinear)
        and module.weight.dtype in (torch.float32, torch.bfloat16)
        and module.weight.is_contiguous()
        and _packed_bytes(module.weight)
    }
    if not matrices:
        return {}
    with _packing:
        kept = _copies.get(model)
        if (
            kept is None
            or kept.keys() != matrices.keys()
            or not all(_is_packed(matrices[place], copy) for place, copy in kept.items())
        ):
            kept = None
            _copies.pop(model, None)  # its memory is free for the next, if no step is reading it
            sizes = list(map(_packed_bytes, matrices.values()))
            if sum(sizes) > _MOST_MEMORY * free_memory():
                return {}
            byte = torch.zeros(1, dtype=torch.uint8, device="cpu")
            try:
                room = side_by_side([byte.expand(size) for size in sizes])
            except RuntimeError:  # PyTorch got none; without a copy all is as right, and slower
                return {}
            kept = _copies[model] = {
                place: _pack(matrices[place], copy) for place, copy in zip(matrices, room, strict=True)
            }
        return {place: copy for place, copy in kept.items() if copy.numel()}


def _pack(matrix: Tensor, copy: Tensor) -> Tensor:
    """The copy, filled; nothing in place of one that would be read too seldom."""
    n_rare = _call("glassgpt_pack", matrix, copy)
    return copy if n_rare <= _MOST_RARE * matrix.numel() / _GROUP else copy[:0]


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
