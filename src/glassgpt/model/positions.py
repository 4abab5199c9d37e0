"""Where a token stands: rotary positions, and which earlier tokens a position may look at.

Learned positions are an embedding table, added in `gpt.py`; `none` adds nothing, and a causal model can
still tell positions apart by how many tokens it sees (arXiv:2203.16634).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def rotary_angles(
    positions: Int[Tensor, "*batch T"], d_head: int, theta: float, dtype: torch.dtype
) -> tuple[Float[Tensor, "*batch 1 T half"], Float[Tensor, "*batch 1 T half"]]:
    """Cosine and sine of position · theta^(−2i/Dh), for each of a head's Dh/2 pairs of coordinates.

    The angles are computed in float32 or wider whatever `dtype` is: bfloat16 cannot tell position 256
    from 257. The dimension of size 1 broadcasts over heads.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponents = torch.arange(0, d_head, 2, device=positions.device, dtype=wide) / d_head
    angles = positions[..., None, :, None].to(wide) * theta**-exponents
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    x: Float[Tensor, "B heads T Dh"],
    cos: Float[Tensor, "*_batch 1 T half"],
    sin: Float[Tensor, "*_batch 1 T half"],
) -> Float[Tensor, "B heads T Dh"]:
    """Turn each pair (x_i, x_{i + Dh/2}) by its position's angle (Su et al. 2021, arXiv:2104.09864 §3.4.2).

    The dot product of a turned query and a turned key then depends only on how far apart they stand.
    The paper pairs neighbours (2i, 2i + 1); pairing the halves is the layout of Llama's published
    weights, and the same up to a permutation of the projection's rows. Chapter 03.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attention_mask(
    n_queries: int,
    n_keys: int,
    window: int | None,
    n_padding: Int[Tensor, " B"] | None,
    device: torch.device,
) -> Bool[Tensor, "batch 1 T S"] | None:
    """Which keys each query may look at: True where it may. None: all of them up to itself.

    The queries are the last `n_queries` of `n_keys` positions. A key is visible when it is not in the
    future, at most `window` − 1 back, and not one of its row's first `n_padding` positions. (Padding
    itself sees itself, since a softmax over nothing is not a number; nobody looks at the result.)
    """
    unwindowed = window is None or n_keys <= window
    if n_padding is None and unwindowed and n_queries in (1, n_keys):
        return None  # the fused kernel knows these two cases without a mask
    keys = torch.arange(n_keys, device=device)
    queries = keys[n_keys - n_queries :, None]  # (T, 1)
    visible = keys <= queries  # (T, S)
    if window is not None:
        visible = visible & (keys > queries - window)
    if n_padding is None:
        return visible[None, None]
    real = keys >= n_padding[:, None, None, None]  # (B, 1, 1, S)
    return (visible & real) | (keys == queries)
