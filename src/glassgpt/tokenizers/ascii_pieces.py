r"""The pieces of GPT-2's pattern, found by array operations wherever text is ASCII.

Among ASCII characters three neighbours tell nearly everything, so a whole megabyte is cut at once. From
it's␣␣12am--\n\tno (␣ is a blank) come it│'s│␣│␣12│am│--│\n│\t│no, since the pattern cuts

    between letters, numbers, marks and white space          12│am   am│--   --│\n
    but not behind a blank, which goes with what follows     ␣12
    in white space only before its last character,           ␣│␣12   \n│\tno
    and only if something follows

Contractions are the one exception: behind an apostrophe that begins a piece, s, d, m, t, ll, ve and re stay
with it, and are cut from letters after them. It begins one unless a blank or another mark is before it.

Words with any other character in them stay uncut, for the pattern itself; the byte 0 counts as such a
character, since zeros fill up the numbers that stand for short pieces.
"""

import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The kinds of bytes; letters, numbers and marks come first, since they are what fills a piece.
_LETTER, _NUMBER, _MARK, _SPACE, _BLANK, _BETWEEN, _OTHER = range(7)
_SEPARATOR = b"\xff"  # stands before, between and behind texts, and never in UTF-8


def _kinds() -> bytes:
    """The kind of each byte, as `bytes.translate` takes them."""
    kinds = np.full(256, _OTHER, np.uint8)
    kinds[1:128] = _MARK
    kinds[list(string.ascii_letters.encode())] = _LETTER
    kinds[list(string.digits.encode())] = _NUMBER
    kinds[list(string.whitespace.encode())] = _SPACE
    kinds[ord(" ")] = _BLANK
    kinds[_SEPARATOR[0]] = _BETWEEN
    return kinds.tobytes()


def _cuts_between_kinds() -> bytes:
    """Whether the pattern cuts between two kinds, at place 16 × first + second, whatever is around them."""
    cuts = np.zeros((16, 16), bool)
    for kind in (_LETTER, _NUMBER, _MARK):
        cuts[kind, [other for other in range(_BETWEEN) if other != kind]] = True
        cuts[_SPACE, kind] = True
    cuts[_BETWEEN, :] = cuts[:, _BETWEEN] = True
    return cuts.tobytes()


_KINDS, _CUTS_BETWEEN_KINDS = _kinds(), _cuts_between_kinds()
_APOSTROPHE = ord("'")
_ENDINGS = [(ending, np.frombuffer(ending, np.uint8)) for ending in b"s d m t ll ve re".split()]

_LOW_BYTES = np.array([(1 << 8 * length) - 1 for length in range(9)], "<u8")


class Pieces(NamedTuple):
    """Texts, cut: piece i is `data[starts[i] : starts[i] + lengths[i]]`, in the order of the texts."""

    data: bytes
    """The texts in UTF-8, with a separator before, between and behind them."""
    starts: NDArray[np.intp]
    lengths: NDArray[np.intp]
    is_uncut: NDArray[np.bool_]
    """Where it is no piece but words, one or more, that hold a character beyond ASCII or the byte 0 each."""
    bounds: NDArray[np.intp]
    """The pieces of text t are those from `bounds[t]` to before `bounds[t + 1]`."""

    def text(self, place: int) -> str:
        """Piece `place` as text."""
        start = self.starts[place]
        return self.data[start : start + self.lengths[place]].decode("utf-8")

    def eight_bytes(self, offset: int) -> NDArray[np.uint64]:
        """Bytes `offset` to `offset` + 7 of each piece as a whole number, those behind its end as zeros."""
        padded = memoryview(self.data + bytes(offset + 8))[offset:]
        number_at: NDArray[np.uint64] = np.ndarray(len(self.data), "<u8", padded, strides=(1,))
        mask = np.concatenate([np.zeros(offset, "<u8"), _LOW_BYTES])
        return number_at[self.starts] & mask[np.minimum(self.lengths, offset + 8)]


def bytes_per_character(texts: Sequence[str]) -> float:
    """How many bytes a character of `texts` has on average in UTF-8: 1 if all are ASCII."""
    n_bytes = sum(len(text) if text.isascii() else len(text.encode("utf-8")) for text in texts)
    return n_bytes / max(1, sum(map(len, texts)))


def cut_ascii(texts: Sequence[str]) -> Pieces:
    """The pieces of `texts`. A text must be one that UTF-8 can hold."""
    data = _SEPARATOR.join([b"", *(text.encode("utf-8") for text in texts), b""])
    kind = np.frombuffer(data.translate(_KINDS), np.uint8)
    is_white = (kind == _SPACE) | (kind == _BLANK)
    is_solid = kind < _SPACE
    cuts = np.ones(len(data) + 1, bool)  # cuts[i]: a piece begins with byte i, or all ends before it
    cuts[1:-1] = np.frombuffer((kind[:-1] << 4 | kind[1:]).tobytes().translate(_CUTS_BETWEEN_KINDS), bool)
    cuts[1:-2] |= is_white[:-2] & is_white[1:-1] & is_solid[2:]  # before the last white one of several
    _cut_contractions(np.frombuffer(data, np.uint8), kind, cuts)

    is_uncut = np.zeros(len(data), bool)
    others = np.flatnonzero(kind == _OTHER)
    if len(others):
        begins_word = np.ones(len(data), bool)
        begins_word[1:] = (is_solid[:-1] & is_white[1:]) | (kind[:-1] == _BETWEEN) | (kind[1:] == _BETWEEN)
        word_starts = np.flatnonzero(begins_word)
        words = np.unique(np.searchsorted(word_starts, others, "right"))
        change = np.zeros(len(data), np.int8)
        change[word_starts[words - 1]] = 1
        change[word_starts[words]] -= 1  # a separator is the last word
        is_uncut = np.cumsum(change, dtype=np.int8).view(bool)
        cuts[1:-1] &= ~(is_uncut[:-1] & is_uncut[1:])
    starts = np.flatnonzero(cuts)
    lengths = np.diff(starts)
    is_text = kind[starts[:-1]] != _BETWEEN
    starts = starts[:-1][is_text]
    bounds = np.searchsorted(starts, np.flatnonzero(kind == _BETWEEN))
    return Pieces(data, starts, lengths[is_text], is_uncut[starts], bounds)


def _cut_contractions(data: NDArray[np.uint8], kind: NDArray[np.uint8], cuts: NDArray[np.bool_]) -> None:
    """Put right in `cuts` what is cut around 's, 'd, 'm, 't, 'll, 've and 're."""
    places = np.flatnonzero(data == _APOSTROPHE)
    before = kind[places - 1]  # there is a separator before the first text
    places = places[(before != _MARK) & (before != _BLANK)]
    for ending, characters in _ENDINGS:
        fits = np.ones(len(places), bool)
        for n_behind, character in enumerate(characters, 1):
            fits &= data[np.minimum(places + n_behind, len(data) - 1)] == character
        cuts[places[fits] + 1] = False
        cuts[places[fits] + 1 + len(ending)] = True
