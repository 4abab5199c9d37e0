"""A row measured: everybody in turn, each time in a new process, then their outputs compared."""

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from benchmarks.judging import figure
from benchmarks.limits import limit_text, measure_limits
from benchmarks.machine import versions
from benchmarks.moments import were_too_seldom
from benchmarks.processes import alone
from benchmarks.rows import OURS, Check, Row, Setting, Side, Taken

Say = Callable[[str], None]
MOST_TIMES_AS_MANY = 3
"""Rounds, where one kind of moments is seldom."""


def measure_row(row: Row, setting: Setting, limits: dict[str, float], say: Say) -> dict[str, Any]:
    """What results.json keeps of a row. The rounds go A B A B, so that a slow minute hits everybody.

    Where the machine's limit counts, it is measured in each round, too: it differs from minute to minute.
    Where memory was fast in some moments and slow in others, there are more rounds, until everybody is known
    in both. A peer that fails is recorded with its reason, and the others go on; when ours fails, so does the
    run.
    """
    if row.prepare is not None:
        say(f"{row.name}: preparing …")
        alone(row.prepare, setting)
    taken: dict[str, list[Taken]] = {side.name: [] for side in row.sides}
    missing = {side.name: side.missing for side in row.sides if side.missing}
    n_rounds = 1 if setting.quick else row.rounds
    reached, number = [], 0

    def records() -> dict[str, Any]:
        return {side.name: side_record(taken[side.name], missing.get(side.name)) for side in row.sides}

    most = n_rounds if setting.quick else MOST_TIMES_AS_MANY * n_rounds
    while number < n_rounds or (number < most and were_too_seldom(records())):
        number += 1
        if row.bound is not None:
            reached.append(alone(measure_limits, setting.quick, row.device))
            say(f"{row.name}: round {number}, {limit_text(row.bound.limit, reached[-1])}")
        for side in row.sides:
            if side.name not in missing:
                try:
                    taken[side.name].append(alone(side.measure, setting))
                except (Exception, BrokenProcessPool) as fault:
                    if side is row.sides[0]:
                        raise
                    missing[side.name] = f"failed: {type(fault).__name__}: {first_line(fault)}"
            said = missing.get(side.name) or f"{figure(taken[side.name][-1].values[-1])} {row.unit}"
            say(f"{row.name}: round {number}, {side.name}: {said}")
    outputs = {name: rounds[0].output for name, rounds in taken.items() if rounds and name not in missing}
    check: Check = alone(row.check, setting, outputs)
    say(f"{row.name}: {'agree' if check.agrees else 'DISAGREE'}: {check.how}")
    return {
        "sides": records(),
        "check": {"agrees": check.agrees, "how": check.how},
        "limits": {name: max(found[name] for found in reached) for name in reached[0]} if reached else limits,
        "bound_in_rounds": [found[row.bound.limit] for found in reached] if row.bound else [],
        "versions": versions({name for side in row.sides for name in packages(side)}),
    }


def side_record(rounds: list[Taken], missing: str | None) -> dict[str, Any]:
    if missing:
        return {"missing": missing}
    names = rounds[0].beside
    memory = [pair for taken in rounds for pair in taken.memory]
    return {
        "values": [value for taken in rounds for value in taken.values],
        "beside": {name: [taken.beside[name] for taken in rounds] for name in names},
        "note": rounds[0].note,
        **({"memory": memory} if memory else {}),
    }


def packages(side: Side) -> list[str]:
    """What pip calls the packages that this side measures."""
    return [] if side.package is None else (side.install or side.package).split()


def first_line(fault: BaseException) -> str:
    return str(fault).partition("\n")[0][:200]


def why_not(row: Row, has_gpu: bool) -> str | None:
    """Why a row cannot be measured here at all; None when it can."""
    if row.device == "cuda" and not has_gpu:
        return "needs a CUDA GPU, and PyTorch finds none here"
    assert row.sides[0].name.startswith(OURS), f"the first side of {row.name} is not ours"
    return row.unable()
