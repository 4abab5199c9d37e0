"""Measure rows, keep them in results.json, and draw RESULTS.md and its pictures from it."""

import argparse
import difflib
import fnmatch
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.catalogue import ROWS
from benchmarks.judging import Reading
from benchmarks.limits import limit_text, measure_limits
from benchmarks.machine import describe_machine, key
from benchmarks.picture import draw
from benchmarks.processes import alone
from benchmarks.results import add_row, read_results, write_results
from benchmarks.rows import Row, Setting
from benchmarks.running import measure_row, why_not
from benchmarks.table import render, table_lines
from glassgpt.errors import GlassGPTError
from glassgpt.storage import write_atomically

HERE = Path(__file__).parent

EXAMPLES = """\
examples:
  python -m benchmarks                           the default set: the CPU's rows, or the GPU's if there is one
  python -m benchmarks decode-float32 train-10m  these two; the others stay in RESULTS.md as they are
  python -m benchmarks 'decode-*'                all that begin so
  python -m benchmarks --quick 'decode-*'        does it run? One small round; nothing is kept
  python -m benchmarks --list                    every row, its peers, and which of them are missing
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 where outputs disagree or something failed, 2 for a row that does not exist."""
    options = read_options(argv)
    unknown = [name for name in options.rows if not chosen([name])]
    if unknown:
        print("\n".join(map(no_such_row, unknown)), file=sys.stderr)
        return 2
    try:
        if options.list:
            print("\n".join(map(described, chosen(options.rows) or ROWS)))
            return 0
        if options.draw:
            draw_results(read_results(options.out / "results.json"), options.out)
            return 0
        return measure(options)
    except GlassGPTError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted; the rows that were finished are kept.", file=sys.stderr)
        return 130


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Ours, its peers and the machine's limits, measured in one run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names, or patterns in quotes; see --list")
    parser.add_argument("--list", action="store_true", help="say which rows there are, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="one small round of each row; keep nothing")
    parser.add_argument("--draw", action="store_true", help="only draw RESULTS.md anew from results.json")
    parser.add_argument("--rounds", type=int, help="how often everybody is measured (default: the row's own)")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="where results.json and RESULTS.md lie (default: benchmarks/)"
    )
    options = parser.parse_args(argv)
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds {options.rounds} must be at least 1")
    return options


def chosen(names: Sequence[str]) -> list[Row]:
    """The rows whose names fit one of `names`."""
    return [row for row in ROWS if any(fnmatch.fnmatchcase(row.name, name) for name in names)]


def no_such_row(name: str) -> str:
    near = difflib.get_close_matches(name, [row.name for row in ROWS], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"benchmarks: there is no row {name!r}.{hint} All rows: python -m benchmarks --list"


def described(row: Row) -> str:
    """Name, work and peers of a row."""
    peers = [f"{side.name}{' (not installed)' if side.missing else ''}" for side in row.sides[1:]]
    asked = "" if row.in_default_set else " Only when asked for."
    where = " Needs a CUDA GPU." if row.device == "cuda" else ""
    beside = f", beside {', '.join(peers)}" if peers else ""
    return f"{row.name:<25}{row.what}{beside}.{where}{asked}"


def measure(options: argparse.Namespace) -> int:
    """Measure the rows asked for, one after another; what is measured is on disk before the next begins."""
    results = read_results(options.out / "results.json")
    machine: dict[str, Any] = alone(describe_machine)
    device = "cuda" if machine["gpu"] else "cpu"
    rows = chosen(options.rows) or [row for row in ROWS if row.in_default_set and row.device == device]
    say(f"{key(machine)}; {len(rows)} rows")
    limits: dict[str, float] = {}
    for device in sorted({row.device for row in rows if why_not(row, bool(machine["gpu"])) is None}):
        limits |= alone(measure_limits, options.quick, device)
    for name in limits:
        say(f"limit: {limit_text(name, limits)}")
    started, failed, readings = time.perf_counter(), [], []
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), options.quick)
        for row in rows:
            reason = why_not(row, bool(machine["gpu"]))
            if reason:
                say(f"{row.name}: {reason}")
                continue
            try:
                measured = measure_row(
                    replace(row, rounds=options.rounds or row.rounds), setting, limits, say
                )
            except Exception:  # the others can still be measured; what this row had in RESULTS.md stays
                traceback.print_exc()
                failed.append(row.name)
                continue
            readings.append(Reading(row, measured))
            if not measured["check"]["agrees"]:
                failed.append(row.name)
            if not options.quick:
                results = add_row(results, machine, row.name, measured)
                write_results(results, options.out / "results.json")
                draw_results(results, options.out)
    print("\n".join(["", *table_lines(readings), ""]))
    say(f"{len(readings)} rows in {(time.perf_counter() - started) / 60:.1f} minutes")
    if options.quick:
        say("--quick: a trial, of which nothing is kept; its figures mean nothing")
    if failed:
        say(f"failed, or outputs disagree: {', '.join(failed)}")
    return 1 if failed else 0


def draw_results(results: dict[str, Any], folder: Path) -> None:
    """Write RESULTS.md, and a picture for each machine."""
    pictures = {}
    for name, found in results["machines"].items():
        readings = [Reading(row, found["rows"][row.name]) for row in ROWS if row.name in found["rows"]]
        if readings:
            pictures[name] = f"results-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.svg"
            write_atomically(folder / pictures[name], draw(readings), GlassGPTError)
    write_atomically(folder / "RESULTS.md", render(results, ROWS, pictures), GlassGPTError)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
