"""What a model costs, from its configuration alone: parameters, memory, arithmetic.

Nothing is built, so the four sizes of GPT-2 can be compared on a machine that could hold none of them.
"""

from dataclasses import dataclass

from glassgpt.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Trainable numbers by part; `total` is what `GPT(config).n_parameters` counts."""

    token_embedding: int
    position_embedding: int
    attention: int
    feedforward: int
    norms: int
    head: int
    """0 where the head is tied to the token embedding."""

    @property
    def total(self) -> int:
        parts = (self.token_embedding, self.position_embedding, self.attention, self.feedforward)
        return sum(parts) + self.norms + self.head


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Costs of one configuration. Bytes are bytes; FLOPs count a multiplication and an addition as two."""

    parameters: Parameters
    weights_bytes: int
    """The weights alone, in the precision asked for."""
    activation_bytes: int
    """What the forward pass keeps for the backward pass, without dropout and without the logits."""
    training_bytes: int
    """float32 weights, gradients and AdamW's two moments, and the activations."""
    cache_bytes_per_token: int
    """Keys and values of one token in all layers."""
    forward_flops_per_token: int
    training_flops_per_token: int
    """Forward and backward: three times the forward's."""


def count_parameters(config: ModelConfig) -> Parameters:
    """Count the parameters by part, exactly. Chapter 04."""
    D, L, width = config.d_model, config.n_layers, config.hidden_width
    qkv = (config.n_heads + 2 * config.kv_heads) * config.d_head
    attention = D * qkv + D * D + config.qkv_bias * qkv + config.bias * D
    feedforward = 2 * D * width + config.bias * (width + D)
    if config.feedforward == "swiglu":
        feedforward += D * width + config.bias * width
    norm = D * (2 if config.norm == "layernorm" and config.bias else 1)
    return Parameters(
        token_embedding=config.vocab_size * D,
        position_embedding=config.context_length * D if config.positions == "learned" else 0,
        attention=L * attention,
        feedforward=L * feedforward,
        norms=(2 * L + 1) * norm,
        head=0 if config.tied_embeddings else config.vocab_size * D,
    )


def estimate(
    config: ModelConfig, *, micro_batch_size: int = 1, tokens: int | None = None, bytes_per_number: int = 4
) -> Estimate:
    """Estimate the costs of `config` for `micro_batch_size` sequences of `tokens` (default: the context).

    `bytes_per_number` is that of weights, activations and cache: 4 for float32, 2 for bfloat16.

    A matrix of n weights costs 2n FLOPs a token forward, and the scores and their use 4·H·Dh·T more per
    layer, so a trained token costs 6N + 12·L·H·Dh·T (Chowdhery et al. 2022, arXiv:2204.02311 appendix
    B); N counts the matrices, the head's among them, and not the embedding tables, which are only looked
    up. Like the paper, it does not halve the attention for causality. Chapter 04.
    """
    n_tokens = config.context_length if tokens is None else tokens
    parameters = count_parameters(config)
    span = min(n_tokens, config.attention_window or n_tokens)
    mixing = 4 * config.n_layers * config.n_heads * config.d_head * span
    forward = 2 * _matrix_weights(config) + mixing
    activations = _activation_numbers_per_token(config) * micro_batch_size * n_tokens * bytes_per_number
    return Estimate(
        parameters=parameters,
        weights_bytes=parameters.total * bytes_per_number,
        activation_bytes=activations,
        training_bytes=parameters.total * 4 * 4 + activations,
        cache_bytes_per_token=2 * config.n_layers * config.kv_heads * config.d_head * bytes_per_number,
        forward_flops_per_token=forward,
        training_flops_per_token=3 * forward,
    )


def _matrix_weights(config: ModelConfig) -> int:
    """Weights that every token is multiplied by: all matrices of the blocks, and the head."""
    D, heads = config.d_model, config.n_heads + 2 * config.kv_heads
    attention = D * heads * config.d_head + D * D
    feedforward = (3 if config.feedforward == "swiglu" else 2) * D * config.hidden_width
    return config.n_layers * (attention + feedforward) + config.vocab_size * D


def _activation_numbers_per_token(config: ModelConfig) -> int:
    """Numbers a token leaves behind for the backward pass, with the fused attention that keeps no T × T.

    Each operation keeps its inputs: a norm D (an rmsnorm 2 D, since it is two operations on a CPU), the
    four projections D, D, D and F, the attention q, k and v (and its output, which is o_proj's input),
    the feed-forward's bend F, or 3 F for swiglu. Rotated queries and keys are kept beside the unrotated
    ones, which share their memory with v, and come in an order that costs o_proj a copy. The last norm
    and the head keep their inputs too.

    Single numbers per token or head are left out, and so are the logits: the loss is computed in slices
    that are thrown away. Dropout would add its masks and, on a CPU, the T × T attention weights.
    """
    D, width = config.d_model, config.hidden_width
    kv_width = config.kv_heads * config.d_head
    norm = 2 * D if config.norm == "rmsnorm" else D
    attention = D + (D + 2 * kv_width) + D
    if config.positions == "rope":
        attention += (D + kv_width) + D
    bend = 3 * width if config.feedforward == "swiglu" else width
    feedforward = D + bend + width
    return config.n_layers * (2 * norm + attention + feedforward) + norm + D
