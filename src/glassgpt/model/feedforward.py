"""The feed-forward network: each position thinks by itself about what attention brought it."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glassgpt.model.config import ModelConfig


class FeedForward(nn.Module):
    """Widen, bend, narrow: D → F → D at every position alike.

    gelu: down(gelu(up(x))), with the tanh form of GELU that GPT-2 uses (Hendrycks and Gimpel 2016,
    arXiv:1606.08415 §2). swiglu: down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202 §2).
    Chapter 04.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, width = config.d_model, config.hidden_width
        self.gated = config.feedforward == "swiglu"
        if self.gated:
            self.gate_proj = nn.Linear(D, width, bias=config.bias)
        self.up_proj = nn.Linear(D, width, bias=config.bias)
        self.down_proj = nn.Linear(width, D, bias=config.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if self.gated:
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return self.down_proj(F.gelu(self.up_proj(x), approximate="tanh"))
