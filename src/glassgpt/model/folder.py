"""A model folder: `model.safetensors`, `config.json` and, where there is one, `tokenizer.json`.

Everything that takes a model takes such a folder. It is written through `storage.staged_folder`: whole,
with a manifest of checksums, or not there at all.
"""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glassgpt.errors import CheckpointError, GlassGPTError, TokenizerError
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import EMBEDDING, GPT, HEAD, hold_the_same
from glassgpt.storage import folder_problems, recover_folder, staged_folder
from glassgpt.tokenizers import Tokenizer, load_tokenizer

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


def save_model(model: GPT, tokenizer: Tokenizer | None, folder: Path) -> None:
    """Write `model` and its tokenizer as the model folder `folder`, replacing what was there.

    Raises CheckpointError when the tokenizer has more ids than the model, when a head that the configuration
    ties to the embedding has weights of its own, or when the disk will not take it.
    """
    with staged_folder(Path(folder), CheckpointError) as staging:
        write_model_files(model, tokenizer, staging)


def weights_to_save(model: GPT) -> dict[str, Tensor]:
    """The weights of `model` by their names, without a head that is the embedding.

    Raises CheckpointError for 8-bit weights, and for a head that should be the embedding and is not.
    """
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if any(weight.dtype == torch.int8 for weight in weights.values()):
        raise CheckpointError(
            "A model quantised to 8-bit integers is for generating only, and is not saved: save the model "
            "that it was made from."
        )
    if model.config.tied_embeddings and not hold_the_same(weights.pop(HEAD), weights[EMBEDDING]):
        raise CheckpointError(
            "The head has weights of its own, and the configuration ties it to the token embedding, which "
            "alone would be saved. Tie them with model.tie_head(), which gives up the head's, or build the "
            "model with tied_embeddings=False."
        )
    return weights


def write_model_files(model: GPT, tokenizer: Tokenizer | None, staging: Path) -> None:
    """Write the files of a model folder into `staging`, for a caller that adds more of its own."""
    weights = {name: tensor.contiguous() for name, tensor in weights_to_save(model).items()}
    description = {"format": "glassgpt", "model": model.config.to_dict()}
    if tokenizer is not None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise CheckpointError(
                f"The tokenizer has {tokenizer.vocab_size:,} ids, the model only "
                f"{model.config.vocab_size:,}: they do not belong together."
            )
        description["tokenizer_fingerprint"] = tokenizer.fingerprint
        with _as_checkpoint_error():
            tokenizer.save(staging / TOKENIZER)
    write_tensors(weights, staging / WEIGHTS)
    (staging / CONFIG).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file. Raises OSError, with its errno, when the system will not have it."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as fault:  # it tells the system's error in words only
        code = re.search(r"os error (\d+)", str(fault))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number)) from fault


def load_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[GPT, Tokenizer | None]:
    """Read the model folder `folder`: the model in eval mode, and its tokenizer if it has one.

    `dtype` None keeps the weights' own. Raises CheckpointError when anything is missing, altered, or does
    not fit together.
    """
    check_whole(Path(folder))
    return read_model_files(Path(folder), device, dtype)


def check_whole(folder: Path) -> None:
    """Raise CheckpointError unless the model folder `folder` is there and agrees with its manifest."""
    recover_folder(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no model folder {folder}. One holds {WEIGHTS} and {CONFIG}.")
    problems = folder_problems(folder)
    if problems:
        raise CheckpointError(
            f"{folder} is not whole:\n  "
            + "\n  ".join(problems)
            + "\nCopy it again, or use another checkpoint."
        )


def read_model_files(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[GPT, Tokenizer | None]:
    """Read what `write_model_files` wrote, as `load_model` does, without a manifest to verify it by."""
    config, fingerprint = read_description(folder / CONFIG)
    model = GPT.uninitialised(config, device, dtype or _dtype_of(folder / WEIGHTS))
    load_weights(model, folder / WEIGHTS)
    return model.eval(), read_tokenizer(folder, config, fingerprint)


def read_tokenizer(folder: Path, config: ModelConfig, fingerprint: str | None) -> Tokenizer | None:
    """The tokenizer in a model folder whose `config.json` says `config` and `fingerprint`; None without one.

    Raises CheckpointError when it cannot be read or is not the one that belongs to the model.
    """
    with _as_checkpoint_error():
        tokenizer = load_tokenizer(folder / TOKENIZER) if (folder / TOKENIZER).exists() else None
    if tokenizer is not None and fingerprint is None and tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder / TOKENIZER} has {tokenizer.vocab_size:,} ids, the model only {config.vocab_size:,}: "
            f"a tokenizer that does not belong to the model. Put the one that it was trained with there."
        )
    if tokenizer is not None and fingerprint not in (None, tokenizer.fingerprint):
        raise CheckpointError(
            f"{folder / TOKENIZER} is not the tokenizer that the model was saved with: its fingerprint is "
            f"{tokenizer.fingerprint[:12]}, expected {str(fingerprint)[:12]}. Put the original file back."
        )
    return tokenizer


@torch.no_grad()
def load_weights(model: GPT, path: Path) -> None:
    """Copy the safetensors file at `path` into `model` tensor by tensor, casting to its dtypes.

    Raises CheckpointError, leaving `model` as it was, when the names or shapes do not fit.
    """
    ours = model.state_dict()
    if model.config.tied_embeddings:
        del ours[HEAD]
    try:
        with safe_open(path, framework="pt") as saved:
            shapes = {name: tuple(saved.get_slice(name).get_shape()) for name in saved.keys()}  # noqa: SIM118
            problems = fit_problems({name: tuple(tensor.shape) for name, tensor in ours.items()}, shapes)
            if problems:
                raise CheckpointError(
                    f"{path} does not fit this model:\n  "
                    + "\n  ".join(problems)
                    + f"\nBuild the model from the {CONFIG} beside the weights."
                )
            for name, tensor in ours.items():
                tensor.copy_(saved.get_tensor(name))
            model.tie_head()
    except (OSError, SafetensorError) as fault:
        raise CheckpointError(f"{path} cannot be read as safetensors: {fault}. Copy it again.") from fault


def fit_problems(ours: dict[str, tuple[int, ...]], saved: dict[str, tuple[int, ...]]) -> list[str]:
    """How the shapes in a file differ from a model's: a line each."""
    both: Iterable[str] = sorted(ours.keys() & saved.keys())
    return [
        *(f"missing     {name}" for name in sorted(ours.keys() - saved.keys())),
        *(f"unexpected  {name}" for name in sorted(saved.keys() - ours.keys())),
        *(f"shape       {n}: file {saved[n]}, model {ours[n]}" for n in both if saved[n] != ours[n]),
    ]


def read_description(path: Path) -> tuple[ModelConfig, str | None]:
    """The model configuration and the tokenizer's fingerprint in the `config.json` of a model folder.

    Raises CheckpointError when the file is something else.
    """
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        return ModelConfig.from_dict(description["model"]), description.get("tokenizer_fingerprint")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, GlassGPTError) as fault:
        raise CheckpointError(f"{path} does not describe a GlassGPT model: {fault}.") from fault


@contextlib.contextmanager
def _as_checkpoint_error() -> Iterator[None]:
    """A tokenizer's file that fails is, here, a checkpoint that fails."""
    try:
        yield
    except TokenizerError as fault:
        raise CheckpointError(str(fault)) from fault


def _dtype_of(path: Path) -> torch.dtype | None:
    """The dtype of the weights in the file; ours hold one throughout."""
    try:
        with safe_open(path, framework="pt") as saved:
            if "final_norm.weight" in saved.keys():  # noqa: SIM118
                return saved.get_tensor("final_norm.weight").dtype
            return None  # not a model's file; `load_weights` will say what it lacks
    except (OSError, SafetensorError) as fault:
        raise CheckpointError(f"{path} cannot be read as safetensors: {fault}. Copy it again.") from fault
