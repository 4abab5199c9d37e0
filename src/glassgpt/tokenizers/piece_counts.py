"""How often each piece of GPT-2's pattern occurs in texts of any size."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from glassgpt.tokenizers.ascii_pieces import Pieces, bytes_per_character, cut_ascii
from glassgpt.tokenizers.interface import batches, each_text, split_special
from glassgpt.tokenizers.pattern import chunks, cut

MAX_PIECES = 4_000_000
"""Most distinct pieces of text that are kept in mind at once, about half a gigabyte of them."""

_BATCH_CHARACTERS = 1 << 20  # so many are counted at once
_MOSTLY_OTHERS = 1.5  # bytes a character, from which on nearly every word has other characters than ASCII

# White space and the word after it: between a word and white space the pattern always cuts. The four
# characters are white space to Python, not to Unicode.
_SPACE_AND_WORD = re.compile(r"[^\S\x1c-\x1f]*[\S\x1c-\x1f]+|\s+")


def count_pieces(
    texts: str | Iterable[str], special_tokens: Iterable[str] = (), *, progress: bool = False
) -> Counter[str]:
    """How often each piece of the pattern occurs in `texts`; special tokens only divide them.

    Memory is bounded but for what one piece takes: above MAX_PIECES different ones the rarest are forgotten.
    Raises TokenizerError for text that is not text.
    """
    pieces: Counter[str] = Counter()
    words: Counter[str] = Counter()  # cutting costs more than counting, so words are counted before
    with tqdm(desc="counting", unit="char", unit_scale=True, disable=None if progress else True) as bar:
        for batch in batches(_parts(texts, special_tokens), len, _BATCH_CHARACTERS):
            uncut = batch
            if bytes_per_character(batch) < _MOSTLY_OTHERS:
                found = cut_ascii(batch)
                pieces.update(_counted(found))
                uncut = [found.text(place) for place in np.flatnonzero(found.is_uncut).tolist()]
            for text in uncut:
                words.update(_SPACE_AND_WORD.findall(text))
            if len(pieces) + len(words) > MAX_PIECES:
                _cut_words(words, pieces)
            bar.update(sum(map(len, batch)))
    _cut_words(words, pieces)
    return pieces


def _parts(texts: str | Iterable[str], special_tokens: Iterable[str]) -> Iterator[str]:
    """`texts` without special tokens, in parts that can be cut each alone."""
    for text in each_text(texts):
        for part in split_special(text, special_tokens)[::2]:
            yield from chunks(part, _BATCH_CHARACTERS)


def _counted(pieces: Pieces) -> Counter[str]:
    """How often each piece occurs, uncut words left out.

    A piece of up to 8 bytes is a whole number, filled up with zeros: numbers are counted by sorting them.
    """
    is_short = (pieces.lengths <= 8) & ~pieces.is_uncut
    numbers, counts = np.unique(pieces.eight_bytes(0)[is_short], return_counts=True)
    short = numbers.astype("<u8").view("S8").astype("U8").tolist()
    found = Counter(dict(zip(short, counts.tolist(), strict=True)))
    is_long = (pieces.lengths > 8) & ~pieces.is_uncut
    starts = pieces.starts[is_long]
    ends = starts + pieces.lengths[is_long]
    long = Counter(pieces.data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
    found.update({piece.decode("ascii"): count for piece, count in long.items()})
    return found


def _cut_words(words: Counter[str], pieces: Counter[str]) -> None:
    """Move what was counted in `words` to the `pieces` that they are cut into."""
    for word, count in words.items():
        for piece in cut(word):
            pieces[piece] += count
    words.clear()
    rarest = 1
    while len(pieces) > MAX_PIECES:
        for piece in [piece for piece, count in pieces.items() if count <= rarest]:
            del pieces[piece]
        rarest *= 2
