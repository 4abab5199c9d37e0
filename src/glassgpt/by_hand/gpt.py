"""The whole GPT by hand: one text, one position at a time, every formula written out. Chapter 04."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassgpt.by_hand.attention import attend
from glassgpt.model.block import Block
from glassgpt.model.feedforward import FeedForward
from glassgpt.model.gpt import GPT


def layer_norm(
    x: Float[Tensor, " D"], weight: Float[Tensor, " D"], bias: Float[Tensor, " D"] | None, eps: float
) -> Float[Tensor, " D"]:
    """Mean 0 and variance 1 over the numbers of one vector, then each number's own scale and shift."""
    mean = x.sum() / len(x)
    variance = ((x - mean) ** 2).sum() / len(x)
    normal = (x - mean) / torch.sqrt(variance + eps)
    return normal * weight if bias is None else normal * weight + bias


def rms_norm(x: Float[Tensor, " D"], weight: Float[Tensor, " D"], eps: float) -> Float[Tensor, " D"]:
    """Length √D, whatever the mean; then each number's own scale."""
    mean_square = (x**2).sum() / len(x)
    return x / torch.sqrt(mean_square + eps) * weight


def gelu(x: Float[Tensor, " F"]) -> Float[Tensor, " F"]:
    """x · Φ(x), with GPT-2's formula for the normal distribution's Φ."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Float[Tensor, " F"]) -> Float[Tensor, " F"]:
    """x · sigmoid(x)."""
    return x / (1 + torch.exp(-x))


def think(feedforward: FeedForward, x: Float[Tensor, " D"]) -> Float[Tensor, " D"]:
    """The feed-forward network at one position."""
    wide = feedforward.up_proj(x)
    if feedforward.gated:
        return feedforward.down_proj(silu(feedforward.gate_proj(x)) * wide)
    return feedforward.down_proj(gelu(wide))


def normalise(norm: nn.Module, x: Float[Tensor, " D"], eps: float) -> Float[Tensor, " D"]:
    """Whichever of the two norms `norm` is."""
    if isinstance(norm, nn.RMSNorm):
        return rms_norm(x, norm.weight, eps)
    assert isinstance(norm, nn.LayerNorm)
    return layer_norm(x, norm.weight, norm.bias, eps)


def logits(model: GPT, token_ids: Int[Tensor, " T"]) -> Float[Tensor, "T V"]:
    """What `model` computes in eval mode, with its weights: scores of the token after each of `token_ids`."""
    config, eps = model.config, model.config.norm_eps
    stream = [model.token_embedding.weight[token] for token in token_ids]
    if config.positions == "learned":
        stream = [x + model.position_embedding.weight[t] for t, x in enumerate(stream)]
    for block in model.blocks:
        assert isinstance(block, Block)
        normal = torch.stack([normalise(block.attention_norm, x, eps) for x in stream])
        stream = [x + read for x, read in zip(stream, attend(block.attention, normal[None])[0], strict=True)]
        stream = [x + think(block.feedforward, normalise(block.feedforward_norm, x, eps)) for x in stream]
    return torch.stack([model.head.weight @ normalise(model.final_norm, x, eps) for x in stream])
