"""Words on a map, their labels kept apart."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from glassgpt.errors import DataError
from glassgpt.inspection.arrays import as_array, laid_out
from glassgpt.inspection.labels import as_labels
from glassgpt.style import INK, PALETTE

FARTHEST = 70
"""Points (1/72 inch) that a label may stand away from its point."""


def plot_points(
    points: Any, labels: Sequence[str], *, groups: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw `points` (n, 2) with a label each, coloured by group.

    A label stands beside its point, at the first place where it covers no other label and no point; one
    that finds it only farther off is tied to its point by a thin line. Raises DataError for another
    shape, or when labels or groups are not n.
    """
    places = as_array(points, (2,), "The points")
    for names, what in [(labels, "labels"), (groups, "groups")]:
        if names is not None and len(names) != len(places):
            raise DataError(f"{len(names)} {what} for {len(places)} points; give one to each.")
    if places.shape[1] != 2:
        raise DataError(f"The points have shape {places.shape}; a map needs (n, 2). Project them first.")
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 5))

    kinds = list(dict.fromkeys(groups)) if groups is not None else []
    colours = {kind: PALETTE[i % len(PALETTE)] for i, kind in enumerate(kinds)}
    colour_of = [colours[group] for group in groups] if groups is not None else [PALETTE[0]] * len(places)
    ax.scatter(places[:, 0], places[:, 1], c=colour_of, s=16)
    for kind, colour in colours.items():
        ax.scatter([], [], c=colour, s=16, label=kind)
    if len(kinds) > 1:
        ax.legend()
    ax.margins(0.1)
    _place_labels(ax, [(x, y) for x, y in places.tolist()], as_labels(labels), colour_of)
    return ax


def _place_labels(ax: Axes, points: list[tuple[float, float]], labels: list[str], colours: list[str]) -> None:
    pixel = laid_out(ax).dpi / 72  # pixels in a point (1/72 inch)
    dots = [Bbox.from_bounds(x - 3 * pixel, y - 3 * pixel, 6 * pixel, 6 * pixel)
            for x, y in ax.transData.transform(points)]  # fmt: skip
    taken = [*dots]
    legend = ax.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent())
    inside = ax.get_window_extent()
    for point, label, colour in zip(points, labels, colours, strict=True):
        text = ax.annotate(
            label, point, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=8.5,
            color=colour, parse_math=False,
        )  # fmt: skip
        at_point = text.get_window_extent()
        for dx, dy in _offsets(at_point.width / pixel, at_point.height / pixel):
            box = at_point.translated(dx * pixel, dy * pixel)
            within = inside.contains(*box.min) and inside.contains(*box.max)
            if within and not any(box.overlaps(other) for other in taken):
                break
        text.set_position((dx, dy))
        taken.append(box)
        if math.hypot(dx, dy) > at_point.width / pixel / 2 + 16:
            ax.annotate(
                "", point, (dx, dy), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "alpha": 0.7, "shrinkB": 3},
            )  # fmt: skip


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Where a label's middle may be, in points from its point: near places first."""
    distance = 4.0
    while distance < FARTHEST:
        for degrees in (0, 90, 180, 270, 45, 315, 135, 225, 20, 340, 160, 200):
            angle = math.radians(degrees)
            dx = (width / 2 + distance) * math.cos(angle)
            dy = (height / 2 + distance) * math.sin(angle)
            yield dx, dy
        distance += 5
    yield 0, height / 2 + 4
