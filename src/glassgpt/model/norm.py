"""Normalisation: each token's vector brought to a common scale before a sublayer reads it."""

from torch import nn

from glassgpt.model.config import ModelConfig


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm that `config` names, over the last dimension of width D.

    layernorm: (x − mean) / √(variance + ε) · weight + bias (Ba et al. 2016, arXiv:1607.06450 §3).
    rmsnorm: x / √(mean of x² + ε) · weight (Zhang and Sennrich 2019, arXiv:1910.07467 §3), which never
    has a bias. PyTorch's fused kernels compute both. Chapter 04.
    """
    if config.norm == "layernorm":
        return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)
    return nn.RMSNorm(config.d_model, eps=config.norm_eps)
