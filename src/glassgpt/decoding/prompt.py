"""A prompt's attention and GELU in C++ (`prompt.cpp`), beside its products (`products.py`).

In PyTorch's fused kernels these two take a quarter to a third of a long prompt's time.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.backends.cuda import flash_sdp_enabled

from glassgpt.decoding.build import library, why_no_library
from glassgpt.decoding.gelu import gelu, is_for_cpp
from glassgpt.decoding.products import OneDNNProducts, is_plain
from glassgpt.hardware import is_x86

_LEAST_MULTIPLICATIONS = 2**20
"""Below this PyTorch has finished before Python has looked at everything."""
_QUERIES = 6
"""As in prompt.cpp."""
_LARGE_PIECE = 31 * 2**20
"""Bytes. What glibc keeps does not grow with pieces beyond 32 MiB."""


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("queries", "keys", "values", "mixed", "panels", "scratch")),
        *((name, ctypes.c_int64 * 3) for name in ("query_steps", "key_steps", "value_steps")),
        *((name, ctypes.c_int64) for name in ("n_rows", "n_heads", "n_kv_heads", "n_tokens", "d_head")),
    )


class PromptKernels(OneDNNProducts):
    """Inside `with PromptKernels():` causal attention without a mask or dropout, and the tanh form of GELU,
    are computed in C++ where that is there and faster; large linear layers by oneDNN. In float32 on a CPU,
    and GELU in bfloat16, too.

    The same numbers but for their rounding. All else is left as it is: other types and devices, little work,
    autocast, subclasses of tensors, and whatever is to be differentiated.

    From the first time on, this process keeps up to 62 MiB of the memory that is freed (`_keep_activations`).
    """

    def __enter__(self) -> Self:
        _keep_activations()
        super().__enter__()
        return self

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        ours = _OURS.get(function)
        if ours is not None and (y := ours(*args, **(kwargs or {}))) is not None:
            return y
        return super().__torch_function__(function, types, args, kwargs)


@functools.cache
def _keep_activations() -> None:
    """Have glibc keep the memory of a layer's activations for the next layer.

    It keeps of what is freed twice as much as the largest piece that it has seen freed (mallopt(3),
    M_MMAP_THRESHOLD), and a layer frees a little more than twice its largest: each would give it back to the
    system, and get it anew, in pages to be cleared. A piece that nobody writes into costs nothing. (The
    command keeps all that is freed, `training/processor.py`; for other programs that is not ours to decide.)
    """
    torch.empty(_LARGE_PIECE, dtype=torch.uint8, device="cpu")


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """`scaled_dot_product_attention`, or None where it is PyTorch's business."""
    parts = (query, key, value)
    if (
        not is_causal
        or attn_mask is not None
        or dropout_p
        or scale is not None
        or not flash_sdp_enabled()  # sdpa_kernel can switch off what this stands in for
        or not _is_ours(*parts)
        or any(part.ndim != 4 or part.stride(-1) != 1 for part in parts)
    ):
        return None
    (B, H, T, Dh), G = query.shape, key.shape[1]
    if (
        key.shape != (B, G, T, Dh)
        or value.shape != key.shape
        or (G != H and not (enable_gqa and G and H % G == 0))
        or Dh % 16
        or B * H * T * T * Dh < max(1, _LEAST_MULTIPLICATIONS)
    ):
        return None
    n_threads, panel = torch.get_num_threads(), library().glassgpt_panel()
    n_whole = -(-T // panel) * panel
    mixed = torch.empty(B, T, H, Dh, dtype=torch.float32, device="cpu")
    # Taken here, where there may be too little without the end of the process.
    panels = torch.empty(B, G, n_whole, Dh, dtype=torch.float32, device="cpu")
    scratch = torch.empty(n_threads, _QUERIES, Dh + n_whole, dtype=torch.float32, device="cpu")
    attention = _Attention(
        queries=query.data_ptr(),
        keys=key.data_ptr(),
        values=value.data_ptr(),
        mixed=mixed.data_ptr(),
        panels=panels.data_ptr(),
        scratch=scratch.data_ptr(),
        query_steps=query.stride()[:3],
        key_steps=key.stride()[:3],
        value_steps=value.stride()[:3],
        n_rows=B,
        n_heads=H,
        n_kv_heads=G,
        n_tokens=T,
        d_head=Dh,
    )
    library().glassgpt_attention(ctypes.byref(attention), ctypes.c_int32(n_threads))
    return mixed.transpose(1, 2)


def _gelu(*args: Any, **kwargs: Any) -> Tensor | None:
    """`gelu`, or None where it is PyTorch's business."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not is_for_cpp(*args, **kwargs):
        return None
    return gelu(args[0] if args else kwargs["input"])


def _is_ours(*tensors: Tensor) -> bool:
    return (
        all(map(is_plain, tensors))
        and not torch.is_grad_enabled()  # there is no derivative
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and is_x86()  # on Arm nobody has compared the two
        and why_no_library() is None
    )


_OURS: dict[Any, Callable[..., Tensor | None]] = {F.scaled_dot_product_attention: _attention, F.gelu: _gelu}
