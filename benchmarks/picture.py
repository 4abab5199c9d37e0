"""The table as a picture: for every row and peer, how many times as fast ours is, on a logarithmic axis."""

import io
from collections.abc import Sequence

from benchmarks.judging import Reading
from benchmarks.rows import Ratio
from glassgpt.style import BLUE, INK, ORANGE, settings

INCHES_A_LINE, INCHES_AROUND = 0.22, 0.9


def draw(readings: Sequence[Reading]) -> str:
    """An SVG of the ratios of `readings`. Ours is the line at 1; what was wanted at least is a stroke."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    lines = [
        (reading, side.name, ratio)
        for reading in readings
        for side in reading.row.sides[1:]
        if (ratio := reading.ratio(side.name)) is not None
    ]
    style = {**settings(), "svg.fonttype": "none", "svg.hashsalt": "glassgpt", "font.family": "sans-serif"}
    with rc_context(style):
        figure = Figure(figsize=(7.5, INCHES_AROUND + INCHES_A_LINE * max(1, len(lines))))
        axes = figure.add_subplot()
        for place, (reading, peer, ratio) in enumerate(lines):
            colour = BLUE if ratio >= 1 else ORANGE
            axes.barh(place, ratio - 1, left=1, color=colour, height=0.62)
            for wanted in wanted_beside(reading, peer):
                axes.plot([wanted, wanted], [place - 0.42, place + 0.42], color=INK, linewidth=2)
            axes.annotate(
                f"{ratio:.2f} ×",
                (max(ratio, 1, *wanted_beside(reading, peer)), place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_xscale("log")
        axes.margins(x=0.16)
        axes.set_ylim(max(1, len(lines)) - 0.4, -0.6)
        axes.set_yticks(range(len(lines)), [f"{reading.row.name} · {peer}" for reading, peer, _ in lines])
        axes.tick_params(axis="y", length=0)
        ticks = [tick for tick in TICKS if not lines or within(tick, [ratio for *_, ratio in lines])]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("times as fast as the peer; the stroke: wanted at least", loc="right")
        axes.grid(axis="x")
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


TICKS = [0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000]


def within(tick: float, ratios: Sequence[float]) -> bool:
    return min(1, *ratios) / 1.5 <= tick <= max(1, *ratios) * 1.5


def wanted_beside(reading: Reading, peer: str) -> list[float]:
    """What was wanted at least beside this peer."""
    return [
        goal.at_least
        for goal in reading.row.goals
        if isinstance(goal, Ratio) and peer in goal.beside and goal.at_least is not None
    ]
