"""The `config.json` of Hugging Face's GPT-2 ↔ our ModelConfig."""

from pathlib import Path
from typing import Any

from glassgpt.errors import CheckpointError, ConfigError, raise_problems
from glassgpt.model.config import ModelConfig

SETTINGS = {  # ours: theirs
    "vocab_size": "vocab_size",
    "context_length": "n_positions",
    "d_model": "n_embd",
    "n_layers": "n_layer",
    "n_heads": "n_head",
    "d_ff": "n_inner",
    "norm_eps": "layer_norm_epsilon",
    "tied_embeddings": "tie_word_embeddings",
}
OPTIONAL = {"d_ff", "norm_eps", "tied_embeddings"}
"""Where a config.json is silent on these, transformers takes the values that are our defaults."""
DROPOUTS = ("embd_pdrop", "attn_pdrop", "resid_pdrop")

COMPUTED = {  # what our GPT computes, by the values that mean it; the first is what we write
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
}

REPRESENTABLE = {  # what Hugging Face's GPT-2 computes
    "norm": "layernorm",
    "positions": "learned",
    "feedforward": "gelu",
    "attention_window": None,
    "bias": True,
    "qkv_bias": True,
}


def config_from(theirs: dict[str, Any], path: Path) -> ModelConfig:
    """Our configuration of the model that a `config.json` describes; `path` names it in messages.

    The shares of dropout are one number here. Where theirs differ it is 0: they say how the model was
    trained, not what it computes. Raises CheckpointError naming everything that our GPT cannot represent.
    """
    if theirs.get("model_type") != "gpt2":
        raise CheckpointError(
            f"{path} describes a model of type {theirs.get('model_type')!r}. In Hugging Face's format only "
            f"'gpt2' can be read here."
        )
    problems = [
        f"{name}={theirs[name]!r}; our GPT computes {' or '.join(map(repr, values))}."
        for name, values in COMPUTED.items()
        if theirs.get(name, values[0]) not in values
    ]
    if theirs.get("quantization_config"):
        problems.append("quantization_config: quantised weights cannot be read. Save the model without it.")
    problems += [
        f"{name} is missing."
        for ours, name in SETTINGS.items()
        if ours not in OPTIONAL and name not in theirs
    ]
    raise_problems(CheckpointError, [f"{path}: {problem}" for problem in problems], str(path))
    values = {ours: theirs[name] for ours, name in SETTINGS.items() if name in theirs}
    dropouts = [theirs.get(name, 0.1) for name in DROPOUTS]
    if dropouts.count(dropouts[0]) == len(dropouts):
        values["dropout"] = dropouts[0]
    try:
        return ModelConfig(**values)
    except ConfigError as fault:
        raise CheckpointError(f"{path} describes no model: {fault}") from fault


def config_to(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `config_from`.

    Raises ConfigError naming the fields of a model that Hugging Face's GPT-2 cannot represent.
    """
    problems = [
        f"{name}={getattr(config, name)!r}; it has {value!r} only."
        for name, value in REPRESENTABLE.items()
        if getattr(config, name) != value
    ]
    if config.kv_heads != config.n_heads:
        problems.append(f"n_kv_heads={config.kv_heads}; it has as many as n_heads={config.n_heads} only.")
    if problems:
        raise ConfigError(
            "Hugging Face's GPT-2 cannot represent this model:\n  "
            + "\n  ".join(problems)
            + "\nConvert it to the format glassgpt or pt, which keep every field."
        )
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for ours, theirs in SETTINGS.items()},
        **dict.fromkeys(DROPOUTS, config.dropout),
        **{name: values[0] for name, values in COMPUTED.items()},
    }
