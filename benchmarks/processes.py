"""A process for each measurement, and what it has taken of the machine."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns in a process of its own: no warm caches, no memory of what ran before it.

    The caller should not have imported PyTorch: on Linux a child's peak memory starts from its parent's.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(function, *arguments).result()


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def peak_gigabytes() -> float:
    """The most memory that this process has held so far, in 10⁹ bytes; NaN where nobody counts it."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
