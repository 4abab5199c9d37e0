"""Attention by hand: one query after another, one key after another. Chapter 03."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from glassgpt.model.attention import CausalSelfAttention


def softmax(scores: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
    """exp(score) / Σ exp(score). The largest score is taken off first, which changes nothing but keeps
    exp from overflowing."""
    powers = torch.exp(scores - scores.max())
    return powers / powers.sum()


def look(
    query: Float[Tensor, " Dh"], keys: Float[Tensor, "S Dh"], values: Float[Tensor, "S Dh"]
) -> Float[Tensor, " Dh"]:
    """What one query reads: the mean of the values, weighted by how well each one's key fits the query."""
    scores = [query @ key / math.sqrt(len(query)) for key in keys]
    weights = softmax(torch.stack(scores))
    mixed = torch.zeros_like(query)
    for weight, value in zip(weights, values, strict=True):
        mixed = mixed + weight * value
    return mixed


def turn(vector: Float[Tensor, " Dh"], position: int, theta: float) -> Float[Tensor, " Dh"]:
    """Rotary positions: turn the pair (x_i, x_{i + Dh/2}) by the angle position / theta^(2i/Dh)."""
    half = len(vector) // 2
    turned = torch.empty_like(vector)
    for i in range(half):
        angle = position / theta ** (2 * i / len(vector))
        x, y = vector[i], vector[i + half]
        turned[i] = x * math.cos(angle) - y * math.sin(angle)
        turned[i + half] = x * math.sin(angle) + y * math.cos(angle)
    return turned


def attend(attention: CausalSelfAttention, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """What `attention` computes, with its weights: every head of every position looks back by itself."""
    config = attention.config
    H, G, Dh = config.n_heads, config.kv_heads, config.d_head
    window = config.attention_window or config.context_length

    rows = []
    for row in x:
        # One column block of width Dh for each query head, then each key head, then each value head.
        heads = attention.qkv_proj(row).split(Dh, dim=-1)  # H + 2 G times (T, Dh)
        if config.positions == "rope":
            turned = [
                torch.stack([turn(vector, t, config.rope_theta) for t, vector in enumerate(head)])
                for head in heads[: H + G]
            ]
            heads = (*turned, *heads[H + G :])
        positions = []
        for t in range(len(row)):
            seen = slice(max(0, t - window + 1), t + 1)  # itself and what came before, never what follows
            mixed = []
            for h in range(H):
                g = h // (H // G)  # the key/value head that serves query head h
                mixed.append(look(heads[h][t], heads[H + g][seen], heads[H + G + g][seen]))
            positions.append(torch.cat(mixed))
        rows.append(attention.o_proj(torch.stack(positions)))
    return torch.stack(rows)
