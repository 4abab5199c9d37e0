"""Tokens as labels: every character visible, none that the font lacks, none on top of another."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # coloured text needs no matplotlib
    from matplotlib.axis import Axis
    from matplotlib.text import Text

MARKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
LONGEST = 16
"""Characters of a label; a longer one ends in "…"."""
POINTS_PER_INCH = 72


def visible(token: str, longest: int | None = LONGEST) -> str:
    """`token` with the spaces at its ends, line ends and other invisible characters replaced by marks.

    " the" → "·the", a line end → "↵", U+200B → "⟨200B⟩", the empty token → "∅"; "head 0" stays as it is.
    """
    begin, end = len(token) - len(token.lstrip(" ")), len(token.rstrip(" "))
    shown = "".join(
        character if character == " " and begin < i < end else MARKS.get(character) or _printable(character)
        for i, character in enumerate(token)
    )
    if longest is not None and len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    return shown or "∅"


def _printable(character: str) -> str:
    combining = unicodedata.combining(character)
    return character if character.isprintable() and not combining else f"⟨{ord(character):X}⟩"


def drawable(text: str) -> str:
    """`text` with the characters that matplotlib's font lacks written as ⟨hexadecimal numbers⟩."""
    known = _characters_of_the_font()
    return "".join(letter if ord(letter) in known else f"⟨{ord(letter):X}⟩" for letter in text)


@cache
def _characters_of_the_font() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont(FontProperties())).get_charmap())


def as_labels(tokens: Iterable[str]) -> list[str]:
    """What stands for each token beside an axis."""
    return [drawable(visible(str(token))) for token in tokens]


def literally(texts: Iterable["Text"]) -> None:
    """A dollar sign in a token is one, and not the beginning of a formula."""
    for text in texts:
        text.set_parse_math(False)


def label_axis(axis: "Axis", labels: Sequence[str], inches: float, *, rotate: bool) -> None:
    """Put `labels` at 0, 1, 2, … of an axis `inches` long, as many of them as have room.

    `rotate`: they stand upright, where they are too wide to lie side by side. The first is always
    there; of more than fit, each second, third, … is.
    """
    size = 8.5
    per_label = inches * POINTS_PER_INCH / max(1, len(labels))  # points along the axis
    lying = max(map(len, labels), default=0) * size * 0.65
    upright = rotate and lying > per_label
    needed = size * 1.25 if upright or not rotate else lying
    every = max(1, -(-int(needed * 10) // max(1, int(per_label * 10))))
    positions = range(0, len(labels), every)
    axis.set_ticks(list(positions), [labels[i] for i in positions], fontsize=size)
    if upright:
        for label in axis.get_ticklabels():
            label.set_rotation(90)
    axis.set_tick_params(length=0)
    literally(axis.get_ticklabels())
