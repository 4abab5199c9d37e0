"""Products of float32 matrices on a CPU, for reading many tokens at once: a prompt.

On x86 PyTorch leaves them to MKL, which on AMD's processors uses half of each 512-bit register. oneDNN, which
comes with PyTorch too, uses all of it: twice as many operations a second on a Zen 5.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

_LEAST_MULTIPLICATIONS = 2**22
"""Below this oneDNN takes longer to begin than it saves."""


class OneDNNProducts(TorchFunctionMode):
    """Inside `with OneDNNProducts():` large linear layers in float32 on a CPU are computed by oneDNN.

    The same sums in another order. All else is left as it is: other types and devices, small products,
    autocast, subclasses of tensors, and whatever is to be differentiated.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is F.linear and not kwargs and _is_for_onednn(*args):
            x, weight, bias = args if len(args) == 3 else (*args, None)
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return function(*args, **(kwargs or {}))


def _is_for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return (
        x.numel() * weight.shape[0] >= _LEAST_MULTIPLICATIONS
        and all(map(is_plain, (x, weight) if bias is None else (x, weight, bias)))
        and not torch.is_grad_enabled()  # it has no derivative
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()  # torch.backends.mkldnn.flags can switch it off
    )


def is_plain(tensor: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """On a CPU, in rows and columns, and nothing that has products, or derivatives, of its own."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype in dtypes
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.is_neg()  # seen with another sign than it is stored with
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and forward_ad.unpack_dual(tensor).tangent is None
    )
