"""`glassgpt prepare SOURCE`: a corpus becomes token ids on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from glassgpt.cli.info import describe_dataset
from glassgpt.cli.parsing import parse

ABOUT = """\
Turn a corpus into token ids on disk: in parallel, in bounded memory, and split into training and
validation text so that no document or passage is cut across both. `glassgpt train --data FOLDER` reads
the result.

Examples:
  glassgpt prepare tinyshakespeare --out data/shakespeare --tokenizer char
  glassgpt prepare ~/books --out data/books --vocab-size 8192
  glassgpt prepare "articles/*.jsonl.gz" --out data/articles --tokenizer gpt2
  zcat dump.gz | glassgpt prepare - --out data/dump --tokenizer runs/demo/data/tokenizer.json
"""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What to read, and how to cut it."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A named corpus (`glassgpt info` lists them), a file, a folder, a pattern, or "-"."""
    out: Path
    """The folder to make."""
    tokenizer: str = "bpe"
    """bpe or char (trained on the corpus), gpt2, or the path of a tokenizer.json."""
    vocab_size: int = 4096
    """How many tokens a bpe tokenizer trained here gets."""
    val_fraction: float = 0.1
    """Share of the text that is held out for validation."""
    field: str = "text"
    """Which field of a .jsonl line holds the text."""
    workers: int | None = None
    """Threads that tokenise. None: as many as there are cores."""
    overwrite: bool = False
    """Replace the dataset that already lies in `out`."""


def run(arguments: list[str]) -> int:
    """Parse `arguments`, prepare, and return the exit code."""
    options = parse(PrepareOptions, arguments, word="prepare", about=ABOUT)

    from glassgpt.data import make_tokenizer, prepare, read_corpus
    from glassgpt.data.preparation import check_destination

    check_destination(options.out, options.overwrite)  # better now than after a tokenizer was trained
    corpus = read_corpus(options.source, field=options.field)
    tokenizer = make_tokenizer(
        options.tokenizer, corpus, vocab_size=options.vocab_size, val_fraction=options.val_fraction
    )
    shards = prepare(
        corpus,
        options.out,
        tokenizer,
        val_fraction=options.val_fraction,
        n_workers=options.workers,
        overwrite=options.overwrite,
    )
    print(describe_dataset(shards))
    if len(shards.val):  # training measures itself on held-out text
        print(f"Train on it:  glassgpt train --data {options.out}")
    return 0
