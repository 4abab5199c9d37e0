"""One `.pt` file: weights, configuration and tokenizer together, as PyTorch saves tensors and plain values.

{"format": "glassgpt", "model": configuration, "weights": {name: tensor}, "tokenizer": JSON text or None}

Read with `weights_only=True`, as is the state dict that somebody else saved as `.pt` or `.pth`.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glassgpt.errors import CheckpointError, GlassGPTError
from glassgpt.model.config import GPT2_SIZES, ModelConfig, gpt2
from glassgpt.model.folder import read_description, weights_to_save
from glassgpt.model.gpt import EMBEDDING, GPT, HEAD
from glassgpt.pretrained import huggingface
from glassgpt.pretrained.huggingface_config import config_from
from glassgpt.pretrained.name_map import own_places
from glassgpt.pretrained.stored import (
    StateDictWeights,
    StoredModel,
    check_size,
    load_pickle,
    read_json,
    require_state_dict,
    weights_differ,
)
from glassgpt.tokenizers import Tokenizer, load_tokenizer

SUFFIXES = (".pt", ".pth", ".bin")


def write_pt(model: GPT, tokenizer: Tokenizer | None, path: Path) -> None:
    """Write `model` and its tokenizer as the file `path`, which `open_pt` reads."""
    weights = {name: tensor.contiguous() for name, tensor in weights_to_save(model).items()}
    content = {
        "format": "glassgpt",
        "model": model.config.to_dict(),
        "weights": weights,
        "tokenizer": None if tokenizer is None else _to_text(tokenizer),
    }
    try:
        torch.save(content, path)
    except RuntimeError as fault:  # PyTorch hides the errno of a full disk in its text
        raise CheckpointError(f"Cannot write {path}: {fault}. Is the disk full?") from fault


def open_pt(path: Path) -> StoredModel:
    """Open a `.pt` file of ours, or a state dict with our names or Hugging Face's.

    A state dict does not say how many heads it has. A config.json beside it does, ours or theirs; without
    one, only the four sizes of GPT-2 are known. Raises CheckpointError when the file is none of these.
    """
    content = load_pickle(path)
    if isinstance(content, dict) and content.get("format") == "glassgpt":
        return _open_own(content, path)
    weights = StateDictWeights(path, require_state_dict(content, path))
    config = _config_beside(path) or _known_size(weights)
    check_size(config, weights)
    if EMBEDDING not in weights.shapes:
        return huggingface.from_tensors(config, weights, lambda: huggingface.read_tokenizer(path.parent))
    if config.tied_embeddings and weights_differ(weights, HEAD, EMBEDDING):
        config = replace(config, tied_embeddings=False)
    return StoredModel(
        format="pt",
        config=config,
        weights=weights,
        places=own_places(config),
        read_tokenizer=lambda: None,
    )


def _open_own(content: dict[str, Any], path: Path) -> StoredModel:
    try:
        config = ModelConfig.from_dict(content["model"])
        tokenizer = content["tokenizer"]
        weights = StateDictWeights(path, require_state_dict(content["weights"], path))
    except (KeyError, TypeError, AttributeError, GlassGPTError) as fault:
        raise CheckpointError(f"{path} is not a whole model of GlassGPT: {fault}. Save it again.") from fault
    check_size(config, weights)
    return StoredModel(
        format="pt",
        config=config,
        weights=weights,
        places=own_places(config),
        read_tokenizer=lambda: None if tokenizer is None else _from_text(tokenizer, path),
    )


def _config_beside(path: Path) -> ModelConfig | None:
    beside = path.with_name("config.json")
    if not beside.is_file():
        return None
    if read_json(beside).get("format") == "glassgpt":
        return read_description(beside)[0]
    return config_from(read_json(beside), beside)


def _known_size(weights: StateDictWeights) -> ModelConfig:
    """The size of GPT-2 with this embedding's width. Raises CheckpointError for any other."""
    for size, (d_model, _, _) in GPT2_SIZES.items():
        for name in (EMBEDDING, huggingface.EMBEDDING, huggingface.PREFIX + huggingface.EMBEDDING):
            if weights.shapes.get(name) == (gpt2(size).vocab_size, d_model):
                return gpt2(size)
    raise CheckpointError(
        f"{weights.path} is a state dict without a configuration, and not of one of GPT-2's sizes. Put its "
        f"config.json beside it: weights alone do not say how many heads there are."
    )


def _to_text(tokenizer: Tokenizer) -> str:
    """What `tokenizer.save` writes: it writes files only."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer.json")
        return (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")


def _from_text(text: Any, path: Path) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        try:
            file.write_text(text, encoding="utf-8")
            return load_tokenizer(file)
        except (TypeError, UnicodeError, GlassGPTError) as fault:
            raise CheckpointError(f"The tokenizer in {path} cannot be read: {fault}") from fault
