"""Memory for many matrices in one piece, on pages of 2 MB where the system has them.

A processor knows by heart where a few thousand pages lie, and it does not read ahead beyond the end of one.
The weights of GPT-2 in 8 bits lie on 30,000 pages of 4 KB, and on 60 large ones.
"""

import contextlib
import itertools
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_LINE = 64  # bytes: no matrix begins inside a line of the processor's cache


def side_by_side(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Zeros for each of `tensors`: of its shape, row behind row, in `dtype` or its own, on its device.

    On a CPU they lie in one piece of memory, in this order, which should be that in which they will be read.
    Each has a storage of its own, to be saved or shared alone; the piece is freed with the last of them.
    """
    dtypes = [dtype or tensor.dtype for tensor in tensors]
    sizes = [tensor.numel() * dtype.itemsize for tensor, dtype in zip(tensors, dtypes, strict=True)]
    rooms = [-(-size // _LINE) * _LINE for size in sizes]  # whole lines
    pages = None
    if all(tensor.device.type == "cpu" and tensor.numel() for tensor in tensors):
        pages = _pages(sum(rooms))
    if pages is None:
        return [
            torch.zeros(tensor.shape, dtype=dtype, device=tensor.device)
            for tensor, dtype in zip(tensors, dtypes, strict=True)
        ]
    starts = itertools.accumulate(rooms[:-1], initial=0)
    return [
        torch.frombuffer(pages, dtype=dtype, count=tensor.numel(), offset=start).view(tensor.shape)
        for tensor, dtype, start in zip(tensors, dtypes, starts, strict=True)
    ]


def _pages(n_bytes: int) -> mmap.mmap | None:
    """Memory on large pages where there are such; None where the system is no Linux, or has no room."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not Linux
        return None
    try:
        pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # PyTorch will say that there is no room, or find it in pieces
        return None
    with contextlib.suppress(OSError):  # a kernel built without large pages: it has the others
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
