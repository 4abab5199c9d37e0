"""GPT-2 as OpenAI published it: `hparams.json` and a TensorFlow checkpoint.

Matrices are convolutions of width 1, so (1, in, out); queries, keys and values are one matrix `c_attn`, in
that order, as `qkv_proj` is here. The head is the token embedding (Radford et al. 2019; OpenAI's model.py).
"""

from pathlib import Path

import torch
from torch import Tensor

from glassgpt.errors import CheckpointError, ConfigError, raise_problems
from glassgpt.model.config import ModelConfig
from glassgpt.pretrained.bpe_files import read_bpe_files
from glassgpt.pretrained.name_map import AS_OURS, ONE_IN_OUT, Place, places_for
from glassgpt.pretrained.stored import StoredModel, check_size, read_json
from glassgpt.pretrained.tf_checkpoint import open_checkpoint
from glassgpt.tokenizers import Tokenizer

HPARAMS, VOCABULARY, MERGES = "hparams.json", "encoder.json", "vocab.bpe"

TABLE = {
    "model/wte": Place("token_embedding.weight", AS_OURS),
    "model/wpe": Place("position_embedding.weight", AS_OURS),
    "model/h{layer}/ln_1/g": Place("blocks.{layer}.attention_norm.weight", AS_OURS),
    "model/h{layer}/ln_1/b": Place("blocks.{layer}.attention_norm.bias", AS_OURS),
    "model/h{layer}/attn/c_attn/w": Place("blocks.{layer}.attention.qkv_proj.weight", ONE_IN_OUT),
    "model/h{layer}/attn/c_attn/b": Place("blocks.{layer}.attention.qkv_proj.bias", AS_OURS),
    "model/h{layer}/attn/c_proj/w": Place("blocks.{layer}.attention.o_proj.weight", ONE_IN_OUT),
    "model/h{layer}/attn/c_proj/b": Place("blocks.{layer}.attention.o_proj.bias", AS_OURS),
    "model/h{layer}/ln_2/g": Place("blocks.{layer}.feedforward_norm.weight", AS_OURS),
    "model/h{layer}/ln_2/b": Place("blocks.{layer}.feedforward_norm.bias", AS_OURS),
    "model/h{layer}/mlp/c_fc/w": Place("blocks.{layer}.feedforward.up_proj.weight", ONE_IN_OUT),
    "model/h{layer}/mlp/c_fc/b": Place("blocks.{layer}.feedforward.up_proj.bias", AS_OURS),
    "model/h{layer}/mlp/c_proj/w": Place("blocks.{layer}.feedforward.down_proj.weight", ONE_IN_OUT),
    "model/h{layer}/mlp/c_proj/b": Place("blocks.{layer}.feedforward.down_proj.bias", AS_OURS),
    "model/ln_f/g": Place("final_norm.weight", AS_OURS),
    "model/ln_f/b": Place("final_norm.bias", AS_OURS),
}

SETTINGS = {  # theirs: ours
    "n_vocab": "vocab_size",
    "n_ctx": "context_length",
    "n_embd": "d_model",
    "n_head": "n_heads",
    "n_layer": "n_layers",
}


def open_openai(folder: Path) -> StoredModel:
    """Open the folder of one of OpenAI's models: `hparams.json` and `model.ckpt.*`, with its vocabulary.

    Raises CheckpointError when anything is missing or damaged.
    """
    config, weights = read_hparams(folder / HPARAMS), TensorFlowWeights(folder)
    check_size(config, weights)
    return StoredModel(
        format="openai",
        config=config,
        weights=weights,
        places=places_for(TABLE, config.n_layers),
        read_tokenizer=lambda: _read_tokenizer(folder),
    )


def read_hparams(path: Path) -> ModelConfig:
    """The configuration in OpenAI's `hparams.json`.

    Raises CheckpointError naming what is missing, and what is there and not known: it might change the model.
    """
    theirs = read_json(path)
    problems = [f"{path}: {name} is missing." for name in SETTINGS if name not in theirs]
    problems += [
        f"{path}: {name} is unknown; known are {', '.join(SETTINGS)}."
        for name in theirs
        if name not in SETTINGS
    ]
    raise_problems(CheckpointError, problems, str(path))
    try:
        return ModelConfig(**{ours: theirs[name] for name, ours in SETTINGS.items()})
    except ConfigError as fault:
        raise CheckpointError(f"{path} describes no model: {fault}") from fault


class TensorFlowWeights:
    """The tensors of a TensorFlow checkpoint, each checked against its CRC-32C as it is read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._checkpoint = open_checkpoint(folder)
        listed = self._checkpoint.list_tensors()
        for tensor in listed:
            if not isinstance(getattr(torch, tensor.dtype, None), torch.dtype):
                raise CheckpointError(
                    f"{tensor.name} in {folder} holds {tensor.dtype} values, which no model of ours has. "
                    f"Save the weights alone."
                )
        self.shapes = {tensor.name: tensor.shape for tensor in listed}
        self.dtypes = {tensor.name: getattr(torch, tensor.dtype) for tensor in listed}

    def read(self, name: str) -> Tensor:
        return torch.from_numpy(self._checkpoint.read_tensor(name))


def _read_tokenizer(folder: Path) -> Tokenizer | None:
    if not ((folder / VOCABULARY).is_file() and (folder / MERGES).is_file()):
        return None
    return read_bpe_files(folder / VOCABULARY, folder / MERGES)
