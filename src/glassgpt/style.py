"""How every picture looks: colours and matplotlib's settings, as plain data.

A picture lies on the page's own ground, white or nearly black, so it has none of its own, and every colour
of a line or a letter stands out from both by at least 3:1 (WCAG 2.1 §1.4.11). Here is no matplotlib, so
whatever draws can import this at once and matplotlib when it is needed.
"""

from typing import Any

INK = "#767d88"
"""Text, axes and everything else that is not data."""
BLUE, ORANGE, TEAL, PLUM, LILAC, OLIVE = PALETTE = (
    "#2b74e2",
    "#e0701a",
    "#23a58a",
    "#a8326e",
    "#b07cc6",
    "#7a6020",
)
"""In the order of use; they stay apart for eyes without red or green cones too."""
SHEET = "#f1f3f6"
"""What lies under coloured cells with values written into them, on whatever page."""
ON_SHEET = "#000000"
"""Those values; on every mixture of the sheet with a colour above, black is read better than white."""

SETTINGS: dict[str, Any] = {
    "figure.figsize": (7, 3.5),
    "figure.dpi": 110,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "savefig.edgecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "font.size": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "patch.edgecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "hatch.color": INK,
}
"""All but the cycle of colours, which `settings` adds."""


def settings() -> dict[Any, Any]:
    """matplotlib's rcParams for this style: `with matplotlib.rc_context(settings()): …`."""
    from cycler import cycler  # comes with matplotlib

    return {**SETTINGS, "axes.prop_cycle": cycler(color=PALETTE)}


def rgb(colour: str) -> tuple[float, float, float]:
    """Red, green and blue of `#rrggbb`, each 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def luminance(colour: tuple[float, float, float]) -> float:
    """How bright the eye finds a colour, 0 to 1: the relative luminance of WCAG 2.1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """How far two colours stand apart, 1 to 21: (brighter + 0.05) / (darker + 0.05), WCAG 2.1."""
    darker, brighter = sorted([luminance(one), luminance(other)])
    return (brighter + 0.05) / (darker + 0.05)
