"""Causal self-attention: the only place where a token learns of the others."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from glassgpt.model.config import ModelConfig
from glassgpt.model.kv_cache import KVCache
from glassgpt.model.positions import rotate


class Surroundings(NamedTuple):
    """What all layers of one call share: computed once, in `GPT.hidden`."""

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

        # Chapter 03 writes this out; here it is one fused call, which divides by √Dh itself. A single
        # query with no mask is the newest token: it may look at everything there is.
        mixed = _attend(
            q,
            k,
            v,
            attn_mask=around.mask,
            is_causal=around.mask is None and T > 1,
            dropout_p=self.config.dropout if self.training else 0.0,
            enable_gqa=G < H,
        )
        return self.o_proj(mixed.transpose(1, 2).reshape(B, T, H * Dh))


def _attend(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
    """One fused call; on a CPU never in bfloat16, for which PyTorch's kernel there takes twice to six times
    as long as for float32, forward, backward and with a cache."""
    if v.device.type != "cpu" or v.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, **how)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), **how).to(v.dtype)
