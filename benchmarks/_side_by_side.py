"""What the benchmarks share: a fresh process for each measurement, and a table that says what was reached."""

import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns in a process of its own: no warm caches, no memory of what ran before it.

    The caller should not have imported PyTorch: on Linux a child's peak memory starts from its parent's.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(function, *arguments).result()


def peak_gigabytes() -> float:
    """The most memory that this process has held so far, in 10⁹ bytes; NaN where nobody counts it."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def print_machine() -> None:
    """Whose numbers these are."""
    cores = f"{os.cpu_count()} cores"
    print(f"{platform.machine()}, {cores}, {platform.system()}, Python {platform.python_version()}")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with the first column to the left and numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    for row in (head, ["─" * width for width in widths], *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())


def verdict(claim: str, reached: bool) -> bool:
    """Print whether `claim` holds, and pass on the answer."""
    print(f"{'reached' if reached else 'MISSED '}  {claim}")
    return reached
