"""Dropout: in training, numbers are left out at random, so that none comes to rely on another."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_CHANCES = 2**16


class Dropout(nn.Dropout):
    """`dropout` with probability `p` while the module is in training mode. Chapter 03."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return dropout(x, self.p) if self.training else x


def dropout(x: Float[Tensor, "*shape"], p: float) -> Float[Tensor, "*shape"]:
    """Each number is 0 with probability `p`, and otherwise divided by 1 − p, which keeps its mean
    (Srivastava et al. 2014 §10).

    On a CPU, unless compiled, 16 bits decide, a quarter of what the generator gives at once, and `p` is
    rounded to a multiple of 2⁻¹⁶. PyTorch's way takes six times as long: a fifth of a step of GPT-2 124M.
    """
    is_ours = x.device.type == "cpu" and 0 < p < 1 and not torch.compiler.is_compiling()
    if not is_ours:  # a compiler has its own way
        return F.dropout(x, p)
    n_dropped = min(round(p * _CHANCES), _CHANCES - 1)  # of all numbers of 16 bits, the lowest
    drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None)
    drawn = drawn.view(torch.int16)[: x.numel()].view(x.shape)
    with torch.no_grad():
        factor = torch.ge(drawn, n_dropped - _CHANCES // 2, out=torch.empty_like(x))
        factor *= _CHANCES / (_CHANCES - n_dropped)
    return x * factor
