"""GELU in C++ (`gelu.cpp`), for float32 and bfloat16 on a CPU, and its derivative."""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from glassgpt.decoding.build import library, why_no_library
from glassgpt.decoding.products import is_plain
from glassgpt.hardware import is_x86

_LEAST_NUMBERS = 2**14
"""Below this PyTorch has finished before Python has looked at everything."""

_NAMES = {torch.float32: "glassgpt_gelu", torch.bfloat16: "glassgpt_gelu_bfloat16"}
_SLOPES = {torch.float32: "glassgpt_gelu_backward", torch.bfloat16: "glassgpt_gelu_backward_bfloat16"}


def gelu(x: Tensor) -> Tensor:
    """The tanh form of GELU of what lies without gaps on a CPU, in float32 or bfloat16, as it is computed."""
    y = torch.empty_like(x)
    _map(_NAMES[x.dtype], x, y)
    return y


class DifferentiableGELU(TorchFunctionMode):
    """Inside `with DifferentiableGELU():` its tanh form is computed in C++ on a CPU, and its gradient, too.

    The same numbers but for their rounding (of −∞, 0 in place of PyTorch's nan), to be differentiated once.
    All else is left as it is: other types and devices, little work, subclasses of tensors, other derivatives
    than gradients.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is F.gelu and is_for_cpp(*args, **(kwargs or {})):
            return _GELU.apply(args[0] if args else kwargs["input"])
        return function(*args, **(kwargs or {}))


def is_for_cpp(input: Tensor, approximate: str = "none", out: Tensor | None = None) -> bool:
    """Whether `gelu` computes what F.gelu would, and sooner."""
    return (
        approximate == "tanh"
        and out is None
        and not torch.jit.is_tracing()  # how many numbers there are would be none then
        and not torch.compiler.is_compiling()
        and is_plain(input, tuple(_NAMES))
        and input.numel() >= max(1, _LEAST_NUMBERS)
        and input.is_contiguous()
        and is_x86()  # on Arm nobody has compared the two
        and why_no_library() is None
    )


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "GELU in C++ can be differentiated only once. For a derivative of its gradient "
                "leave DifferentiableGELU() out."
            )
        (x,) = ctx.saved_tensors
        to = torch.empty_like(x)
        _map(_SLOPES[x.dtype], x, grad.to(x.dtype).contiguous(), to)
        return to


def _map(name: str, *tensors: Tensor) -> None:
    """From all tensors but the last into that one."""
    getattr(library(), name)(
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
        ctypes.c_int64(tensors[-1].numel()),
        ctypes.c_int32(torch.get_num_threads()),
    )
