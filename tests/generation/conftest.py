"""Tiny models whose logits are far from even, so that every setting makes a difference."""

from collections.abc import Callable

import pytest
import torch

from glassgpt.model import GPT, ModelConfig


@pytest.fixture
def make_model() -> Callable[..., GPT]:
    """A GPT in float64, in training mode and with dropout: generation must see neither."""

    def make(**changes) -> GPT:
        settings = {
            "vocab_size": 31,
            "context_length": 13,
            "d_model": 12,
            "n_layers": 2,
            "n_heads": 2,
            "dropout": 0.5,
        }
        torch.manual_seed(0)
        model = GPT(ModelConfig(**{**settings, **changes})).double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        return model.train()

    return make
