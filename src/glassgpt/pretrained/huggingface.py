"""GPT-2 in Hugging Face's format: `config.json` and `model.safetensors`, whole or in shards.

The names are those of transformers' `GPT2LMHeadModel`. Queries, keys and values are one matrix `c_attn` as
they are one `qkv_proj` here, in the same order; matrices are stored (in, out).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from glassgpt.errors import CheckpointError
from glassgpt.model.config import ModelConfig
from glassgpt.pretrained.bpe_files import read_bpe_files, read_tokenizer_json
from glassgpt.pretrained.huggingface_config import config_from
from glassgpt.pretrained.name_map import AS_OURS, IN_OUT, Place, places_for
from glassgpt.pretrained.stored import (
    SafetensorsWeights,
    StateDictWeights,
    StoredModel,
    Weights,
    check_size,
    load_pickle,
    read_json,
    require_state_dict,
    weights_differ,
)
from glassgpt.tokenizers import Tokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHARDS, PICKLE = "model.safetensors.index.json", "pytorch_model.bin"
VOCABULARY, MERGES, TOKENIZER = "vocab.json", "merges.txt", "tokenizer.json"
PREFIX, HEAD, EMBEDDING = "transformer.", "lm_head.weight", "wte.weight"

TABLE = {
    "wte.weight": Place("token_embedding.weight", AS_OURS),
    "wpe.weight": Place("position_embedding.weight", AS_OURS),
    "h.{layer}.ln_1.weight": Place("blocks.{layer}.attention_norm.weight", AS_OURS),
    "h.{layer}.ln_1.bias": Place("blocks.{layer}.attention_norm.bias", AS_OURS),
    "h.{layer}.attn.c_attn.weight": Place("blocks.{layer}.attention.qkv_proj.weight", IN_OUT),
    "h.{layer}.attn.c_attn.bias": Place("blocks.{layer}.attention.qkv_proj.bias", AS_OURS),
    "h.{layer}.attn.c_proj.weight": Place("blocks.{layer}.attention.o_proj.weight", IN_OUT),
    "h.{layer}.attn.c_proj.bias": Place("blocks.{layer}.attention.o_proj.bias", AS_OURS),
    "h.{layer}.ln_2.weight": Place("blocks.{layer}.feedforward_norm.weight", AS_OURS),
    "h.{layer}.ln_2.bias": Place("blocks.{layer}.feedforward_norm.bias", AS_OURS),
    "h.{layer}.mlp.c_fc.weight": Place("blocks.{layer}.feedforward.up_proj.weight", IN_OUT),
    "h.{layer}.mlp.c_fc.bias": Place("blocks.{layer}.feedforward.up_proj.bias", AS_OURS),
    "h.{layer}.mlp.c_proj.weight": Place("blocks.{layer}.feedforward.down_proj.weight", IN_OUT),
    "h.{layer}.mlp.c_proj.bias": Place("blocks.{layer}.feedforward.down_proj.bias", AS_OURS),
    "ln_f.weight": Place("final_norm.weight", AS_OURS),
    "ln_f.bias": Place("final_norm.bias", AS_OURS),
}

BUFFERS = re.compile(rf"({re.escape(PREFIX)})?h\.\d+\.attn\.(bias|masked_bias)")
"""The causal mask and the number that stands for −∞, which old versions saved with the weights."""


def open_huggingface(folder: Path) -> StoredModel:
    """Open the folder of a GPT-2 that transformers saved, or that lies on the Hugging Face hub.

    Raises CheckpointError when it is another architecture, incomplete, or damaged.
    """
    config = config_from(read_json(folder / CONFIG), folder / CONFIG)
    return from_tensors(config, _open_weights(folder), lambda: read_tokenizer(folder))


def from_tensors(
    config: ModelConfig, weights: Weights, read_tokenizer: Callable[[], Tokenizer | None]
) -> StoredModel:
    """A model from tensors with Hugging Face's names; those of a bare `GPT2Model` have no prefix.

    Where `config` ties the head and the file has one of its own that differs from the embedding, it is not
    tied, whatever was said: those are the weights that were trained. Raises CheckpointError where the model
    is many times as large as its weights.
    """
    check_size(config, weights)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in weights.shapes) else ""
    places = {prefix + name: place for name, place in places_for(TABLE, config.n_layers).items()}
    if config.tied_embeddings and weights_differ(weights, HEAD, prefix + EMBEDDING):
        config = replace(config, tied_embeddings=False)
    return StoredModel(
        format="huggingface",
        config=config,
        weights=weights,
        places={**places, HEAD: Place("head.weight", AS_OURS)},
        read_tokenizer=read_tokenizer,
        ignored=frozenset(filter(BUFFERS.fullmatch, weights.shapes)),
    )


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer beside the weights; None where there are no files of one.

    Raises CheckpointError when it is not GPT-2's kind.
    """
    if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
        return read_bpe_files(folder / VOCABULARY, folder / MERGES)
    if (folder / TOKENIZER).is_file():
        return read_tokenizer_json(folder / TOKENIZER)
    return None


def _open_weights(folder: Path) -> Weights:
    """The tensors in whichever file holds them; safetensors where there is a choice."""
    if (folder / WEIGHTS).is_file():
        return SafetensorsWeights(folder / WEIGHTS, [folder / WEIGHTS])
    if (folder / SHARDS).is_file():
        return _open_shards(folder / SHARDS)
    if (folder / PICKLE).is_file():
        return StateDictWeights(
            folder / PICKLE, require_state_dict(load_pickle(folder / PICKLE), folder / PICKLE)
        )
    raise CheckpointError(
        f"{folder} has a {CONFIG} and no weights. They are one of {WEIGHTS}, {SHARDS} with the files it "
        f"names, and {PICKLE}: put them there."
    )


def _open_shards(index: Path) -> Weights:
    """The tensors of all files that the index names. Raises CheckpointError unless both agree."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files. Copy it again.")
    names = sorted(set(listed.values()))
    outside = [repr(file) for file in names if Path(file).name != file or not file.isprintable()]
    if outside:
        raise CheckpointError(
            f"{index} names files that can only be outside its folder: {', '.join(outside)}. Copy it again."
        )
    weights = SafetensorsWeights(index.parent, [index.parent / file for file in names])
    if weights.shapes.keys() != listed.keys():
        astray = sorted(weights.shapes.keys() ^ listed.keys())
        raise CheckpointError(
            f"{index} and the files it names disagree on {', '.join(astray[:5])}"
            f"{', …' if len(astray) > 5 else ''}. Copy the folder again."
        )
    return weights
