"""Where the arithmetic happens, in which numbers, and whether kernels are compiled for it."""

import contextlib
import ctypes
import sys
from dataclasses import dataclass

import torch

from glassgpt.errors import ConfigError
from glassgpt.training.config import TrainConfig

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # as in glibc's malloc.h


@dataclass(frozen=True)
class Execution:
    """`device`, `precision` and `compile` of a configuration, with every "auto" resolved."""

    device: torch.device
    dtype: torch.dtype
    compiled: bool

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Inside, large matrix products run in `dtype`; weights, sums and the optimizer stay float32.

        Mixed precision (arXiv:1710.03740); bfloat16 keeps float32's range, so no loss scaling is needed.
        """
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def describe(self) -> str:
        """What was chosen, in a few words for people."""
        name = {
            "cuda": lambda: torch.cuda.get_device_name(self.device),
            "cpu": lambda: f"{torch.get_num_threads()} threads",
        }.get(self.device.type, lambda: "")()
        kernels = "compiled kernels" if self.compiled else "kernels as they come"
        number = str(self.dtype).removeprefix("torch.")
        return f"{self.device}{f' ({name})' if name else ''}, {number}, {kernels}"


def choose_execution(config: TrainConfig) -> Execution:
    """What this machine does best, where the configuration leaves it open.

    Raises ConfigError when it asks for a device that is not there.
    """
    device = choose_device(config.device)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(config.precision)
    if dtype is None:
        dtype = torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
    return Execution(device, dtype, compiled)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions of its own for it; emulated, it would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.12 and later
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def keep_freed_memory() -> None:
    """Let the C library of Linux keep what PyTorch frees instead of giving it back to the system.

    A training step allocates the same large tensors again and again; each time, the system would clear
    their pages anew, which takes a quarter of a CPU step. Holds for the rest of the process.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc; musl has none
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, else Apple's GPU, else the CPU.

    Raises ConfigError when there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device that computes, and gives back what it computed
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        reason = str(fault).partition(". ")[0].partition("\n")[0].rstrip(".")
        raise ConfigError(f"device={name!r} cannot be used here: {reason}. Use auto or cpu.") from fault
    return device
