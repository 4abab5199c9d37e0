"""A text with its tokens in colour: to see where it is cut, or what each token was worth."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from glassgpt.errors import DataError
from glassgpt.inspection.labels import visible
from glassgpt.style import BLUE, ORANGE, PALETTE, rgb

STRONGEST = 0.45
"""Opacity of the strongest ground, so that the page's own letters stay readable on it."""


@dataclass(frozen=True)
class ColouredTokens:
    """Tokens, and a number for each or none; Jupyter shows it as coloured text, a terminal as plain text."""

    tokens: tuple[str, ...]
    values: tuple[float, ...] | None = None

    def _repr_html_(self) -> str:
        spans = []
        for i, token in enumerate(self.tokens):
            if self.values is None:
                colour, hint = _translucent(PALETTE[i % len(PALETTE)], 0.28), f"token {i}"
            else:
                value = self.values[i]
                colour = _translucent(ORANGE if value < 0 else BLUE, self._opacity(value))
                hint = f"{value:.4g}"
            shown = html.escape(visible_in_text(token)).replace("\n", "<br>")
            spans.append(
                f'<span title="{hint}" style="background-color:{colour};color:inherit;border-radius:3px">'
                f"{shown}</span>"
            )
        return f'<div style="white-space:pre-wrap;line-height:1.7">{"".join(spans)}</div>'

    def __repr__(self) -> str:
        if self.values is None:
            return "|".join(visible(token, longest=None) for token in self.tokens)
        pairs = zip(self.tokens, self.values, strict=True)
        return "  ".join(f"{visible(token, longest=None)} {value:.2f}" for token, value in pairs)

    def _opacity(self, value: float) -> float:
        finite = [abs(other) for other in self.values or () if math.isfinite(other)]
        largest = max(finite, default=0)
        return STRONGEST * abs(value) / largest if largest and math.isfinite(value) else 0.0


def coloured_tokens(tokens: Sequence[str], values: Sequence[float] | None = None) -> ColouredTokens:
    """Show `tokens` as one text on coloured grounds.

    Without `values` neighbours differ in colour, so that the cuts are seen. With them the ground is the
    stronger the larger the value, blue above 0 and orange below. Raises DataError when there is not one
    value to each token.
    """
    if values is not None and len(values) != len(tokens):
        raise DataError(f"{len(values):,} values for {len(tokens):,} tokens; give one to each.")
    return ColouredTokens(tuple(tokens), None if values is None else tuple(float(value) for value in values))


def visible_in_text(token: str) -> str:
    """`token` with its line ends marked, but still ends of lines."""
    return "".join(
        "↵\n" if letter == "\n" else letter if letter == " " else visible(letter) for letter in token
    )


def _translucent(colour: str, opacity: float) -> str:
    red, green, blue = (round(part * 255) for part in rgb(colour))
    return f"rgba({red},{green},{blue},{opacity:.2f})"
