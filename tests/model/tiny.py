"""Small models with every named choice, and weights that no axis can be swapped in unnoticed."""

from itertools import product
from typing import Any

import pytest
import torch

from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT

# Head counts need divisors and rope an even head; the other sizes are primes, and all are distinct.
B, T, H, DH, L, F, V, CONTEXT = 3, 13, 6, 10, 2, 29, 31, 17

EXACT = {"rtol": 0.0, "atol": 0.0}
"""The same operations on the same numbers, so not one bit may differ."""
ROUNDING = {"rtol": 0.0, "atol": 1e-11}
"""Numbers up to 100 in float64, summed in another order: rounding stays below 1e-12, a bug does not."""


def tiny_config(**choices: Any) -> ModelConfig:
    sizes = {"vocab_size": V, "context_length": CONTEXT, "d_model": H * DH, "n_layers": L, "n_heads": H}
    return ModelConfig(**{**sizes, "d_ff": F, **choices})


def tiny_model(config: ModelConfig, seed: int = 0) -> GPT:
    """A float64 model in eval mode; every parameter is far from where initialisation would put it, so that
    a bias or a norm's weight that is left out shows."""
    torch.manual_seed(seed)
    model = GPT(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3).add_(0.1)
    return model


def tiny_ids(rows: int = B, tokens: int = T, seed: int = 1) -> torch.Tensor:
    return torch.randint(V, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def _choices() -> dict[str, dict[str, Any]]:
    """Positions × key/value heads × window, in the style of GPT-2 and in that of Llama."""
    styles = {
        "gpt2": {},
        "llama": {"norm": "rmsnorm", "feedforward": "swiglu", "bias": False, "qkv_bias": False},
    }
    heads = {"multi-head": None, "grouped": 3, "multi-query": 1}
    windows = {"full": None, "window": 5}
    return {
        f"{style}-{positions}-{head}-{window}": {
            **styles[style],
            "positions": positions,
            "n_kv_heads": heads[head],
            "attention_window": windows[window],
        }
        for style, positions, head, window in product(styles, ("learned", "rope", "none"), heads, windows)
    }


CHOICES = _choices()
every_choice = pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
