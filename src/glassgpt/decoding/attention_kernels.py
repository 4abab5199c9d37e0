"""Which of PyTorch's kernels for attention a CUDA GPU uses while text is generated."""

import contextlib
import threading
from collections.abc import Iterator

from torch.backends import cuda

_changing_kernels = threading.Lock()


class _Inside:
    """How many threads generate at the moment, and whether cuDNN's kernel was allowed before the first."""

    n_threads = 0
    allowed = True


@contextlib.contextmanager
def attention_without_plans() -> Iterator[None]:
    """No attention by cuDNN, which plans for tens of milliseconds whenever the number of keys is a new one.

    On an H100 it would come first, and each token brings a new number. What the caller has switched off stays
    off. PyTorch keeps this for the whole process, so it is as before when the last thread leaves.
    """
    with _changing_kernels:
        if _Inside.n_threads == 0:
            _Inside.allowed = cuda.cudnn_sdp_enabled()
        _Inside.n_threads += 1
        has_others = cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled() or cuda.math_sdp_enabled()
        cuda.enable_cudnn_sdp(_Inside.allowed and not has_others)
    try:
        yield
    finally:
        with _changing_kernels:
            _Inside.n_threads -= 1
            if _Inside.n_threads == 0:
                cuda.enable_cudnn_sdp(_Inside.allowed)
