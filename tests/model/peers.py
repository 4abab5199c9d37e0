"""Models of the transformers library with random weights, and those weights under our names.

Each map is linear (renaming, transposing, joining), so it also carries gradients.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
import transformers
from torch import Tensor

from glassgpt.model.config import ModelConfig
from tests.model.tiny import CONTEXT, DH, F, H, L, V, tiny_config

Named = Mapping[str, Tensor]

GPT2_NAMES = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv_proj",
    "attn.c_proj": "attention.o_proj",
    "ln_2": "feedforward_norm",
    "mlp.c_fc": "feedforward.up_proj",
    "mlp.c_proj": "feedforward.down_proj",
}
LLAMA_NAMES = {
    "input_layernorm": "attention_norm",
    "self_attn.o_proj": "attention.o_proj",
    "post_attention_layernorm": "feedforward_norm",
    "mlp.gate_proj": "feedforward.gate_proj",
    "mlp.up_proj": "feedforward.up_proj",
    "mlp.down_proj": "feedforward.down_proj",
}


def from_gpt2(theirs: Named, n_layers: int) -> dict[str, Tensor]:
    """GPT-2's matrices are stored (in, out), as TensorFlow multiplies; ours are (out, in)."""
    ours = {
        "token_embedding.weight": theirs["transformer.wte.weight"],
        "position_embedding.weight": theirs["transformer.wpe.weight"],
        "final_norm.weight": theirs["transformer.ln_f.weight"],
        "final_norm.bias": theirs["transformer.ln_f.bias"],
    }
    for layer in range(n_layers):
        for their_name, our_name in GPT2_NAMES.items():
            weight = theirs[f"transformer.h.{layer}.{their_name}.weight"]
            ours[f"blocks.{layer}.{our_name}.weight"] = weight if weight.ndim == 1 else weight.T
            ours[f"blocks.{layer}.{our_name}.bias"] = theirs[f"transformer.h.{layer}.{their_name}.bias"]
    return ours


def from_llama(theirs: Named, n_layers: int) -> dict[str, Tensor]:
    """Llama's, Mistral's and Qwen2's: queries, keys and values are three matrices, ours is one."""
    ours = {
        "token_embedding.weight": theirs["model.embed_tokens.weight"],
        "final_norm.weight": theirs["model.norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    for layer in range(n_layers):
        for their_name, our_name in LLAMA_NAMES.items():
            weight = theirs[f"model.layers.{layer}.{their_name}.weight"]
            ours[f"blocks.{layer}.{our_name}.weight"] = weight
        for kind in ("weight", "bias"):
            parts = [theirs.get(f"model.layers.{layer}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            if parts[0] is not None:
                ours[f"blocks.{layer}.attention.qkv_proj.{kind}"] = torch.cat(parts)
    return ours


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Make transformers compute in float64 throughout.

    Its Llama takes norms, softmax and angles to float32 whatever the model's dtype, which would leave seven
    digits to compare. While this lasts, what it calls float32 is float64.
    """
    with (
        mock.patch.object(torch, "float32", torch.float64),
        mock.patch.object(torch, "float", torch.float64),
        mock.patch.object(Tensor, "float", Tensor.double),
    ):
        yield


def _build(model_class: Any, config: Any) -> Any:
    torch.manual_seed(0)
    config._attn_implementation = "eager"  # the plainest of theirs
    peer = model_class(config).double().eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.3).add_(0.1)  # far from where biases and norms start
    return peer


def gpt2() -> tuple[Any, ModelConfig, Callable[[Named, int], dict[str, Tensor]]]:
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=CONTEXT, n_embd=H * DH, n_layer=L, n_head=H, n_inner=F,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return _build(transformers.GPT2LMHeadModel, config), tiny_config(), from_gpt2


def _llama_like(
    model_class: Any, config_class: Any, theirs: dict[str, Any], **choices: Any
) -> tuple[Any, ModelConfig, Callable[[Named, int], dict[str, Tensor]]]:
    config = config_class(
        vocab_size=V, max_position_embeddings=CONTEXT, hidden_size=H * DH, num_hidden_layers=L,
        num_attention_heads=H, num_key_value_heads=3, intermediate_size=F, rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, tie_word_embeddings=False, **theirs,
    )  # fmt: skip
    ours = tiny_config(
        norm="rmsnorm", norm_eps=1e-3, positions="rope", rope_theta=500.0, feedforward="swiglu",
        n_kv_heads=3, bias=False, tied_embeddings=False, **choices,
    )  # fmt: skip
    return _build(model_class, config), ours, from_llama


def llama() -> tuple[Any, ModelConfig, Callable[[Named, int], dict[str, Tensor]]]:
    return _llama_like(transformers.LlamaForCausalLM, transformers.LlamaConfig, {}, qkv_bias=False)


def mistral() -> tuple[Any, ModelConfig, Callable[[Named, int], dict[str, Tensor]]]:
    """A Llama whose attention sees 5 tokens back."""
    return _llama_like(
        transformers.MistralForCausalLM, transformers.MistralConfig, {"sliding_window": 5},
        qkv_bias=False, attention_window=5,
    )  # fmt: skip


def qwen2() -> tuple[Any, ModelConfig, Callable[[Named, int], dict[str, Tensor]]]:
    """A Llama with biases on queries, keys and values alone."""
    return _llama_like(transformers.Qwen2ForCausalLM, transformers.Qwen2Config, {}, qkv_bias=True)
