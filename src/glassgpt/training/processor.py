"""How this process uses a CPU: the memory that it keeps, and how many threads compute."""

import ctypes
import os
import sys
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # as in glibc's malloc.h
_CGROUPS = Path("/sys/fs/cgroup")


def keep_freed_memory() -> None:
    """Let the C library of Linux keep what PyTorch frees instead of giving it back to the system.

    A training step allocates the same large tensors again and again, and so do the layers that read a long
    prompt; each time, the system would clear their pages anew, which takes a quarter of a CPU step. Holds for
    the rest of the process.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc; musl has none
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never


def fit_threads() -> None:
    """Compute with no more threads than this process may keep busy.

    PyTorch starts one for each core that it sees, which is right unless a container's quota grants less
    time than that: all threads then wait for the one that is not let run. OMP_NUM_THREADS has the last word.
    """
    quota = cpu_quota(_CGROUPS)
    if quota is not None and "OMP_NUM_THREADS" not in os.environ and quota < torch.get_num_threads():
        torch.set_num_threads(max(1, int(quota)))


def cpu_quota(cgroups: Path) -> float | None:
    """How many cores' time the control group mounted at `cgroups` grants; None where it sets no limit."""
    try:
        if (cgroups / "cpu.max").exists():  # version 2: "150000 100000", or "max 100000"
            quota, period = (cgroups / "cpu.max").read_text().split()
        else:
            quota, period = (
                (cgroups / "cpu" / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # no such file here; "max" is no number
        return None
