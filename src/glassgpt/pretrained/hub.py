"""GPT-2 as Hugging Face's hub keeps it: safetensors, through the package `huggingface_hub`.

That package has resuming, locks and progress bars of its own. What it brought is checked here once more,
against the lengths and SHA-256 sums that the hub lists.
"""

from pathlib import Path

from glassgpt.errors import ConfigError, DownloadError
from glassgpt.storage import explained, sha256_of

REPOSITORIES = {
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
FILES = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json", "vocab.json"]


def download_from_hub(size: str, folder: Path, mirror: str | None = None) -> None:
    """Have `FILES` of GPT-2 of that size in `folder`, from the hub at `mirror` or from Hugging Face's.

    Raises ConfigError without `huggingface_hub`, DownloadError when a file cannot be had, is not what the
    hub lists, or cannot be written.
    """
    try:
        import huggingface_hub
    except ImportError as fault:
        raise ConfigError(
            "Downloading from Hugging Face needs the package huggingface_hub, which is not installed: "
            'pip install "glassgpt[huggingface]"'
        ) from fault
    repository = REPOSITORIES[size]
    with explained(DownloadError, folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        info = huggingface_hub.HfApi(endpoint=mirror).model_info(repository, files_metadata=True)
        huggingface_hub.snapshot_download(
            repository, revision=info.sha, local_dir=folder, allow_patterns=FILES, endpoint=mirror
        )
    except (OSError, huggingface_hub.errors.HTTPError) as fault:
        reason = (" ".join(str(fault).split()) or type(fault).__name__).rstrip(".")
        raise DownloadError(
            f"Cannot download {repository} from {mirror or 'huggingface.co'}: {reason}. Try again, take "
            f"source openai, or put these files in {folder} by other means: {', '.join(FILES)}."
        ) from fault
    listed = {file.rfilename: file for file in info.siblings or []}
    for name in FILES:
        _check(folder / name, listed.get(name), repository)


def _check(path: Path, listed: object, repository: str) -> None:
    """Compare the file with what the hub lists; a wrong one is removed."""
    n_bytes = getattr(listed, "size", None)
    sha256 = getattr(getattr(listed, "lfs", None), "sha256", None)
    if not path.is_file():
        raise DownloadError(f"{repository} brought no {path.name}. Try again, or take source openai.")
    if n_bytes not in (None, path.stat().st_size):
        problem = f"{path.stat().st_size:,} bytes came, and the hub lists {n_bytes:,}"
    elif sha256 is not None and (digest := sha256_of(path)) != sha256:
        problem = f"its SHA-256 is {digest}, and the hub lists {sha256}"
    else:
        return
    path.unlink()
    raise DownloadError(f"{path.name} of {repository} came damaged and was removed: {problem}. Try again.")
