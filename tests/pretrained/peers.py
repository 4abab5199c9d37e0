"""Small GPT-2s of the transformers library in the four families of shapes, with weights that hide nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

V, CONTEXT, DH, T = 61, 19, 5, 17
FAMILIES = {"124M": (12, 3), "355M": (24, 2), "774M": (36, 2), "1558M": (48, 1)}
"""Layers of each size, and as many heads of 5 as keep it fast: the real ones have 12, 16, 20 and 25 of 64."""

every_family = pytest.mark.parametrize("family", FAMILIES)


def peer(family: str = "124M", *, tied: bool = True, **settings: Any) -> transformers.GPT2LMHeadModel:
    """A float64 model far from where initialisation would put it, so that a bias left out shows."""
    n_layers, n_heads = FAMILIES[family]
    sizes = {"n_positions": CONTEXT, "n_layer": n_layers, "n_head": n_heads, "n_embd": n_heads * DH}
    config = transformers.GPT2Config(
        vocab_size=V, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None,
        attn_implementation="eager", **(sizes | settings),
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3).add_(0.1)
    return model


def saved_peer(folder: Path, **settings: Any) -> transformers.GPT2LMHeadModel:
    """A peer that transformers itself has saved in `folder`."""
    model = peer(**settings)
    model.save_pretrained(folder)
    return model


def some_ids(vocab_size: int = V, rows: int = 3, tokens: int = T) -> torch.Tensor:
    return torch.randint(vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(1))
