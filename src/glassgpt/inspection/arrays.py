"""What plots ask for: numbers from wherever they come, and a figure whose layout is settled."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glassgpt.errors import DataError


def as_array(values: Any, n_dimensions: tuple[int, ...], what: str) -> np.ndarray:
    """`values` as floating-point numbers in NumPy; a tensor may be on a GPU, in bfloat16 or in a graph.

    Raises DataError when it is empty, or has another number of dimensions.
    """
    if hasattr(values, "detach"):  # a tensor; PyTorch need not be loaded to draw a list
        values = values.detach().cpu().double().numpy()  # float64 on the CPU: Apple's GPUs have none
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in n_dimensions or array.size == 0:
        wanted = " or ".join(map(str, n_dimensions))
        raise DataError(f"{what} has shape {array.shape}; give it {wanted} dimensions, none of them 0.")
    return array


def laid_out(ax: Axes) -> Figure:
    """The figure of `ax`, its layout settled, so that sizes in pixels are known."""
    figure = ax.figure if isinstance(ax.figure, Figure) else ax.figure.figure
    figure.draw_without_rendering()
    return figure
