r"""The pieces of GPT-2's pattern, found by array operations wherever text is ASCII.

Among ASCII characters three neighbours tell nearly everything, so a whole megabyte is cut at once. From
it's␣␣12am--\n\tno (␣ is a blank) come it│'s│␣│␣12│am│--│\n│\t│no, since the pattern cuts

    between letters, numbers, marks and white space          12│am   am│--   --│\n
    but not behind a blank, which goes with what follows     ␣12
    in white space only before its last character,           ␣│␣12   \n│\tno
    and only if something follows

Contractions are the one exception: behind an apostrophe that begins a piece, s, d, m, t, ll, ve and re stay
with it, and are cut from letters after them. It begins one unless a blank or another mark is before it.

A word with any other character in it is left to the pattern itself, and so is text that is mostly of others;
the byte 0, too, which fills up short pieces where they are counted.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# The kinds of bytes; letters, numbers and marks come first, since they are what fills a piece.
_LETTER, _NUMBER, _MARK, _SPACE, _BLANK, _BETWEEN, _OTHER = range(7)
_SEPARATOR = b"\xff"  # stands between two texts, and never in UTF-8


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

# White space and the word after it: between a word and white space the pattern always cuts. The four
# characters are white space to Python, not to Unicode.
_SPACE_AND_WORD = re.compile(r"[^\S\x1c-\x1f]*[\S\x1c-\x1f]+|\s+")

_MOSTLY_OTHER = 1.5  # bytes a character, above which text is in another alphabet: arrays gain nothing there

_N_KEY = 8  # bytes in the whole number that a short piece is counted as
_LOW_BYTES = np.array([(1 << 8 * length) - 1 for length in range(_N_KEY + 1)], "<u8")


def ascii_pieces(texts: Sequence[str]) -> tuple[Counter[str], list[str]]:
    """How often each piece occurs in `texts`, and the words that are left, which `pattern.cut` cuts alone.

    A word begins with the ASCII white space before it and ends where the next white space begins.
    """
    joined = _SEPARATOR.join([b"", *(text.encode("utf-8") for text in texts), b""])
    if len(joined) > _MOSTLY_OTHER * sum(map(len, texts)) + len(texts) + 1:
        return Counter(), [word for text in texts for word in _SPACE_AND_WORD.findall(text)]
    kind = np.frombuffer(joined.translate(_KINDS), np.uint8)
    cuts = _cuts(joined, kind)
    starts = np.flatnonzero(cuts)
    lengths = np.diff(starts)
    starts = starts[:-1]
    is_left = kind == _OTHER
    words: list[str] = []
    if is_left.any():
        is_left, words = _words_with_others(joined, kind)
    wanted = (kind[starts] != _BETWEEN) & ~is_left[starts]
    return _distinct(joined, starts[wanted], lengths[wanted]), words


def _cuts(joined: bytes, kind: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether the pattern cuts before each byte, the end among them; right wherever there are no others."""
    pairs = kind[:-1] << 4 | kind[1:]
    is_solid, is_white = _solid_and_white(kind)
    cuts = np.ones(len(joined) + 1, bool)
    cuts[1:-1] = np.frombuffer(pairs.tobytes().translate(_CUTS_BETWEEN_KINDS), bool)
    cuts[1:-2] |= is_white[:-2] & is_white[1:-1] & is_solid[2:]
    _cut_contractions(np.frombuffer(joined, np.uint8), kind, cuts)
    return cuts


def _solid_and_white(kind: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return kind < _SPACE, (kind == _SPACE) | (kind == _BLANK)


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


def _words_with_others(joined: bytes, kind: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], list[str]]:
    """Which bytes belong to words with other characters, and those words."""
    is_solid, is_white = _solid_and_white(kind)
    begins = np.ones(len(kind), bool)
    begins[1:] = (is_solid[:-1] & is_white[1:]) | (kind[:-1] == _BETWEEN) | (kind[1:] == _BETWEEN)
    starts = np.flatnonzero(begins)
    has_others = np.logical_or.reduceat(kind == _OTHER, starts)
    # Since a separator comes first and another last, places are begin, end, begin, end, … of such words.
    places = starts[np.flatnonzero(np.diff(has_others)) + 1].tolist()
    words: list[str] = []
    for start, end in zip(places[::2], places[1::2], strict=True):
        words += _SPACE_AND_WORD.findall(joined[start:end].decode("utf-8"))
    return np.repeat(has_others, np.diff(starts, append=len(kind))), words


def _distinct(joined: bytes, starts: NDArray[np.intp], lengths: NDArray[np.intp]) -> Counter[str]:
    """How often each of the pieces of `joined` occurs.

    One of up to 8 bytes is a whole number, filled up with zeros: numbers are counted by sorting them.
    """
    padded = joined + bytes(_N_KEY)
    key_at: NDArray[np.uint64] = np.ndarray(len(joined), "<u8", padded, strides=(1,))
    is_short = lengths <= _N_KEY
    keys, counts = np.unique(key_at[starts[is_short]] & _LOW_BYTES[lengths[is_short]], return_counts=True)
    pieces = keys.astype("<u8").view(f"S{_N_KEY}").astype(f"U{_N_KEY}").tolist()
    found = Counter(dict(zip(pieces, counts.tolist(), strict=True)))
    ends = (starts + lengths)[~is_short].tolist()
    long = Counter(joined[start:end] for start, end in zip(starts[~is_short].tolist(), ends, strict=True))
    found.update({piece.decode("ascii"): count for piece, count in long.items()})
    return found
