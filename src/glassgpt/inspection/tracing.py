"""A model watched while it reads: everything that it computes on the way from token ids to logits."""

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from glassgpt.errors import DataError
from glassgpt.model.attention import CausalSelfAttention, Surroundings
from glassgpt.model.gpt import GPT
from glassgpt.model.modes import evaluating
from glassgpt.model.positions import rotate


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What `trace` saw, on the model's device and in no graph; all but the logits begin with the layer."""

    residual: Float[Tensor, "n_layers_and_1 B T D"]
    """The residual stream: what each block reads, and last what the final norm reads."""
    attention_weights: Float[Tensor, "n_layers B H T T"]
    """Rows look, columns are looked at; each row sums to 1. float32 where the model is narrower."""
    values: Float[Tensor, "n_layers B G T Dh"]
    """What the weights mix: head h brings attention_weights[l, b, h] @ values[l, b, h // (H // G)]."""
    mlp_activations: Float[Tensor, "n_layers B T F"]
    """What `down_proj` reads: behind gelu, or with swiglu gate times up."""
    logits: Float[Tensor, "B T V"]

    @property
    def embeddings(self) -> Float[Tensor, "B T D"]:
        """Token plus position embedding, which is what the first block reads."""
        return self.residual[0]


@torch.no_grad()
def trace(model: GPT, token_ids: Int[Tensor, "..."]) -> Trace:
    """Run `model` on `token_ids` (B, T), without dropout, and keep what its parts compute. Chapter 03.

    Forward hooks listen: the model's code and its logits are what they always are, and when this returns
    or raises the hooks are gone and every module is back in its mode. Only the attention weights are
    computed here, from the queries and keys, since the model's fused kernel never holds them.

    They take L · B · H · T² numbers: 0.6 GB for GPT-2 124M and 1,024 tokens. Raises DataError unless
    `token_ids` is (B, T) with a token in it, and what the model raises.
    """
    if token_ids.ndim != 2 or token_ids.numel() == 0:
        raise DataError(
            f"token_ids has shape {tuple(token_ids.shape)}; trace needs (B, T), each at least 1. "
            f"For a single sequence pass token_ids[None]."
        )
    notes = _Notes(len(model.blocks))
    with evaluating(model), contextlib.ExitStack() as hooks:
        for layer, block in enumerate(model.blocks):
            for handle in _Listener(layer, notes).listen(block):
                hooks.enter_context(handle)
        before_final_norm = _in_this_thread(notes.before_final_norm)
        hooks.enter_context(model.final_norm.register_forward_pre_hook(before_final_norm))
        logits = model(token_ids)
    return Trace(
        residual=notes.residual.all,
        attention_weights=notes.attention_weights.all,
        values=notes.values.all,
        mlp_activations=notes.mlp_activations.all,
        logits=logits,
    )


@torch.no_grad()
def logit_lens(model: GPT, residual: Float[Tensor, "n B T D"]) -> Float[Tensor, "n B T V"]:
    """What the model would predict if each of these residual streams were its last.

    head(final_norm(residual)), layer by layer (nostalgebraist 2020, "interpreting GPT: the logit lens");
    the last of `Trace.residual` gives the model's own logits.
    """
    return torch.stack([model.head(model.final_norm(stream)) for stream in residual])


class _Room:
    """Room for a tensor of each layer, taken when the first one comes; nothing is held twice."""

    def __init__(self, n: int) -> None:
        self.n = n

    def put(self, layer: int, tensor: Tensor) -> None:
        if layer == 0:
            self.all = tensor.new_empty(self.n, *tensor.shape)
        self.all[layer] = tensor


class _Notes:
    """What the listeners of all layers write down."""

    def __init__(self, n_layers: int) -> None:
        self.n_layers = n_layers
        self.residual = _Room(n_layers + 1)
        self.attention_weights = _Room(n_layers)
        self.values = _Room(n_layers)
        self.mlp_activations = _Room(n_layers)

    def before_final_norm(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self.residual.put(self.n_layers, inputs[0])


class _Listener:
    """Writes down what the block of one layer computes."""

    def __init__(self, layer: int, notes: _Notes) -> None:
        self.layer = layer
        self.notes = notes

    def listen(self, block: Any) -> list[RemovableHandle]:  # a Block: ModuleList forgets classes
        return [
            block.register_forward_pre_hook(_in_this_thread(self.before_block)),
            block.attention.qkv_proj.register_forward_hook(_in_this_thread(self.after_qkv_proj)),
            block.attention.register_forward_hook(_in_this_thread(self.after_attention)),
            block.feedforward.down_proj.register_forward_pre_hook(_in_this_thread(self.before_down_proj)),
        ]

    def before_block(self, _: nn.Module, inputs: tuple[Tensor, Surroundings]) -> None:
        self.notes.residual.put(self.layer, inputs[0])

    def after_qkv_proj(self, _: nn.Module, inputs: Any, output: Tensor) -> None:
        self.qkv = output

    def after_attention(
        self, attention: CausalSelfAttention, inputs: tuple[Tensor, Surroundings], _: Any
    ) -> None:
        weights, values = _weights_and_values(attention, self.qkv, inputs[1])
        del self.qkv  # it is the largest thing of a layer after the weights
        self.notes.attention_weights.put(self.layer, weights)
        self.notes.values.put(self.layer, values)

    def before_down_proj(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self.notes.mlp_activations.put(self.layer, inputs[0])


def _weights_and_values(
    attention: CausalSelfAttention, qkv: Float[Tensor, "B T width"], around: Surroundings
) -> tuple[Float[Tensor, "B H T T"], Float[Tensor, "B G T Dh"]]:
    """softmax(q kᵀ / √Dh, masked), and v, from the output of `qkv_proj`."""
    H, G, Dh = attention.config.n_heads, attention.config.kv_heads, attention.config.d_head
    B, T, _ = qkv.shape
    q, k, v = (part.view(B, T, -1, Dh).transpose(1, 2) for part in qkv.split([H * Dh, G * Dh, G * Dh], -1))
    if around.rotary is not None:
        q, k = rotate(q, *around.rotary), rotate(k, *around.rotary)
    k = k.repeat_interleave(H // G, dim=1)  # (B, H, T, Dh)

    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)  # as the fused kernel sums, whatever it reads
        scores = q.to(wide) @ k.to(wide).transpose(-2, -1) / math.sqrt(Dh)  # (B, H, T, T)
        visible = around.mask
        if visible is None:
            visible = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
        return scores.masked_fill_(~visible, -math.inf).softmax(dim=-1), v


def _in_this_thread(hook: Callable[..., None]) -> Callable[..., None]:
    """`hook`, deaf to what other threads compute with the same model."""
    here = threading.get_ident()

    def listening(*seen: Any) -> None:
        if threading.get_ident() == here:
            hook(*seen)

    return listening
