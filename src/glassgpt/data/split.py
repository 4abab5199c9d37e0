"""Training and validation text: no document or passage is cut across both.

*By document*, where there are many: a document is for validation when a hash of its text says so, which
puts equal documents on the same side. *In order*, where there are few: the last `val_fraction` of all
characters is for validation, cut in the text and so before there are any windows that could reach across.
By document is taken when it comes within a factor of two of `val_fraction`. To know that, the text is gone
through once before it is tokenised, which costs little beside the tokenising.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from glassgpt.data.corpora import Corpus
from glassgpt.data.progress import byte_bar
from glassgpt.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which text is for validation, and how much text there is."""

    method: str
    """ "by document", "in order" or "none"."""
    val_fraction: float
    n_characters: int
    n_bytes: int

    @property
    def n_train_characters(self) -> int:
        """In order: the place of the cut, counted through all documents."""
        return int(self.n_characters * (1 - self.val_fraction))


class Part(NamedTuple):
    """Text that lies on one side of the split, and whether a document ends with it."""

    text: str
    is_val: bool
    ends_document: bool


def plan_split(corpus: Corpus, val_fraction: float, *, progress: bool = True) -> Split:
    """Go through `corpus` once and decide how to split it.

    Raises ConfigError for a fraction outside [0, 1), DataError if a side would be left without text.
    """
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction={val_fraction} must be at least 0 and below 1.")
    n_characters = n_bytes = n_val_characters = 0
    with byte_bar("reading", corpus.n_bytes, progress) as bar:
        for part in _by_document(corpus, val_fraction):
            n_characters += len(part.text)
            n_val_characters += len(part.text) * part.is_val
            n_piece_bytes = len(part.text.encode("utf-8"))
            n_bytes += n_piece_bytes
            bar.update(n_piece_bytes)

    if val_fraction == 0:
        method = "none"
    elif val_fraction / 2 <= n_val_characters / n_characters <= min(2 * val_fraction, (1 + val_fraction) / 2):
        method = "by document"
    else:
        method = "in order"
    split = Split(method=method, val_fraction=val_fraction, n_characters=n_characters, n_bytes=n_bytes)
    if split.n_train_characters == 0:
        raise DataError(
            f"{corpus.name} has {n_characters:,} characters, too few to keep {val_fraction:.0%} of them for "
            "validation. Use more text, or a lower val_fraction."
        )
    return split


def parts(corpus: Corpus, split: Split) -> Iterator[Part]:
    """The text of `corpus`, each part with its side."""
    if split.method == "by document":
        yield from _by_document(corpus, split.val_fraction)
        return
    cut = split.n_train_characters
    n_before = 0
    for text, ends_document in corpus.pieces():
        n_train = min(max(cut - n_before, 0), len(text))
        if n_train:
            yield Part(text[:n_train], False, ends_document and n_train == len(text))
        if n_train < len(text):
            yield Part(text[n_train:], True, ends_document)
        n_before += len(text)


def _by_document(corpus: Corpus, val_fraction: float) -> Iterator[Part]:
    begins = True
    is_val = False
    for text, ends_document in corpus.pieces():
        if begins:  # the first piece stands for its document: equal documents begin with equal pieces
            digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
            is_val = int.from_bytes(digest, "little") < val_fraction * 2**64
        yield Part(text, is_val, ends_document)
        begins = ends_document
