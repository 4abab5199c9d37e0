"""RESULTS.md, drawn from results.json: one table a machine, and below it how each row came about."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.judging import Reading, Spread, range_text
from benchmarks.limits import LIMITS, MATRIX
from benchmarks.machine import key
from benchmarks.rows import Row

HEAD = ["work", "ours", "beside", "ratio", "wanted", "of the machine's limit"]
TITLE = """# Results

Written by `make bench`, or `python -m benchmarks ROW…` for some rows; never edit it. Each figure is the
median of all rounds, with the lowest and the highest in brackets. Everybody takes turns (A B A B), each
time in a new process. A ratio above 1 means that ours is faster; it stands only where the outputs agree.
Where memory was slow in some moments and fast in others, a row is told again for each kind. What was tried to
reach more is in [docs/log.md](../docs/log.md).
"""


def render(results: Mapping[str, Any], rows: Sequence[Row], pictures: Mapping[str, str]) -> str:
    """The whole document; `pictures` are the file names of each machine's."""
    parts = [TITLE]
    for name, found in results["machines"].items():
        readings = [Reading(row, found["rows"][row.name]) for row in rows if row.name in found["rows"]]
        if readings:
            parts += [
                f"\n## {name}\n\n{machine_text(found['machine'], readings)}\n",
                f"\n![ours beside its peers on {name}]({pictures[name]})\n",
                "\n" + "\n".join(table_lines(readings)) + "\n",
                not_measured(found, rows),
                "\n### How each row was measured, and how the outputs were compared\n\n",
                "\n".join(notes(reading) for reading in readings) + "\n",
            ]
    return "".join(parts)


def not_measured(found: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The rows that this machine has no figures for, named, so that none is missing in silence."""
    absent = [
        f"`{row.name}`"
        + (" (needs a CUDA GPU)" if row.device == "cuda" and not found["machine"]["gpu"] else "")
        for row in rows
        if row.name not in found["rows"]
    ]
    return f"\nNot measured on this machine: {', '.join(absent)}.\n" if absent else ""


def machine_text(machine: Mapping[str, Any], readings: Sequence[Reading]) -> str:
    """Processor, threads, limits and the versions of everything measured."""
    versions: dict[str, set[str]] = {}
    for reading in readings:
        for package, version in reading.measured["versions"].items():
            versions.setdefault(package, set()).add(version)
    packages = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items()))
    settings = ", ".join(f"{name}={value}" for name, value in machine["settings"].items())
    numbers = "multiplies bfloat16 itself" if machine["bfloat16"] else "has no products in bfloat16"
    lines = [
        f"- {key(machine)}; {machine['memory_gb']} GB of memory, {machine['system']}; it {numbers}",
        f"- {machine['threads']} threads for PyTorch and as many for every peer"
        + (f"; {settings}" if settings else ", as they come: no variable is set"),
        f"- Python {machine['python']}, torch {machine['torch']}" + (f", {packages}" if packages else ""),
        f"- limits, the best that was reached, from row to row: {limits_text(readings)}",
    ]
    return "\n".join(lines)


def limits_text(readings: Sequence[Reading]) -> str:
    """The lowest to the highest that rows were measured beside."""
    said = []
    for name, unit in LIMITS.items():
        if name == MATRIX:
            continue  # one of the others
        found = [reading.measured["limits"].get(name) for reading in readings]
        values = [value / 1e9 for value in found if value is not None]
        if values:
            said.append(f"{name} {range_text(values)} {unit}")
    return ", ".join(said)


def table_lines(readings: Sequence[Reading]) -> list[str]:
    lines = [line(HEAD), line(["---", "---:", "---:", "---:", "---", "---:"])]
    for reading in readings:
        for shown in (reading, *reading.moments):
            lines += [line(cells) for cells in row_cells(shown)]
    return lines


def row_cells(reading: Reading) -> list[list[str]]:
    """A line for each peer; the first also says what ours did."""
    row = reading.row
    verdicts = "<br>".join(f"{verdict.wanted}: {said(verdict.reached)}" for verdict in reading.verdicts())
    note = reading.measured["sides"][row.sides[0].name]["note"]
    first = [
        f"{row.what} `{row.name}`",
        f"**{reading.ours} {row.unit}**" + (f", {note}" if note else ""),
        verdicts,
        share_cell(reading),
    ]
    peers = [peer_cells(reading, side.name) for side in row.sides[1:]] or [["", ""]]
    return [
        [first[0], first[1], *peer, first[2], first[3]] if place == 0 else ["", "", *peer, "", ""]
        for place, peer in enumerate(peers)
    ]


def share_cell(reading: Reading) -> str:
    if reading.row.bound is None or reading.share is None:
        return ""
    limit = reading.row.bound.limit
    if len(reading.moments) == 2:
        return f"{100 * reading.share:.0f}% of {limit} where it was least"
    values = [value / 1e9 for value in reading.bound_in_rounds]
    return f"{100 * reading.share:.0f}% of {limit} {range_text(values)} {LIMITS[limit]}"


def peer_cells(reading: Reading, peer: str) -> list[str]:
    if peer in reading.missing:
        return [f"{peer}: {reading.missing[peer]}", ""]
    if peer not in reading.spreads:  # it joined the row after this measurement
        return [f"{peer}: not measured yet", ""]
    ratio = reading.ratio(peer)
    shown = "" if ratio is None else f"{ratio:.2f} ×"
    return [
        f"{peer}: {reading.spreads[peer]}",
        shown if reading.counts else "the outputs differ: does not count",
    ]


def said(reached: bool | None) -> str:
    return {True: "reached", False: "**missed**", None: "not measured"}[reached]


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def notes(reading: Reading) -> str:
    """How a row was measured, what stands beside its figures, and how it was checked."""
    row = reading.row
    beside = []
    for name, side in reading.measured["sides"].items():
        figures = [f"{label} {Spread.of(values)}" for label, values in side.get("beside", {}).items()]
        if figures:
            beside.append(f"{name}: {', '.join(figures)}")
    counted = f" Counted for the limit: {row.bound.what}." if row.bound else ""
    agree = "Agree" if reading.counts else "**Do not agree**"
    also = f" Also measured: {'; '.join(beside)}." if beside else ""
    return f"- `{row.name}`: {row.how}{counted} {agree}: {reading.measured['check']['how']}{also}"
