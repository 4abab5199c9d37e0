"""One transformer block: read from the residual stream, add to it, twice."""

from jaxtyping import Float
from torch import Tensor, nn

from glassgpt.model.attention import CausalSelfAttention, Surroundings
from glassgpt.model.config import ModelConfig
from glassgpt.model.dropout import Dropout
from glassgpt.model.feedforward import FeedForward
from glassgpt.model.norm import make_norm


class Block(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)).

    The norm stands before each sublayer, so that the residual path from the loss to the embeddings is
    a plain sum (Radford et al. 2019 §2.3; why it trains better: arXiv:2002.04745). Chapter 04.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = CausalSelfAttention(config, layer)
        self.feedforward_norm = make_norm(config)
        self.feedforward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T D"], around: Surroundings) -> Float[Tensor, "B T D"]:
        x = x + self.dropout(self.attention(self.attention_norm(x), around))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))

    def prefill(self, x: Float[Tensor, "B T D"], around: Surroundings) -> None:
        """Let the cache take the keys and values of `x`, and compute no further."""
        self.attention.queries_keys_values(self.attention_norm(x), around)
