"""What the machine under PyTorch can do."""

import platform

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions of its own for it; emulated, it would be slower than float32."""
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return False
        with torch.cuda.device(device):  # PyTorch asks the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.12 and later
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def is_x86() -> bool:
    """Whether the processor is of Intel's and AMD's kind: there our C++ was compared with PyTorch's."""
    return platform.machine() in ("x86_64", "AMD64")
