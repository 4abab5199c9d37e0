"""`glassgpt download gpt2`: OpenAI's weights into the cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from glassgpt.cli.parsing import parse

ABOUT = """\
Download the weights of OpenAI's GPT-2. Every file is checked before it gets its name; what was
interrupted goes on where it stopped, and what is there already is not fetched again.

Examples:
  glassgpt download gpt2                                  124M parameters, 0.5 GB
  glassgpt download gpt2 --size 355M                      also 774M (3.1 GB) and 1558M (6.2 GB)
  glassgpt download gpt2 --source huggingface             the same weights as safetensors
  glassgpt download gpt2 --mirror https://example.com/gpt-2/models
"""


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """Which model, and from where."""

    model: Annotated[Literal["gpt2"], tyro.conf.Positional]
    """The model to download."""
    size: str = "124M"
    """124M, 355M, 774M or 1558M."""
    source: Literal["openai", "huggingface"] = "openai"
    """openai: a TensorFlow checkpoint. huggingface: safetensors (needs glassgpt[huggingface])."""
    mirror: str | None = None
    """Another address for the source's; GLASSGPT_MIRROR is one for OpenAI's."""
    folder: Path | None = None
    """Where to put the files. None: in the cache, where the model is found by its name."""


def run(arguments: list[str]) -> int:
    """Parse `arguments`, download, and return the exit code."""
    options = parse(DownloadOptions, arguments, word="download", about=ABOUT)

    from glassgpt.pretrained.download import download_gpt2

    folder = download_gpt2(options.size, options.source, options.mirror, options.folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    width = max(len(path.name) for path in files)
    print(f"GPT-2 {options.size} is whole in {folder}")
    for path in files:
        print(f"  {path.name:<{width}}  {path.stat().st_size:>13,} bytes")
    return 0
