"""bfloat16 matrices in 12 bits a number, which the C++ step reads instead (`packed.h`).

They are a copy beside the matrices, with three quarters of their bytes. For one or two rows the step reads
the copy; for more, and in a prompt, the matrices are read. What is computed has the same bits.
"""

import ctypes
import threading
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from glassgpt.decoding.build import library
from glassgpt.decoding.large_pages import side_by_side
from glassgpt.decoding.quantization import QuantizedLinear

_MOST_ROWS = 2
"""With more of them at once, arithmetic takes longer than reading. As in products.h."""
_LEAST_TOKENS = 128
"""To pack the weights for the first time takes about as long as is saved with so many."""
_GROUP = 128
"""Weights that are packed together, where registers have 512 bits. As in packed.h."""
_MOST_RARE = 1 / 8
"""Of a matrix's groups: the rare ones are read twice."""

Place = tuple[int, torch.Size]
_copies: WeakKeyDictionary[nn.Module, dict[Place, Tensor]] = WeakKeyDictionary()
_packing = threading.Lock()


def packing_pays(n_rows: int, n_tokens: int) -> bool:
    """Whether a copy would be read for that many rows, and repay itself within so many tokens of each."""
    return n_rows <= _MOST_ROWS and n_tokens >= _LEAST_TOKENS


def place_of(matrix: Tensor) -> Place:
    """Where it lies in memory, and its shape."""
    return matrix.data_ptr(), matrix.shape


def packed_matrices(model: nn.Module) -> dict[Place, Tensor]:
    """The packed copy of each matrix of a model in bfloat16 (`quantize`), by its place, where there is one.

    Without registers of 512 bits there is none, as unpacking takes as long as it saves; nor where the system
    refuses the memory. The copy is made in the first call, and kept as long as the model. Later calls compare
    it with the weights, which takes as long as some tokens, and make it anew if they have changed.
    """
    matrices = {
        place_of(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, QuantizedLinear)
        and module.weight.dtype == torch.bfloat16
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
            byte = torch.zeros(1, dtype=torch.uint8, device="cpu")
            try:
                room = side_by_side([byte.expand(_packed_bytes(matrix)) for matrix in matrices.values()])
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
    function = library().glassgpt_packed_bytes
    function.restype = ctypes.c_int64
    return int(function(*map(ctypes.c_int64, matrix.shape)))


def _call(name: str, matrix: Tensor, copy: Tensor) -> int:
    function = getattr(library(), name)
    function.restype = ctypes.c_int64
    return int(
        function(
            ctypes.c_void_p(matrix.data_ptr()),
            *map(ctypes.c_int64, matrix.shape),
            ctypes.c_void_p(copy.data_ptr()),
            ctypes.c_int32(torch.get_num_threads()),
        )
    )
