"""The weights of a checkpoint as a picture: how the numbers of each kind are spread, layer by layer."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from glassgpt.errors import CheckpointError
from glassgpt.pretrained.summary import SHARES, TensorSummary
from glassgpt.storage import explained
from glassgpt.style import BLUE, settings

KINDS = {  # the end of our name: its title
    "attention_norm.weight": "norm before attention",
    "attention.qkv_proj.weight": "queries, keys, values",
    "attention.o_proj.weight": "attention output",
    "feedforward_norm.weight": "norm before the MLP",
    "feedforward.up_proj.weight": "MLP up",
    "feedforward.down_proj.weight": "MLP down",
}


def plot_weights(tensors: Sequence[TensorSummary], path: Path, title: str) -> None:
    """Draw the spread of each kind of weight over the layers, and write the picture to `path`.

    The line is the median, the dark band half of the numbers, the light band 98 of 100. Raises
    CheckpointError when the picture cannot be written.
    """
    with matplotlib.rc_context(settings()), explained(CheckpointError, path):
        try:
            _figure(tensors, title).savefig(path, dpi=150)
        except ValueError as fault:  # an ending that matplotlib does not know
            raise CheckpointError(f"Cannot draw {path}: {fault}. End it in .png, .svg or .pdf.") from fault


def _figure(tensors: Sequence[TensorSummary], title: str) -> Figure:
    figure = Figure(figsize=(10, 6))
    axes = figure.subplots(2, 3, sharex=True)
    for (ending, kind), drawing in zip(KINDS.items(), axes.flat, strict=True):
        _draw(drawing, [tensor for tensor in tensors if (tensor.fills or "").endswith(f".{ending}")], kind)
    for drawing in axes[-1]:
        drawing.set_xlabel("layer")
        drawing.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"{title}: median, half and 98 of 100 of the weights")
    return figure


def _draw(axes: Axes, rows: Sequence[TensorSummary], title: str) -> None:
    layers = range(len(rows))
    quantiles = np.array([row.quantiles for row in rows]).reshape(-1, len(SHARES))
    lowest, low, median, high, highest = quantiles.T
    axes.fill_between(layers, lowest, highest, color=BLUE, alpha=0.2, linewidth=0)
    axes.fill_between(layers, low, high, color=BLUE, alpha=0.45, linewidth=0)
    axes.plot(layers, median, color=BLUE, linewidth=1.5, marker="." if len(rows) == 1 else None)
    axes.set_title(title)
