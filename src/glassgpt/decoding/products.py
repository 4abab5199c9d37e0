"""Products of float32 matrices on a CPU, for reading many tokens at once: a prompt.

PyTorch leaves them to MKL, which on AMD's processors uses half of each 512-bit register. oneDNN, which comes
with PyTorch too, uses all of it: twice as many operations a second on a Zen 5.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LEAST_MULTIPLICATIONS = 2**22
"""Below this oneDNN takes longer to begin than it saves."""


class OneDNNProducts(TorchFunctionMode):
    """Inside `with OneDNNProducts():` large linear layers in float32 on a CPU are computed by oneDNN.

    The same sums in another order. All else is left as it is: other types and devices, small products,
    autocast, and whatever is to be differentiated.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is F.linear and len(args) == 3 and _is_for_onednn(*args[:2]):
            return torch.ops.mkldnn._linear_pointwise(*args, "none", [], "")
        return function(*args, **(kwargs or {}))


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.numel() * weight.shape[0] >= _LEAST_MULTIPLICATIONS
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in (x, weight))
        and not torch.is_grad_enabled()  # it has no derivative
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    )
