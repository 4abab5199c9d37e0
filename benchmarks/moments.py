"""Moments in which memory was fast, and moments in which it was slow.

Two cores of a shared machine have at times one way to memory between them and at times one each, from second
to second (docs/log.md). What waits for memory is then half as fast again in one moment as in the next, and
what computes more is not. So everybody is compared in moments of the same kind, too.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_RATIO = 1.35
"""Fast moments are so many times as fast as slow ones, or all are alike: a single hump cut in two has less,
unless it is very broad."""
LEAST_VALUES = 3
"""Of fewer no median is told, and no kind is made."""


@dataclass(frozen=True)
class Moments:
    """One kind of moments of a row: the memory's speeds in them, and what its sides measured then."""

    memory: list[float]
    """Bytes a second, before and after every value of every side."""
    values: dict[str, list[float]]


def kinds_of_moments(sides: Mapping[str, Mapping[str, Any]]) -> list[Moments]:
    """The slow moments and the fast ones, from the sides of results.json; none where all were alike.

    A value counts where memory was of the same kind before it and after.
    """
    speeds = [speed for side in sides.values() for pair in side.get("memory", []) for speed in pair]
    cut = where_fast_begins(speeds)
    if cut is None:
        return []
    kinds = []
    for is_fast in (False, True):
        memory, values = [], {}
        for name, side in sides.items():
            chosen = [
                (value, pair)
                for value, pair in zip(side.get("values", []), side.get("memory", []), strict=False)
                if all((speed >= cut) == is_fast for speed in pair)
            ]
            values[name] = [value for value, _ in chosen]
            memory += [speed for _, pair in chosen for speed in pair]
        kinds.append(Moments(memory, values))
    return kinds


def were_too_seldom(sides: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether there were two kinds of moments, and one of them has too few values of a side."""
    measured = [name for name, side in sides.items() if "values" in side]
    kinds = kinds_of_moments(sides)
    return any(len(kind.values[name]) < LEAST_VALUES for kind in kinds for name in measured)


def where_fast_begins(speeds: Sequence[float]) -> float | None:
    """The speed that parts two groups best: their logarithms spread least around two means (Otsu 1979, "A
    Threshold Selection Method from Gray-Level Histograms"). None where the means are close to one another."""
    logs = sorted(map(math.log, speeds))
    if len(logs) < 2 * LEAST_VALUES:
        return None
    place = min(
        range(LEAST_VALUES, len(logs) - LEAST_VALUES + 1),
        key=lambda cut: spread(logs[:cut]) + spread(logs[cut:]),
    )
    if statistics.fmean(logs[place:]) - statistics.fmean(logs[:place]) < math.log(LEAST_RATIO):
        return None
    return math.exp((logs[place - 1] + logs[place]) / 2)


def spread(values: Sequence[float]) -> float:
    """The sum of the squared distances from the mean."""
    mean = statistics.fmean(values)
    return sum((value - mean) ** 2 for value in values)
