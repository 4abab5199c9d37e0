"""Whose numbers these are: the processor, the system, the packages."""

import os
import platform
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SETTINGS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "KMP_AFFINITY"),
    *("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA"),
)
"""Variables of the environment by which libraries are told what to use."""


def describe_machine() -> dict[str, Any]:
    """What `key` and the table say of this machine; runs in a process of its own, as it imports PyTorch."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "cpu": cpu_model(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory_bytes() / 1e9),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "system": system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "settings": {name: value for name, value in sorted(os.environ.items()) if name in SETTINGS},
        "bfloat16": bfloat16_instructions(),
    }


def key(machine: Mapping[str, Any]) -> str:
    """What two runs must have in common to stand in one table.

    The instructions, too: a virtual machine may have fewer than its processor.
    """
    parts = [machine["cpu"], machine.get("instructions"), f"{machine['cores']} cores", machine["gpu"]]
    return ", ".join(part for part in parts if part)


def versions(packages: set[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for package in sorted(packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # the row says so of each side
    return found


def cpu_model() -> str:
    """The processor's name, and its generation where the name says as little as that of a virtual machine."""
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.MULTILINE))
        if "model name" in fields:
            numbers = [fields[name] for name in ("cpu family", "model") if name in fields]
            return f"{fields['model name']} ({'/'.join(numbers)})" if numbers else fields["model name"]
    return platform.processor() or platform.machine()


def system() -> str:
    """The operating system as its makers call it."""
    if sys.platform == "linux" and hasattr(platform, "freedesktop_os_release"):
        try:
            return platform.freedesktop_os_release()["PRETTY_NAME"]
        except OSError:
            return platform.system()  # the file that says so is not there
    return f"{platform.system()} {platform.release()}"


def memory_bytes() -> int:
    """The machine's memory; 0 where the system does not tell."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def instructions() -> str | None:
    """The longest that PyTorch finds and has kernels for, such as AVX2; None where it knows no such kinds."""
    import torch

    found = torch.backends.cpu.get_cpu_capability()
    return None if found == "DEFAULT" else found


def bfloat16_instructions() -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    import torch

    from glassgpt.hardware import multiplies_bfloat16

    return multiplies_bfloat16(torch.device("cpu"))
