"""The style, and the plots that are neither matrices nor maps of points."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from glassgpt.errors import DataError
from glassgpt.inspection.arrays import as_array
from glassgpt.inspection.labels import as_labels, literally
from glassgpt.style import BLUE, settings


def use_style() -> None:
    """Make matplotlib draw all that follows in this project's style: no ground, readable on any page."""
    matplotlib.rcParams.update(settings())


def plot_losses(
    curves: Mapping[str, tuple[Any, Any]], *, ax: Axes | None = None, y_label: str = "loss (nats per token)"
) -> Axes:
    """Draw losses over steps: {name: (steps, losses)}; a curve of up to 30 points shows each of them.

    Raises DataError when a curve is empty or its two parts differ in length.
    """
    if ax is None:
        _, ax = plt.subplots()
    for name, (steps, losses) in curves.items():
        x = as_array(steps, (1,), f"The steps of {name!r}")
        y = as_array(losses, (1,), f"The losses of {name!r}")
        if len(x) != len(y):
            raise DataError(f"{name!r} has {len(x):,} steps and {len(y):,} losses; give one to each.")
        ax.plot(x, y, label=name, marker="o" if len(x) <= 30 else "", markersize=3)
    ax.set_xlabel("step")
    ax.set_ylabel(y_label)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.grid(axis="y")
    if curves:
        ax.legend()
    return ax


def plot_next_tokens(
    probabilities: Any, tokenizer_or_labels: Any, *, n: int = 10, ax: Axes | None = None
) -> Axes:
    """Draw the `n` likeliest next tokens of `probabilities` (V,), the likeliest on top.

    Their names come from a tokenizer, or from a sequence of V labels. Raises DataError for another shape,
    when the labels are not V, or when a probability is not a number.
    """
    values = as_array(probabilities, (1,), "The probabilities")
    if not hasattr(tokenizer_or_labels, "decode") and len(tokenizer_or_labels) != len(values):
        raise DataError(
            f"{len(tokenizer_or_labels):,} labels for {len(values):,} probabilities; give one to each."
        )
    n_bad = np.count_nonzero(~np.isfinite(values))
    if n_bad:
        raise DataError(
            f"{n_bad:,} of {len(values):,} probabilities are nan or infinite. Look at the logits behind them."
        )
    likeliest = np.argsort(-values, kind="stable")[:n]
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 0.27 * len(likeliest) + 0.7))
    bars = ax.barh(range(len(likeliest)), values[likeliest], color=BLUE, height=0.7)
    largest = max(float(values.max()), 1e-9)
    n_decimals = max(1, 1 + math.ceil(-math.log10(100 * largest)))  # an untrained model's are all tiny
    ax.bar_label(bars, [f" {value:.{n_decimals}%}" for value in values[likeliest]], fontsize=8.5)
    ax.set_yticks(range(len(likeliest)), as_labels(_names(tokenizer_or_labels, likeliest.tolist())))
    literally(ax.get_yticklabels())
    ax.invert_yaxis()
    ax.set_xlim(0, largest * 1.2)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(StrMethodFormatter(f"{{x:.{n_decimals if largest <= 0.1 else 0}%}}"))
    ax.set_xlabel("probability")
    ax.tick_params(axis="y", length=0)
    return ax


def _names(tokenizer_or_labels: Any, ids: Sequence[int]) -> list[str]:
    if hasattr(tokenizer_or_labels, "decode"):
        return [tokenizer_or_labels.decode([token_id]) for token_id in ids]
    return [str(tokenizer_or_labels[token_id]) for token_id in ids]
