"""Causal self-attention: the only place where a token learns of the others."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from glassgpt.model.config import ModelConfig
from glassgpt.model.dropout import dropout
from glassgpt.model.kv_cache import KVCache
from glassgpt.model.positions import rotate


class Surroundings(NamedTuple):
    """What all layers of one call share: computed once, before the first."""

    mask: Bool[Tensor, "batch 1 T S"] | None
    """True where a query may look; None: at everything up to itself."""
    rotary: tuple[Tensor, Tensor] | None
    """Cosines and sines of the positions, for rope."""
    cache: KVCache | None


class CausalSelfAttention(nn.Module):
    """Each position reads a weighted mix of values from itself and earlier ones.

    softmax(q kᵀ / √Dh, masked) v in every head (Vaswani et al. 2017, arXiv:1706.03762 §3.2). With
    G < H key/value heads, each serves H // G query heads (Ainslie et al. 2023, arXiv:2305.13245).
    Chapter 03.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        D, Dh = config.d_model, config.d_head
        self.qkv_proj = nn.Linear(D, (config.n_heads + 2 * config.kv_heads) * Dh, bias=config.qkv_bias)
        self.o_proj = nn.Linear(D, D, bias=config.bias)

    def forward(self, x: Float[Tensor, "B T D"], around: Surroundings) -> Float[Tensor, "B T D"]:
        B, T, D = x.shape
        q, k, v = self.queries_keys_values(x, around)
        # Chapter 03 writes this out; here it is one call, which divides by √Dh itself.
        mixed = _attend(q, k, v, around.mask, self.config.dropout if self.training else 0.0)
        return self.o_proj(mixed.transpose(1, 2).reshape(B, T, D))

    def queries_keys_values(
        self, x: Float[Tensor, "B T D"], around: Surroundings
    ) -> tuple[Float[Tensor, "B H T Dh"], Float[Tensor, "B G S Dh"], Float[Tensor, "B G S Dh"]]:
        """Queries of `x`; its keys and values, or once the cache has taken them all that the cache holds."""
        B, T, _ = x.shape
        H, G, Dh = self.config.n_heads, self.config.kv_heads, self.config.d_head

        q, k, v = self.qkv_proj(x).split([H * Dh, G * Dh, G * Dh], dim=-1)
        q = q.view(B, T, H, Dh).transpose(1, 2)  # (B, H, T, Dh)
        k = k.view(B, T, G, Dh).transpose(1, 2)  # (B, G, T, Dh)
        v = v.view(B, T, G, Dh).transpose(1, 2)  # (B, G, T, Dh)
        if around.rotary is not None:
            q, k = rotate(q, *around.rotary), rotate(k, *around.rotary)
        if around.cache is not None:
            k, v = around.cache.extend(self.layer, k, v)  # (B, G, S, Dh)
        return q, k, v


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """The fused kernel with dropout `p`, where it is the fastest.

    On a CPU it is slow in bfloat16 (37 ms for what takes 12 in products), and has no dropout: PyTorch would
    then take products, too, and its own dropout. A single query with no mask is the newest token: it may look
    at everything there is.
    """
    n_heads, n_tokens, d_head = q.shape[1:]
    is_causal, is_grouped = mask is None and n_tokens > 1, k.shape[1] < n_heads
    is_on_cpu, is_narrow = v.device.type == "cpu", v.dtype == torch.bfloat16
    # Up to there the weights, H · T for each token, are at most 4 D wide.
    products_are_faster = is_narrow and n_tokens <= 4 * d_head
    if is_on_cpu and is_causal and (products_are_faster or p > 0):
        return _attend_in_products(q, k, v, p)
    if mask is not None and is_grouped and v.device.type == "cuda":
        return _attend_grouped(q, k, v, mask, p)
    if not (is_on_cpu and is_narrow):
        return F.scaled_dot_product_attention(q, k, v, mask, p, is_causal, enable_gqa=is_grouped)
    with torch.autocast("cpu", enabled=False):
        q, k, v = q.float(), k.float(), v.float()
        mixed = F.scaled_dot_product_attention(q, k, v, mask, p, is_causal, enable_gqa=is_grouped)
    return mixed.bfloat16()


def _attend_grouped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, p: float) -> Tensor:
    """`enable_gqa` for those fused kernels that take a mask: they know no groups, so PyTorch 2.13 would
    compute all scores, and keep them, in float32."""
    B, H, T, Dh = q.shape
    G = k.shape[1]
    if T == 1:  # a group's heads look at the same keys, as neighbouring queries do
        mixed = F.scaled_dot_product_attention(q.reshape(B, G, H // G, Dh), k, v, mask, p)
        return mixed.reshape(B, H, 1, Dh)
    return F.scaled_dot_product_attention(q, _for_each_head(k, H), _for_each_head(v, H), mask, p)


def _for_each_head(part: Float[Tensor, "B G S Dh"], n_heads: int) -> Float[Tensor, "B H S Dh"]:
    """Keys or values of groups, repeated for each of their heads; of heads, as they are."""
    n_groups = part.shape[1]
    return part if n_groups == n_heads else part.repeat_interleave(n_heads // n_groups, dim=1)


def _attend_in_products(q: Tensor, k: Tensor, v: Tensor, p: float) -> Tensor:
    """Causal attention as two batched products around a softmax, which keeps all weights for the way back.

    Products in bfloat16 run at the processor's full speed; scores are rounded to it too, and the softmax
    computes from them in float32.
    """
    B, H, T, Dh = q.shape
    q, k, v = (part.reshape(B * H, T, Dh) for part in (q, _for_each_head(k, H), _for_each_head(v, H)))
    future = torch.full((T, T), -math.inf, dtype=v.dtype, device=v.device).triu(1)
    scores = torch.baddbmm(future.expand(B * H, T, T), q, k.mT, alpha=Dh**-0.5)
    weights = dropout(torch.softmax(scores, dim=-1), p)
    return (weights @ v).view(B, H, T, Dh)
