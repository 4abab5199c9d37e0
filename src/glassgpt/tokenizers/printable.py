"""Any bytes as characters that can be seen, in GPT-2's way: " the" is written Ġthe.

A byte that Latin-1 shows as a visible character stands for itself. The other 68 (controls, spaces, the soft
hyphen) take the characters from U+0100 on, in order: the space, 32, becomes Ġ. GPT-2's vocabulary files are
written so, and its bytes are numbered in the order of these characters (Radford et al. 2019 §2.2; the table
is in OpenAI's `encoder.py`).
"""

from collections.abc import Iterable

_VISIBLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]

GPT2_BYTE_ORDER = bytes(_VISIBLE + _HIDDEN)
"""The byte that each of GPT-2's first 256 ids stands for."""

_CHARACTER = {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(256 + i) for i, byte in enumerate(_HIDDEN)}
_BYTE = {character: byte for byte, character in _CHARACTER.items()}


def to_printable(data: bytes) -> str:
    """One visible character for each byte."""
    return data.decode("latin-1").translate(_CHARACTER)


def from_printable(text: str) -> bytes:
    """The inverse of `to_printable`. Raises KeyError for a character that stands for no byte."""
    return bytes(_BYTE[character] for character in text)


def read_merges(lines: Iterable[str], byte_order: bytes) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """Merges written as "Ġ t", one a line: (the pairs of ids, the id of each printable token).

    Raises KeyError or ValueError for a line that does not join two tokens known before it to a new one.
    """
    ids = {_CHARACTER[byte]: token_id for token_id, byte in enumerate(byte_order)}
    merges = []
    for line in lines:
        left, right = line.split(" ")
        if left + right in ids:
            raise ValueError(f"{left + right!r} is made twice")
        merges.append((ids[left], ids[right]))
        ids[left + right] = len(ids)
    return merges, ids
