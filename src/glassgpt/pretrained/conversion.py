"""From one format to another: written, read again, compared, and only then given its name."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from glassgpt.data.shards import DATASET_FILE
from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.model.folder import CONFIG, read_model_files, write_model_files
from glassgpt.model.gpt import GPT
from glassgpt.pretrained.huggingface_export import write_huggingface_files
from glassgpt.pretrained.loading import format_of, load_pretrained, locate
from glassgpt.pretrained.pt_file import SUFFIXES, write_pt
from glassgpt.pretrained.stored import load_pickle
from glassgpt.storage import MANIFEST, explained, recover_folder, staged_folder, sync_folder
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.checkpoint import STATE

Format = Literal["glassgpt", "huggingface", "pt"]

TOLERANCE = 1e-5
"""How far logits may differ, of about 1 to 100: the weights are the same bits, only their order in memory
may change the order of sums."""

Files = tuple[GPT, Tokenizer | None]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written, and how sure it is."""

    target: Path
    n_parameters: int
    n_logits: int
    """How many logits of the model that was read again were compared with the original's."""
    difference: float
    """The largest difference among them."""


def convert(
    source: str | Path, target: str | Path, format: Format = "glassgpt", *, with_tokenizer: bool = True
) -> Conversion:
    """Write the model at `source`, which is what `load_pretrained` takes, as `target` in `format`.

    A folder of ours, a folder that transformers opens, or one `.pt` file. Before it gets its name it is read
    again, and its logits and its tokenizer are compared with the original's. Chapter 09.

    Raises ConfigError when the format cannot represent the model or the target would replace the source,
    CheckpointError when either cannot be read, the two differ, or the target would replace anything but what
    was written here in the same format.
    """
    if format not in get_args(Format):
        raise ConfigError(f"format={format!r} is not one of {', '.join(get_args(Format))}.")
    target = Path(target)
    _refuse_overlap(locate(source), target)
    _refuse_to_replace(target, format)
    model, tokenizer = load_pretrained(source, with_tokenizer=with_tokenizer)
    with _staged(target, format) as (staging, write, read):
        write(model, tokenizer, staging)
        n_parameters, expected = model.n_parameters, _logits(model)
        del model  # two of the largest would not fit where one does
        written, its_tokenizer = read(staging)
        difference = float((_logits(written) - expected).abs().max())
        del written  # its weights may be the very file that gets its name now
        if not difference <= TOLERANCE:  # not a number is no agreement either
            raise CheckpointError(
                f"{source} written as {format} and read again gives logits that differ by {difference:.3g}, "
                f"more than {TOLERANCE:g}. Nothing was left at {target}."
            )
        if tokenizer and (its_tokenizer is None or its_tokenizer.fingerprint != tokenizer.fingerprint):
            raise CheckpointError(
                f"{source} written as {format} comes back with another tokenizer. "
                f"Nothing was left at {target}."
            )
    return Conversion(
        target=target, n_parameters=n_parameters, n_logits=expected.numel(), difference=difference
    )


@torch.no_grad()
def _logits(model: GPT) -> Tensor:
    """Logits of a few random tokens: as many as make every weight of every layer count.

    A model in 16 bits is made one in 32, of the same numbers: its own sums depend on the order of memory.
    """
    if next(model.parameters()).dtype in (torch.float16, torch.bfloat16):
        model.float()
    generator = torch.Generator().manual_seed(0)
    shape = (2, min(64, model.config.context_length))
    token_ids = torch.randint(model.config.vocab_size, shape, generator=generator)
    return model(token_ids).float()


@contextlib.contextmanager
def _staged(
    target: Path, format: Format
) -> Iterator[tuple[Path, Callable[[GPT, Tokenizer | None, Path], None], Callable[[Path], Files]]]:
    """Where to write before `target` takes its name, and what writes and reads this format there."""
    if format == "pt":
        with _staged_file(target) as staging:
            yield staging, write_pt, load_pretrained
        return
    with staged_folder(target, CheckpointError) as staging:
        if format == "glassgpt":
            yield staging, write_model_files, read_model_files
        else:
            yield staging, write_huggingface_files, load_pretrained


@contextlib.contextmanager
def _staged_file(target: Path) -> Iterator[Path]:
    """Yield a file in a temporary folder; when the block ends well, it takes `target`'s place."""
    with explained(CheckpointError, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{target.name}.", suffix=".tmp", dir=target.parent
        ) as folder:
            staging = Path(folder) / target.name
            yield staging
            with open(staging, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(staging, target)
            sync_folder(target.parent)


def _refuse_overlap(source: Path, target: Path) -> None:
    """Raise ConfigError when writing `target` would destroy what is being read, or lie inside it."""
    source, target = source.resolve(), target.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise ConfigError(f"{target} is where the source lies, {source}. Choose another target.")


def _refuse_to_replace(target: Path, format: Format) -> None:
    """Raise an error when something is at `target` that this format, written here, is not.

    Files that no manifest of ours lists are left to `staged_folder`, which refuses them.
    """
    recover_folder(target)
    if format == "pt":
        if target.suffix not in SUFFIXES or target.is_dir():
            raise ConfigError(f"{target} is to be one file; give it a name that ends in .pt.")
        if target.exists() and not _is_own_pt(target):
            raise CheckpointError(
                f"{target} would be replaced, but was not written by GlassGPT, or is damaged. Choose another "
                f"target, or move it away."
            )
    elif (target / MANIFEST).is_file() and (found := _what_is_in(target)) != _model_in(format):
        raise CheckpointError(
            f"{target} would be replaced, but holds {found}, not {_model_in(format)}. Choose another target, "
            f"or move it away."
        )


def _is_own_pt(path: Path) -> bool:
    try:
        content = load_pickle(path)
    except CheckpointError:
        return False
    return isinstance(content, dict) and content.get("format") == "glassgpt"


def _what_is_in(folder: Path) -> str:
    """What a folder that was written here holds."""
    if (folder / DATASET_FILE).is_file():
        return "a prepared dataset"
    if (folder / STATE).is_file():
        return "a checkpoint of a run"
    return _model_in(format_of(folder)) if (folder / CONFIG).is_file() else "something else"


def _model_in(format: str) -> str:
    return f"a model in the format {format}"
