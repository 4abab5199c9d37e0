"""The picture of a run: training and held-out loss, step by step."""

import io
from pathlib import Path

from glassgpt.errors import CheckpointError
from glassgpt.storage import write_atomically
from glassgpt.training.metrics import Record

LOSS_PLOT = "loss.png"
_TRAINING, _HELD_OUT, _QUIET = "#9db4c8", "#c1440e", "#666666"


def draw_loss(records: list[Record], path: Path) -> None:
    """Draw the records of `read_metrics` and write the picture to `path`.

    Raises CheckpointError when the disk is full or the folder cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to load, and needed only here
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a window, and without pyplot's global state
    axes = figure.subplots()
    held_out = [record for record in records if "val_loss" in record]
    best = min(held_out, key=lambda record: record["val_loss"], default=None)
    words = "held out" if best is None else f"held out, best {best['val_loss']:.3f} at step {best['step']:,}"
    for name, colour, label, marker in [
        ("loss", _TRAINING, "training", ""),
        ("val_loss", _HELD_OUT, words, "o"),
    ]:
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, color=colour, label=label, marker=marker, markersize=3, linewidth=1.4)
    axes.set_xlabel("step", color=_QUIET)
    axes.set_ylabel("loss (nats per token)", color=_QUIET)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)
    axes.tick_params(colors=_QUIET)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    if axes.lines:
        axes.legend(frameon=False, labelcolor="linecolor")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue(), CheckpointError)
