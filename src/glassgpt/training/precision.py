"""Where the arithmetic happens, in which numbers, and whether kernels are compiled for it."""

import contextlib
import os
import shutil
import sysconfig
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch

from glassgpt.errors import ConfigError
from glassgpt.hardware import multiplies_bfloat16
from glassgpt.model.costs import estimate
from glassgpt.training.config import TrainConfig
from glassgpt.training.processor import fit_threads, keep_freed_memory

_COMPILING_PAYS_FROM = 1e17
"""FLOPs of a run behind which compiling should have earned back its minute: some six minutes of an H100."""

_OLDEST_FOR_TRITON = (7, 0)

_FAULTS = (RuntimeError, AssertionError, NotImplementedError)
"""What PyTorch raises for a device that is not there or cannot compute."""

_AS_ASKED = "as asked"
_AS_ASKED_AND_SLOW = "as asked; float32 is far faster, as it has no instructions for bfloat16"


@dataclass(frozen=True)
class Execution:
    """`device`, `precision` and `compile` of a configuration, with every "auto" resolved."""

    device: torch.device
    dtype: torch.dtype
    compiled: bool
    why_dtype: str = _AS_ASKED
    why_compiled: str = _AS_ASKED

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Inside, large matrix products run in `dtype`; weights, sums and the optimizer stay float32.

        Mixed precision (arXiv:1710.03740); bfloat16 keeps float32's range, so no loss scaling is needed.
        """
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def prepare(self) -> None:
        """Set this process up for training on the device, for as long as it lives."""
        if self.device.type == "cpu":
            keep_freed_memory()
            fit_threads()

    def describe(self) -> str:
        """What was chosen and why, in a few words for people."""
        name = {
            "cuda": lambda: torch.cuda.get_device_name(self.device),
            "cpu": lambda: f"{torch.get_num_threads()} threads",
        }.get(self.device.type, lambda: "")()
        kernels = "compiled kernels" if self.compiled else "kernels as they come"
        number = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.device}{f' ({name})' if name else ''}, {number} ({self.why_dtype}), "
            f"{kernels} ({self.why_compiled})"
        )


def choose_execution(config: TrainConfig) -> Execution:
    """What this machine does best, where the configuration leaves it open.

    Raises ConfigError when it asks for a device that is not there, or for compiling without a compiler.
    """
    device = choose_device(config.device)
    dtype, why_dtype = _choose_dtype(config, device)
    compiled, why_compiled = _choose_compiling(config, device)
    return Execution(device, dtype, compiled, why_dtype, why_compiled)


def _choose_dtype(config: TrainConfig, device: torch.device) -> tuple[torch.dtype, str]:
    if config.precision == "float32":
        return torch.float32, _AS_ASKED
    if config.precision == "bfloat16":
        is_emulated = device.type in ("cpu", "cuda") and not multiplies_bfloat16(device)
        return torch.bfloat16, _AS_ASKED_AND_SLOW if is_emulated else _AS_ASKED
    if multiplies_bfloat16(device):
        return torch.bfloat16, "it has instructions for that"
    return torch.float32, "it has no instructions for bfloat16"


def _choose_compiling(config: TrainConfig, device: torch.device) -> tuple[bool, str]:
    missing = _missing_for_compiling(device)
    if config.compile == "on" and missing:
        raise ConfigError(f"compile=on needs {missing}, which is not here. Install it, or use compile=off.")
    if config.compile != "auto":
        return config.compile == "on", _AS_ASKED
    if device.type == "cpu":
        return False, "compiling takes half a minute and gains 5% at most"
    if device.type != "cuda":
        return False, "compiling is for CUDA"
    if missing:
        return False, f"compiling needs {missing}, which is not here"
    if _flops(config) < _COMPILING_PAYS_FROM:
        return False, "compiling takes a minute, more than this run would gain"
    return True, "a minute, which this run earns back"


def _missing_for_compiling(device: torch.device) -> str | None:
    if not _is_here(os.environ.get("CXX"), "g++", "clang++", "cl"):
        return "a C++ compiler such as g++"
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "Triton"
        if torch.cuda.is_available() and torch.cuda.get_device_capability(device) < _OLDEST_FOR_TRITON:
            return "a GPU of compute capability 7.0 or above"
        # Triton compiles the C code that launches its kernels: at the first of them, in the middle of a step.
        named = os.environ.get("CC")  # where it is set, Triton takes no other
        if not _is_here(*([named] if named else ["gcc", "clang", "cl"])):
            return f"the C compiler CC={named}" if named else "a C compiler such as gcc"
        if not _python_header().is_file():
            return "Python.h (Debian: apt-get install python3-dev)"
    return None


def _is_here(*commands: str | None) -> bool:
    """Whether one of them can be run."""
    return any(command and shutil.which(command) for command in commands)


def _python_header() -> Path:
    """Where Triton looks for what an extension of Python includes."""
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme  # Debian's own, for what pip installs
    return Path(sysconfig.get_path("include", scheme), "Python.h")


def _flops(config: TrainConfig) -> float:
    """What a run computes, from its configuration alone: going on with it, one chooses as at its start."""
    model = replace(config.model, vocab_size=config.model.vocab_size or config.tokenizer_vocab_size)
    tokens = config.steps * config.n_micro_batches * config.micro_batch_size * model.context_length
    return float(estimate(model).training_flops_per_token * tokens)


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, else Apple's GPU, else the CPU.

    Raises ConfigError when there is no such device here. A GPU that "auto" finds but that cannot be used, as
    this PyTorch is not built for one so old, is a warning.
    """
    if name == "auto":
        for kind, module in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
            if module.is_available():
                try:
                    return _computing(kind)
                except _FAULTS as fault:
                    warnings.warn(
                        f"There is a GPU that cannot be used: {_in_short(fault)}. The CPU computes. Another "
                        f"build of PyTorch may know this GPU (pytorch.org); device=cpu asks for no GPU.",
                        stacklevel=2,
                    )
        return torch.device("cpu")
    try:
        return _computing(name)
    except _FAULTS as fault:
        raise ConfigError(
            f"device={name!r} cannot be used here: {_in_short(fault)}. Use auto or cpu."
        ) from fault


def _computing(name: str) -> torch.device:
    """The device, which has computed something and given it back."""
    device = torch.device(name)
    torch.zeros(1, device=device).item()
    return device


def _in_short(fault: Exception) -> str:
    return str(fault).partition(". ")[0].partition("\n")[0].rstrip(".")
