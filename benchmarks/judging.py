"""From measured values to ratios and verdicts. A ratio above 1 means that ours is faster."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.moments import LEAST_VALUES, kinds_of_moments
from benchmarks.rows import AtMost, Goal, Ratio, Row, Share

TOO_SELDOM = "measured too seldom then"


@dataclass(frozen=True)
class Verdict:
    """What was wanted, and whether it was reached; None where it could not be measured."""

    wanted: str
    reached: bool | None


@dataclass(frozen=True)
class Spread:
    """The median of some measurements, and the lowest and highest of them."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{figure(self.median)} ({figure(self.lowest)}–{figure(self.highest)})"


class Reading:
    """A row together with what was measured of it."""

    def __init__(self, row: Row, measured: Mapping[str, Any]) -> None:
        self.row, self.measured = row, measured
        sides = measured["sides"]
        self.spreads = {name: Spread.of(side["values"]) for name, side in sides.items() if "values" in side}
        self.missing = {name: side["missing"] for name, side in sides.items() if "missing" in side}
        self.ours = self.spreads[row.sides[0].name]

    @property
    def counts(self) -> bool:
        """Only equal work is compared."""
        return bool(self.measured["check"]["agrees"])

    def ratio(self, peer: str) -> float | None:
        """How many times as fast as `peer`; None without a measurement, equal outputs, or a speed at all."""
        if not self.row.is_speed or peer not in self.spreads or not self.counts:
            return None
        ours, theirs = self.ours.median, self.spreads[peer].median
        return ours / theirs if self.row.more_is_better else theirs / ours

    @property
    def share(self) -> float | None:
        """The part of the machine's limit that ours reaches; None where no limit is known.

        Each round has a limit of its own, as the machine is not the same in each; the median of their shares.
        Where it differs from moment to moment inside a round, the least share of the kinds of moments.
        """
        bound = self.row.bound
        if bound is None or bound.limit not in self.measured["limits"]:
            return None
        shares = [moment.share for moment in self.moments]
        if len(shares) == 2:
            return min(share for share in shares if share is not None)
        limits = self.bound_in_rounds
        values = self.measured["sides"][self.row.sides[0].name]["values"]
        n_each = len(values) // len(limits)
        in_rounds = []
        for number, limit in enumerate(limits):
            median = statistics.median(values[number * n_each : (number + 1) * n_each])
            used = median * bound.amount if self.row.more_is_better else bound.amount / median
            in_rounds.append(used / limit)
        return float(statistics.median(in_rounds))

    @property
    def bound_in_rounds(self) -> list[float]:
        """The limit that counts for the row, in each round; older results know one for all of them."""
        assert self.row.bound is not None
        return self.measured.get("bound_in_rounds") or [self.measured["limits"][self.row.bound.limit]]

    @property
    def moments(self) -> list["Reading"]:
        """The row once more in moments when memory was slow, and when it was fast, if there were both."""
        found = []
        for kind in kinds_of_moments(self.measured["sides"]):
            sides = dict(self.measured["sides"])
            for name in self.spreads:
                values, note = kind.values[name], sides[name]["note"]
                enough = len(values) >= LEAST_VALUES
                sides[name] = (
                    {"values": values, "beside": {}, "note": note} if enough else {"missing": TOO_SELDOM}
                )
            if "values" in sides[self.row.sides[0].name]:
                speeds = range_text([speed / 1e9 for speed in kind.memory])
                row = replace(self.row, what=f"the same, while memory gave {speeds} GB/s")
                measured = {**self.measured, "sides": sides, "bound_in_rounds": [max(kind.memory)]}
                found.append(Reading(row, measured))
        return found

    def verdicts(self) -> list[Verdict]:
        return [verdict for goal in self.row.goals for verdict in self.judge(goal)]

    def judge(self, goal: Goal) -> list[Verdict]:
        if isinstance(goal, AtMost):
            median = self.ours.median if goal.of is None else self.beside(goal.of)
            unit = self.row.unit if goal.of is None else goal.of
            return [Verdict(f"at most {figure(goal.at_most)} {unit}", median <= goal.at_most)]
        found: float | None
        if isinstance(goal, Share):
            found, what = self.share, "% of the limit"
            wanted = [(word, f"{100 * part:.0f}", part) for word, part in bounds(goal)]
        else:
            ratios = [self.ratio(peer) for peer in goal.beside]
            measured = [ratio for ratio in ratios if ratio is not None]
            known = TOO_SELDOM not in map(self.missing.get, goal.beside)  # it may be the fastest
            found = min(measured) if measured and known else None
            what = (
                f" × {goal.beside[0] if len(goal.beside) == 1 else 'the best of ' + ', '.join(goal.beside)}"
            )
            wanted = [(word, f"{part:g}", part) for word, part in bounds(goal)]
        return [
            Verdict(f"{word} {said}{what}", None if found is None else found >= part)
            for word, said, part in wanted
        ]

    def beside(self, name: str) -> float:
        """The median of a figure that ours has beside its own."""
        return statistics.median(self.measured["sides"][self.row.sides[0].name]["beside"][name])


def bounds(goal: Ratio | Share) -> list[tuple[str, float]]:
    named = [("at least", goal.at_least), ("aim", goal.aim)]
    return [(word, part) for word, part in named if part is not None]


def range_text(values: Sequence[float]) -> str:
    ends = {figure(min(values)), figure(max(values))}
    return "–".join(sorted(ends, key=float_of))


def float_of(said: str) -> float:
    return float(said.replace(",", ""))


def figure(value: float) -> str:
    """Three digits, or all in front of the point."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
