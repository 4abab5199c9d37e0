"""Which build of PyTorch: pip's own choice, unless that is CUDA and there is nothing to run it.

On Linux the common package index serves a build that brings gigabytes of CUDA along; PyTorch's own index
has one for the CPU, a tenth of it. Part of tools/bootstrap.py, and bound to its rule.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from venv_pip import VENV, SetupError, command_works, gigabytes, pinned, pip, say

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def install_torch(choice: str) -> None:
    """Install the pinned PyTorch: what pip offers, unless that is CUDA and CUDA is not wanted."""
    wanted, report = pinned("torch"), VENV / "glassgpt-torch.json"
    # fast-deps reads what a package requires from within its file, rather than download all of CUDA to ask.
    pip("install", "--dry-run", "--use-feature", "fast-deps", "--report", str(report), wanted)
    offered = json.loads(report.read_text(encoding="utf-8"))["install"]
    if not any(package["metadata"]["name"] == "torch" for package in offered):
        return  # it is there already
    from_cpu_index, why = torch_source(offered, choice, has_nvidia_gpu())
    say(why)
    if not from_cpu_index:
        pip("install", wanted)
        return
    try:
        pip("install", "--no-deps", "--index-url", CPU_INDEX, wanted)
    except SetupError as error:
        raise SetupError(
            f"{error}\nWhere {CPU_INDEX} cannot be reached for good, TORCH=cuda takes what pip offers."
        ) from error


def torch_source(offered: list[dict[str, Any]], choice: str, has_gpu: bool) -> tuple[bool, str]:
    """Whether to take PyTorch from its CPU index rather than as pip offers it, and why in words.

    `offered` is the "install" list of pip's report. Raises SetupError when `choice` is cuda and pip
    offers no such build.
    """
    versions = {package["metadata"]["name"]: package["metadata"]["version"] for package in offered}
    name = f"PyTorch {versions['torch']}"
    with_cuda = any(is_cuda(package) for package in versions) or "+cu" in versions["torch"]
    if choice == "cuda" and not with_cuda:
        raise SetupError(
            f"pip offers {name} for this machine without CUDA, but TORCH=cuda was asked for.\n"
            "Take what it offers (TORCH=auto), or give pip an index that has a CUDA build (PIP_INDEX_URL)."
        )
    if choice == "cuda" or (choice == "auto" and has_gpu and with_cuda):
        return False, f"installing {name} with CUDA: several gigabytes (TORCH=cpu: a tenth of it) …"
    if with_cuda:
        because = "there is no NVIDIA GPU here" if choice == "auto" else "TORCH=cpu was asked for"
        return True, f"installing PyTorch for the CPU from {CPU_INDEX}: {because} …"
    aside = ", so the NVIDIA GPU will be idle" if choice == "auto" and has_gpu else ""
    return False, f"installing {name}, a build without CUDA{aside} …"


def is_cuda(package: str) -> bool:
    """Whether a package of this name is a part of CUDA."""
    return package.lower().replace("_", "-").startswith(("nvidia-", "cuda-"))


def has_nvidia_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU is running here."""
    return Path("/proc/driver/nvidia/version").exists() or (
        shutil.which("nvidia-smi") is not None and command_works("nvidia-smi", "--list-gpus")
    )


def verify_torch(choice: str, sizes: dict[str, int]) -> None:
    """Raise SetupError if CUDA came in unwanted; say how much it takes where it is wanted."""
    cuda = sorted(name for name in sizes if is_cuda(name))
    if cuda and (choice == "cpu" or (choice == "auto" and not has_nvidia_gpu())):
        raise SetupError(
            f".venv holds CUDA, which is not wanted here: {', '.join(cuda)}.\n"
            "Begin anew with `make clean setup`, or keep CUDA with `make setup TORCH=cuda`."
        )
    if cuda:
        say(f"PyTorch with CUDA takes {gigabytes(sizes['torch'] + sum(sizes[name] for name in cuda))}.")
