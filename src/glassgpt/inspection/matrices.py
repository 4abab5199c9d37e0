"""Matrices as coloured cells, attention weights among them."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from glassgpt.errors import DataError
from glassgpt.inspection.arrays import as_array, laid_out
from glassgpt.inspection.labels import as_labels, drawable, label_axis
from glassgpt.style import BLUE, INK, ON_SHEET, ORANGE, SHEET, rgb

SEQUENTIAL = LinearSegmentedColormap.from_list("glassgpt", [to_rgba(BLUE, 0), to_rgba(BLUE)])
"""0 is the page itself, 1 is blue: what is not there is not drawn, on any ground."""
DIVERGING = LinearSegmentedColormap.from_list(
    "glassgpt_signed",
    [(0.0, to_rgba(ORANGE)), (0.5, to_rgba(ORANGE, 0)), (0.5, to_rgba(BLUE, 0)), (1.0, to_rgba(BLUE))],
)
"""Orange below 0, the page itself at 0, blue above."""
CELL_INCHES = 0.52
"""Of a cell with a value in it."""
SMALLEST_POINTS = 5.0


def plot_matrix(
    matrix: Any,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    show_values: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw a matrix as coloured cells, with its values written in when asked.

    Non-negative numbers run from the page's ground to blue, signed ones from orange over nothing to blue,
    0 always being nothing. What is not finite (a masked score) stays empty. Labels are thinned where
    they would touch. Raises DataError for another shape, a wrong number of labels, or cells too small to
    write into.
    """
    values = as_array(matrix, (2,), "The matrix")
    n_rows, n_columns = values.shape
    for labels, n, what in [(row_labels, n_rows, "row"), (column_labels, n_columns, "column")]:
        if labels is not None and len(labels) != n:
            raise DataError(f"{len(labels)} {what}_labels for {n} {what}s; give one to each.")
    if ax is None:
        width = _width(n_columns, show_values)
        height = width * n_rows / n_columns
        height, width = min(height, 6), min(width, width * 6 / height)
        _, ax = plt.subplots(figsize=(max(width, 1.2) + 1.1, max(height, 0.6) + 0.9))

    _cells(ax, values, _limit(values), on_sheet=show_values)
    width, height = _drawn_inches(ax, n_columns / n_rows)
    _label(ax, row_labels, column_labels, width, height)
    if show_values:
        _write_values(ax, values, min(width / n_columns, height / n_rows))
    if title:
        ax.set_title(title)
    return ax


def plot_attention(
    weights: Any, tokens: Sequence[str], *, head_titles: Sequence[str] | None = None
) -> Figure:
    """Draw who looks at whom: attention weights (T, S) or (H, T, S), a map for each head.

    A row is a position that looks, a column one that is looked at; blue is 1, or the largest weight if all
    are small, the same in all maps. The queries are the last T of the S `tokens`. Raises DataError
    for another shape, or a wrong number of tokens or titles.
    """
    heads = as_array(weights, (2, 3), "The attention weights")
    heads = heads[None] if heads.ndim == 2 else heads
    H, T, S = heads.shape
    if len(tokens) != S or T > S:
        raise DataError(f"{len(tokens)} tokens for weights of shape {(H, T, S)}; give one to each key.")
    if head_titles is None:
        head_titles = [f"head {h}" for h in range(H)] if H > 1 else [""]
    if len(head_titles) != H:
        raise DataError(f"{len(head_titles)} head_titles for {H} heads; give one to each.")

    n_columns = min(H, 4) if H != 6 else 3
    n_rows = math.ceil(H / n_columns)
    side = {1: 3.6, 2: 3.1, 3: 2.5}.get(n_columns, 2.0)  # inches of a map
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(n_columns * (side + 0.15) + 1.2, n_rows * (side * T / S + 0.3) + 0.8),
        squeeze=False,
    )  # fmt: skip
    labels = as_labels(tokens)
    largest = max(float(np.nanmax(heads)), 1e-12)
    for i, ax in enumerate(axes.flat):
        if i >= H:
            ax.set_visible(False)
            continue
        _cells(ax, heads[i], (0, 1 if largest > 0.5 else largest), on_sheet=False)
        ax.set_title(drawable(head_titles[i]))
        label_axis(ax.yaxis, labels[S - T :] if i % n_columns == 0 else [], side * T / S, rotate=False)
        below_is_empty = i + n_columns >= H
        label_axis(ax.xaxis, labels if below_is_empty else [], side, rotate=True)
    axes[0, 0].set_ylabel("looks …")
    axes[min(n_rows - 1, (H - 1) // n_columns), 0].set_xlabel("… at")
    return figure


def _limit(values: np.ndarray) -> tuple[float, float]:
    """The values at the ends of the colours: symmetric where any is negative, else from 0."""
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0)) or 1.0
    return (-largest if (finite < 0).any() else 0.0), largest


def _cells(ax: Axes, values: np.ndarray, limit: tuple[float, float], *, on_sheet: bool) -> None:
    """Draw the cells; what is not finite stays empty."""
    lowest, highest = limit
    share = (np.where(np.isfinite(values), values, lowest) - lowest) / (highest - lowest)
    colours = (DIVERGING if lowest < 0 else SEQUENTIAL)(share)
    if on_sheet:  # whatever the page, letters on the cells lie on these colours
        opacity = colours[..., 3:]
        colours[..., :3] = colours[..., :3] * opacity + np.array(rgb(SHEET)) * (1 - opacity)
        colours[..., 3] = 1
    colours[~np.isfinite(values), 3] = 0
    ax.imshow(colours, interpolation="nearest", aspect="equal")
    ax.spines[:].set_visible(True)
    ax.spines[:].set_linewidth(0.5)


def _write_values(ax: Axes, values: np.ndarray, cell_inches: float) -> None:
    """Write each value into its cell, or ∞ and −∞ where there is none."""
    finite = values[np.isfinite(values)]
    whole = bool((finite == np.round(finite)).all())
    digits = 0 if whole else 2 if np.abs(finite).max(initial=0) < 100 else 1
    longest = max((len(f"{value:.{digits}f}") for value in finite), default=1)
    size = min(9.0, cell_inches * 72 * 0.88 / (longest * 0.64))  # points; 0.64 of it is a digit's width
    if size < SMALLEST_POINTS:
        raise DataError(
            f"The values of a matrix of {values.shape[0]} × {values.shape[1]} cannot be read in its cells. "
            f"Pass show_values=False, or a part of it."
        )
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        colour = ON_SHEET if np.isfinite(value) else INK
        text = f"{value:.{digits}f}" if np.isfinite(value) else "−∞" if value < 0 else "∞"
        ax.text(column, row, text.replace("-", "−"), ha="center", va="center", fontsize=size, color=colour)


def _label(
    ax: Axes, rows: Sequence[str] | None, columns: Sequence[str] | None, width: float, height: float
) -> None:
    for axis, labels, inches, n in [(ax.yaxis, rows, height, 0), (ax.xaxis, columns, width, 1)]:
        if labels is None:
            axis.set_ticks([])
        else:
            label_axis(axis, as_labels(labels), inches, rotate=n == 1)


def _width(n_columns: int, show_values: bool) -> float:
    return min(6.4, n_columns * CELL_INCHES) if show_values else min(5.0, max(2.4, n_columns * 0.3))


def _drawn_inches(ax: Axes, aspect: float) -> tuple[float, float]:
    """Width and height that the cells will have in `ax`, which keeps them square."""
    figure = laid_out(ax)
    box = ax.get_window_extent()
    width, height = box.width / figure.dpi, box.height / figure.dpi
    return min(width, height * aspect), min(height, width / aspect)
