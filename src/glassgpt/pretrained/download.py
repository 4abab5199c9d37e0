"""GPT-2's weights from OpenAI or from Hugging Face into the cache, each file whole and checked.

They lie as `<cache>/openai/gpt2/124M/…` (a TensorFlow checkpoint and the vocabulary) and
`<cache>/huggingface/gpt2/124M/…` (safetensors of the same numbers).
"""

import os
from pathlib import Path
from typing import Literal, get_args

from glassgpt.checks import not_one_of
from glassgpt.data.download import Expected, download
from glassgpt.data.patience import Patience
from glassgpt.errors import CheckpointError, ConfigError, DownloadError
from glassgpt.model.config import gpt2
from glassgpt.pretrained.gpt2_files import ADDRESS, DATA, INDEX, VOCABULARY, published_files
from glassgpt.storage import cache_folder, explained, write_atomically

Source = Literal["openai", "huggingface"]

UNCHECKED = ".unchecked"
"""Lies beside weights without a published SHA-256 from before they come until they are compared with their
index, however often the download is interrupted in between."""


def download_gpt2(
    size: str = "124M",
    source: Source = "openai",
    mirror: str | None = None,
    folder: Path | str | None = None,
    *,
    progress: bool = True,
    patience: Patience | None = None,
) -> Path:
    """Have GPT-2 of that size (124M, 355M, 774M, 1558M) in `folder`, and return it. Chapter 07.

    `folder` None is its place in the cache. `mirror`, or else GLASSGPT_MIRROR, is an address that stands
    for OpenAI's, with `124M/hparams.json` and so on below it; for Hugging Face it is a hub's address. What
    is there and right is kept; what was interrupted goes on.

    Raises ConfigError for a size or source that there is not, and without the package huggingface_hub
    where it is needed; DownloadError when a file cannot be had, is wrong, or cannot be written.
    """
    gpt2(size)  # names the sizes when this is none
    if source not in get_args(Source):
        raise ConfigError(not_one_of("source", source, Source))
    if source == "openai":
        mirror = mirror or os.environ.get("GLASSGPT_MIRROR") or ADDRESS
    if mirror is not None and not mirror.startswith(("https://", "http://")):
        raise ConfigError(
            f"mirror={mirror!r} is not an address: it begins with neither https:// nor http://."
        )
    place = Path(folder) if folder else cache_folder() / source / "gpt2" / size
    if source == "huggingface":
        from glassgpt.pretrained.hub import download_from_hub

        download_from_hub(size, place, mirror)
        return place
    _download_from_openai(size, place, str(mirror), progress, patience)
    if folder is None:
        _share_vocabulary(place)
    return place


def _download_from_openai(
    size: str, folder: Path, address: str, progress: bool, patience: Patience | None
) -> None:
    files = published_files(size)
    remedy = (
        f"name another server with --mirror or GLASSGPT_MIRROR, or put these files in {folder} by other "
        f"means: {', '.join(file.name for file in files)}"
    )
    unproven = [file for file in files if file.name in (DATA, INDEX) and file.expected.sha256 is None]
    unchecked = folder / UNCHECKED
    with explained(DownloadError, folder):
        if not all(_is_there(folder / file.name, file.expected) for file in unproven):
            folder.mkdir(parents=True, exist_ok=True)
            unchecked.touch()
    for file in files:
        url = f"{address.rstrip('/')}/{size}/{file.name}"
        path = folder / file.name
        download(url, path, file.expected, remedy=remedy, progress=progress, patience=patience)
    if unchecked.exists():
        _check_tensors(folder)
        with explained(DownloadError, folder):
            unchecked.unlink(missing_ok=True)


def _is_there(path: Path, expected: Expected) -> bool:
    return path.is_file() and expected.difference(path) is None


def _check_tensors(folder: Path) -> None:
    """Compare every tensor with its checksum in the index; remove both files where one differs."""
    from glassgpt.pretrained.tf_checkpoint import open_checkpoint

    try:
        checkpoint = open_checkpoint(folder)
        for tensor in checkpoint.list_tensors():
            checkpoint.read_tensor(tensor.name)
    except CheckpointError as fault:
        with explained(DownloadError, folder):
            for name in (DATA, INDEX):
                (folder / name).unlink(missing_ok=True)
        raise DownloadError(
            f"The weights that came to {folder} are damaged and were removed: {fault} Download them again."
        ) from fault


def _share_vocabulary(folder: Path) -> None:
    """Put the vocabulary, the same for all sizes, where `BPETokenizer.gpt2()` looks for it, one folder up."""
    for name in VOCABULARY:
        shared, content = folder.parent / name, (folder / name).read_bytes()
        if not shared.is_file() or shared.read_bytes() != content:
            write_atomically(shared, content, DownloadError)
