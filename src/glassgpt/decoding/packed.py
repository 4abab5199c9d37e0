"""bfloat16 matrices in 12 bits a number, which the C++ step reads instead (`packed.h`).

They are a copy beside the matrices, with three quarters of their bytes: a prompt, a batch and PyTorch go on
reading those. What is computed has the same bits.
"""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from glassgpt.decoding.build import library
from glassgpt.decoding.large_pages import side_by_side
from glassgpt.decoding.quantization import QuantizedLinear

_MOST_ROWS = 2
"""With more of them at once, arithmetic takes longer than reading. As in products.h."""
_LEAST_TOKENS = 64
"""To pack the weights for the first time takes about as long as is saved with so many."""


@dataclass(frozen=True)
class _Kept:
    contents: list[Any]  # where each matrix lies, and a number that tells whether it has changed
    copies: dict[int, Tensor]


_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()
_packing = threading.Lock()


def packing_pays(n_rows: int, n_tokens: int) -> bool:
    """Whether a copy would be read for that many rows, and repay itself within so many tokens of each."""
    return n_rows <= _MOST_ROWS and n_tokens >= _LEAST_TOKENS


def packed_matrices(model: nn.Module) -> dict[int, Tensor]:
    """The packed copy of each matrix of a quantised `model` for which there is one, by its memory address.

    None are packed without registers of 512 bits, where unpacking takes as long as it saves. The first call
    takes as long as some tens of tokens, and the copy is kept as long as the model. The next ones look
    whether the weights are still the same, which takes as long as a token, and pack them again if not.
    """
    matrices = [
        module.weight
        for module in model.modules()
        if isinstance(module, QuantizedLinear)
        and module.weight.dtype == torch.bfloat16
        and module.weight.is_contiguous()
        and _packed_bytes(module.weight)
    ]
    if not matrices:
        return {}
    with _packing:
        contents = [(matrix.data_ptr(), matrix.shape, _fingerprint(matrix)) for matrix in matrices]
        kept = _kept.get(model)
        if kept is None or kept.contents != contents:
            _kept.pop(model, None)  # its memory is free for the next
            kept = _kept[model] = _Kept(contents, _pack(matrices))
    return kept.copies


def _pack(matrices: Sequence[Tensor]) -> dict[int, Tensor]:
    sizes = [torch.empty(_packed_bytes(matrix), dtype=torch.uint8, device="cpu") for matrix in matrices]
    copies = side_by_side(sizes)
    for matrix, copy in zip(matrices, copies, strict=True):
        library().glassgpt_pack(
            ctypes.c_void_p(matrix.data_ptr()),
            *map(ctypes.c_int64, matrix.shape),
            ctypes.c_void_p(copy.data_ptr()),
            ctypes.c_int32(torch.get_num_threads()),
        )
    return {matrix.data_ptr(): copy for matrix, copy in zip(matrices, copies, strict=True)}


def _packed_bytes(matrix: Tensor) -> int:
    count = library().glassgpt_packed_bytes
    count.restype = ctypes.c_int64
    return int(count(*map(ctypes.c_int64, matrix.shape)))


def _fingerprint(matrix: Tensor) -> int:
    """Of a matrix whose bytes are whole lines of the cache, as all are that the step takes."""
    of = library().glassgpt_fingerprint
    of.restype = ctypes.c_uint64
    return int(
        of(
            ctypes.c_void_p(matrix.data_ptr()),
            ctypes.c_int64(matrix.nbytes),
            ctypes.c_int32(torch.get_num_threads()),
        )
    )
