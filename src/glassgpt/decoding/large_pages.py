"""Memory for many matrices in one piece, on pages of 2 MB where the system has them.

A processor knows by heart where a few thousand pages lie, and it does not read ahead beyond the end of one.
The weights of GPT-2 in 8 bits lie on 30,000 pages of 4 KB, and on 60 large ones.
"""

import contextlib
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_LINE = 64  # bytes: no matrix begins inside a line of the processor's cache


def side_by_side(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Zeros for each of `tensors`: of its shape, row behind row, in `dtype` or its own.

    They lie in one piece of memory on the first one's device, in this order, which should be that in which
    they will be read. It is freed with the last of them.
    """
    dtypes = [dtype or tensor.dtype for tensor in tensors]
    sizes = [tensor.numel() * dtype.itemsize for tensor, dtype in zip(tensors, dtypes, strict=True)]
    rooms = [-(-size // _LINE) * _LINE for size in sizes]  # whole lines
    memory = _memory(sum(rooms), tensors[0].device)
    return [
        room[:size].view(dtype).view(tensor.shape)
        for room, size, dtype, tensor in zip(memory.split(rooms), sizes, dtypes, tensors, strict=True)
    ]


def _memory(n_bytes: int, device: torch.device) -> Tensor:
    if n_bytes == 0 or device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):  # Linux has it
        return torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without large pages: it has the others
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)
