"""A model of ours as a folder that transformers opens: AutoModelForCausalLM and AutoTokenizer."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.model.folder import weights_to_save
from glassgpt.model.gpt import GPT, HEAD
from glassgpt.pretrained import huggingface
from glassgpt.pretrained.bpe_files import write_bpe_files
from glassgpt.pretrained.huggingface_config import config_to
from glassgpt.pretrained.name_map import places_for
from glassgpt.tokenizers import BPETokenizer, Tokenizer


def write_huggingface_files(model: GPT, tokenizer: Tokenizer | None, staging: Path) -> None:
    """Write `model` and its tokenizer into the folder `staging`.

    Raises ConfigError when Hugging Face's GPT-2 cannot represent the model, or its tokenizer the tokenizer.
    """
    if tokenizer is not None and not isinstance(tokenizer, BPETokenizer):
        raise ConfigError(
            f"A tokenizer of the kind {tokenizer.kind!r} has no counterpart in Hugging Face's GPT-2, whose "
            f"vocabulary is byte-level BPE. Write the model alone: --no-tokenizer."
        )
    end_of_text = None if tokenizer is None else tokenizer.end_of_text_id
    ends = {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    dtype = str(model.final_norm.weight.dtype).removeprefix("torch.")
    settings = {**config_to(model.config), **ends, "torch_dtype": dtype}
    _write_json(staging / huggingface.CONFIG, settings)
    _write_json(staging / "generation_config.json", ends)
    if tokenizer is not None:
        write_bpe_files(tokenizer, staging / huggingface.VOCABULARY, staging / huggingface.MERGES)
        _write_json(staging / "tokenizer_config.json", _tokenizer_settings(tokenizer, model))
    try:
        save_file(state_dict(model), staging / huggingface.WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as fault:
        raise CheckpointError(f"Cannot write {huggingface.WEIGHTS}: {fault}. Is the disk full?") from fault


def state_dict(model: GPT) -> dict[str, Any]:
    """The weights under the names and in the layouts of `GPT2LMHeadModel`; a tied head is left out.

    Raises CheckpointError as `weights_to_save` does.
    """
    ours = weights_to_save(model)
    theirs = {
        huggingface.PREFIX + name: place.layout.to_theirs(ours[place.ours]).contiguous()
        for name, place in places_for(huggingface.TABLE, model.config.n_layers).items()
    }
    if not model.config.tied_embeddings:
        theirs[huggingface.HEAD] = ours[HEAD]
    return theirs


def _tokenizer_settings(tokenizer: BPETokenizer, model: GPT) -> dict[str, Any]:
    """What AutoTokenizer has to know. Its defaults would add an <|endoftext|> to a vocabulary without one."""
    names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    end_of_text = None if tokenizer.end_of_text_id is None else names[tokenizer.end_of_text_id]
    how = {"special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    return {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": model.config.context_length,
        "add_prefix_space": False,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "unk_token": end_of_text,
        "added_tokens_decoder": {str(token_id): {"content": name, **how} for token_id, name in names.items()},
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
