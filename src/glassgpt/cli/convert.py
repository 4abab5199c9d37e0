"""`glassgpt convert SOURCE TARGET`: a model from one format to another, compared before it is called done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from glassgpt.cli.parsing import parse

ABOUT = """\
Write a model in another format. It is read again, and its logits on random tokens and its tokenizer are
compared with the original's, before it gets its name.

Examples:
  glassgpt convert gpt2 models/gpt2                                GPT-2 124M as a model folder of ours
  glassgpt convert runs/demo models/demo --format huggingface      a folder that transformers opens
  glassgpt convert runs/demo demo.pt --format pt                   one file for torch.load(weights_only=True)
"""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What to convert, and into what."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A model or run folder, one in Hugging Face's format or OpenAI's, a .pt file, or gpt2, gpt2-medium, …"""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """The folder to write; for pt, the file. One of the same format that was written here is replaced."""
    format: Literal["glassgpt", "huggingface", "pt"] = "glassgpt"
    """glassgpt: a model folder. huggingface: what transformers opens. pt: one file with everything."""
    tokenizer: bool = True
    """Write the tokenizer too, where the source has one."""


def run(arguments: list[str]) -> int:
    """Parse `arguments`, convert, and return the exit code."""
    options = parse(ConvertOptions, arguments, word="convert", about=ABOUT)

    from glassgpt.pretrained.conversion import convert

    done = convert(options.source, options.target, options.format, with_tokenizer=options.tokenizer)
    print(
        f"{done.target}: {done.n_parameters:,} parameters as {options.format}. Read again, "
        f"{done.n_logits:,} logits differ from the original's by at most {done.difference:.2g}."
    )
    return 0
