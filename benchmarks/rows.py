"""What a row of the table is: one piece of work, who does it, what was wanted, and how it is checked."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OURS = "ours"


@dataclass(frozen=True)
class Setting:
    """What every function of a row is told."""

    folder: Path
    """Files for this run: what one measurement has prepared, the next one finds."""
    quick: bool = False
    """Only a trial: as little work as shows that everything runs."""


@dataclass(frozen=True)
class Taken:
    """What one process has measured."""

    values: list[float]
    """In the row's unit; each is a measurement of its own."""
    output: Any = None
    """What the check compares: plain Python values, as they travel between processes."""
    beside: dict[str, float] = field(default_factory=dict)
    """Other figures worth telling, by name and unit: {"peak GB": 2.1}."""
    note: str = ""
    """How it was done, where that was decided on the spot: "bfloat16"."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Bytes a second that memory gave just before and just after each of the values, where that was asked."""


@dataclass(frozen=True)
class Side:
    """One of those who do the work. `measure` runs in a new process for each round, so it can be pickled."""

    name: str
    measure: Callable[[Setting], Taken]
    package: str | None = None
    """What `measure` imports; a row says so when it is not installed."""
    install: str | None = None
    """What pip calls it, where that is not `package`."""

    @property
    def missing(self) -> str | None:
        """Why this side cannot be measured, and what to do; None when it can."""
        if self.package is None or importlib.util.find_spec(self.package) is not None:
            return None
        return f"not installed: pip install {self.install or self.package}"


@dataclass(frozen=True)
class Check:
    """Whether all sides gave the same, and how that was found out."""

    agrees: bool
    how: str


@dataclass(frozen=True)
class Bound:
    """What the machine's limit is for a row: ours needs `amount` of `limit` for each unit of its work."""

    limit: str
    """A name in `benchmarks.limits.LIMITS`."""
    amount: float
    """Operations or bytes."""
    what: str
    """What was counted, in words."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Wanted: ours so many times as fast as the fastest of `beside`."""

    beside: tuple[str, ...]
    at_least: float | None = None
    aim: float | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """Wanted: ours at so much of the machine's limit."""

    at_least: float | None = None
    aim: float | None = None


@dataclass(frozen=True, kw_only=True)
class AtMost:
    """Wanted: no more than this of the row's own unit, or of a figure beside it."""

    at_most: float
    of: str | None = None


Goal = Ratio | Share | AtMost


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. The first of `sides` is ours."""

    name: str
    what: str
    unit: str
    """What is counted: of "tokens/s" more is better, of "s" less."""
    how: str
    """What is timed, with which settings: whoever doubts the figure reads this."""
    sides: tuple[Side, ...]
    check: Callable[[Setting, Mapping[str, Any]], Check]
    """From each side's `output` in its first round; runs in a process of its own."""
    goals: tuple[Goal, ...] = ()
    bound: Bound | None = None
    prepare: Callable[[Setting], None] | None = None
    """Writes what the sides read, before they are timed, in a process of its own."""
    rounds: int = 3
    device: str = "cpu"
    """"cpu" or "cuda": where its rows are measured unless others are asked for."""
    in_default_set: bool = True
    unable: Callable[[], str | None] = lambda: None
    """Why ours cannot be measured here, and what to do; None when it can."""

    @property
    def is_speed(self) -> bool:
        """Whether somebody can be so many times as fast; perplexity, say, is stated beside the others'."""
        return self.unit == "s" or self.more_is_better

    @property
    def more_is_better(self) -> bool:
        return self.unit.endswith("/s")
