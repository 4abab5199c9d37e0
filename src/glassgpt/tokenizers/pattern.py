r"""Where GPT-2 cuts text before any byte pair is merged: no token ever reaches across such a cut.

    '(?:[sdmt]|ll|ve|re)    an English contraction: 's 'd 'm 't 'll 've 're
     ?LETTER+               letters with at most one space before them: " hello"
     ?NUMBER+               digits likewise
     ?[^\sLETTERNUMBER]+    marks likewise: punctuation, emoji, accents that stand alone
    \s+(?!\S)               white space, but for the last one before a word, which goes with the word
    \s+                     what is left: a tab or a line break right before a word

The first line that fits wins, and what it takes is as long as can be (Radford et al. 2019 §2.2; the pattern
is in OpenAI's `encoder.py`). Every character falls into exactly one piece.
"""

import re
from collections.abc import Iterator

import regex

# Unicode grows: characters that became letters or digits after Unicode 16.0 are marks here, whatever the
# tables of the engine at hand say. Otherwise the two engines that read this pattern (`regex` in training and
# by hand, Rust's in `tiktoken`) would cut the same text differently.
_LATER = (
    r"\u0558\u058B-\u058C\u088F\u0C5C\u0CDC\u208F\u209D-\u209F\uA7CE-\uA7CF\uA7D2\uA7D4\uA7DD-\uA7F1"
    r"\uAB6C-\uAB6D\U000107BB-\U000107BF\U00010940-\U00010959\U00010EC5-\U00010EEE\U00011B0A"
    r"\U00011DB0-\U00011DF1\U0001246F-\U0001247F\U00012550-\U00012686\U00016EA0-\U00016ED3"
    r"\U00016FF2-\U00016FF6\U000187F8-\U000187FF\U00018CD6-\U00018CDA\U00018D09-\U000191D2"
    r"\U0001B123-\U0001B128\U0001B168\U0001D6A6\U0001DF1F-\U0001DF24\U0001DF2B-\U0001DFFF"
    r"\U0001E6C0-\U0001E6FF\U0002B73A-\U0002B73F\U0002B81E\U0002CEA2-\U0002CEAD\U000323B0-\U0003FC3F"
)
LETTER = rf"[\p{{L}}--[{_LATER}]]"
NUMBER = rf"[\p{{N}}--[{_LATER}]]"


def _pattern(letter: str, number: str, space: str) -> str:
    return (
        rf"'(?:[sdmt]|ll|ve|re)| ?[{letter}]+| ?[{number}]+| ?[^{space}{letter}{number}]+"
        rf"|[{space}]+(?![^{space}])|[{space}]+"
    )


def _to_sure_cut(letter: str, number: str, space: str) -> str:
    return rf"[{space}]*+[^{space}{letter}{number}]*+(?:[{letter}]++|[{number}]++)?"


# The four sets within ASCII, for Python's own `re`, which is several times faster.
_ASCII = ("A-Za-z", "0-9", "\t-\r ")
_ANY = (LETTER, NUMBER, r"\s")

PATTERN = _pattern(*_ANY)
_PIECE = regex.compile(PATTERN, regex.V1)  # version 1 of its syntax has `--`, the difference of two sets
_ASCII_PIECE = re.compile(_pattern(*_ASCII))
_TO_SURE_CUT = regex.compile(_to_sure_cut(*_ANY), regex.V1)
_ASCII_TO_SURE_CUT = re.compile(_to_sure_cut(*_ASCII))


def cut(text: str) -> list[str]:
    """The pieces of `text`, in order; joined they are `text` again. Chapter 01."""
    return (_ASCII_PIECE if text.isascii() else _PIECE).findall(text)


def chunks(text: str, n_characters: int) -> Iterator[str]:
    """`text` in chunks that can be cut each alone, all but the last at least `n_characters` long.

    A chunk is much longer only where one piece is. It ends behind a whole run of letters or digits, or a run
    of marks with white space behind it: nothing in the pattern crosses there, and its only look ahead, from
    white space, never sees across.
    """
    to_sure_cut = _ASCII_TO_SURE_CUT if text.isascii() else _TO_SURE_CUT
    start = 0
    while len(text) - start > n_characters:
        found = to_sure_cut.match(text, start + n_characters)
        assert found  # all its parts may be missing, so it fits anywhere
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]
