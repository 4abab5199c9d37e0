"""Where the arithmetic happens, in which numbers, and whether kernels are compiled for it."""

import contextlib
from dataclasses import dataclass

import torch

from glassgpt.errors import ConfigError
from glassgpt.training.config import TrainConfig


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
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = torch.bfloat16 if fast else torch.float32
    compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
    return Execution(device, dtype, compiled)


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
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        reason = str(fault).partition(". ")[0].partition("\n")[0].rstrip(".")
        raise ConfigError(f"device={name!r} cannot be used here: {reason}. Use auto or cpu.") from fault
    return device
