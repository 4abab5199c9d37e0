"""The picture of a run: training and held-out loss, step by step."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from glassgpt.errors import CheckpointError
from glassgpt.storage import write_atomically
from glassgpt.style import BLUE, ORANGE, settings
from glassgpt.training.metrics import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS_PLOT = "loss.png"


def draw_loss(records: list[Record], path: Path) -> None:
    """Draw the records of `read_metrics` and write the picture to `path`.

    Raises CheckpointError when the disk is full or the folder cannot be written.
    """
    import matplotlib  # slow to load, and needed only here

    picture = io.BytesIO()
    with matplotlib.rc_context(settings()):
        _figure(records).savefig(picture, format="png")
    write_atomically(path, picture.getvalue(), CheckpointError)


def _figure(records: list[Record]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(7, 4), dpi=150)
    FigureCanvasAgg(figure)  # draws without a window, and without pyplot's global state
    axes = figure.subplots()
    held_out = [record for record in records if "val_loss" in record]
    best = min(held_out, key=lambda record: record["val_loss"], default=None)
    words = "held out" if best is None else f"held out, best {best['val_loss']:.3f} at step {best['step']:,}"
    for name, colour, label, marker in [
        ("loss", BLUE, "training", ""),
        ("val_loss", ORANGE, words, "o"),
    ]:
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, color=colour, label=label, marker=marker, markersize=3, linewidth=1.4)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y")
    if axes.lines:
        axes.legend(labelcolor="linecolor")
    return figure
