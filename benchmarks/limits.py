"""What the machine can do at most: the products of large matrices, and how fast it reads its memory.

A limit is the best of all attempts, not their median: what was reached once can be reached. Reading is tried
in two ways, as no single one is the fastest everywhere: PyTorch's sum, and NumPy's maximum with a thread for
each core.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

from benchmarks.judging import figure
from benchmarks.processes import seconds

FLOAT32, BFLOAT16, READ = "float32 products", "bfloat16 products", "memory read"
MATRIX = "the fastest products"
"""The faster of the two, which is what training may use."""
CUDA_FLOAT32, CUDA_BFLOAT16, CUDA_READ = f"GPU {FLOAT32}", f"GPU {BFLOAT16}", f"GPU {READ}"

LIMITS = {  # in operations or bytes a second; said in 10⁹ of them
    FLOAT32: "GFLOP/s",
    BFLOAT16: "GFLOP/s",
    MATRIX: "GFLOP/s",
    READ: "GB/s",
    CUDA_FLOAT32: "GFLOP/s",
    CUDA_BFLOAT16: "GFLOP/s",
    CUDA_READ: "GB/s",
}


def limit_text(name: str, limits: dict[str, float]) -> str:
    return f"{name} {figure(limits[name] / 1e9)} {LIMITS[name]}"


def measure_limits(quick: bool, device: str) -> dict[str, float]:
    """The limits of this machine's CPU, or of its GPU ("cuda"); in a process of its own."""
    if device == "cuda":
        on_gpu = matrix_limits("cuda", 2048 if quick else 8192) | {READ: cuda_read_limit(28 if quick else 32)}
        return {f"GPU {name}": limit for name, limit in on_gpu.items()}
    found = matrix_limits("cpu", 1024 if quick else 4096) | {READ: read_limit(27 if quick else 30)}
    found[MATRIX] = max(found[FLOAT32], found[BFLOAT16])
    return found


def matrix_limits(device: str, n: int, attempts: int = 6) -> dict[str, float]:
    """2n³ operations a product of two n × n matrices; float32 is float32, without TF32.

    Without instructions for bfloat16 its products take some eighty times as long: they get smaller matrices.
    """
    import torch

    from glassgpt.hardware import multiplies_bfloat16

    n_bfloat16 = n if multiplies_bfloat16(torch.device(device)) else n // 8
    limits = {}
    for name, dtype, width in ((FLOAT32, torch.float32, n), (BFLOAT16, torch.bfloat16, n_bfloat16)):
        a, b = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
        limits[name] = 2 * width**3 / best(partial(torch.matmul, a, b), device, attempts)
    return limits


def read_limit(log2_bytes: int, attempts: int = 6) -> float:
    """Bytes a second from a tensor far larger than any cache."""
    import torch

    tensor = torch.ones(2**log2_bytes // 4)
    n_threads = torch.get_num_threads()
    with ThreadPoolExecutor(n_threads) as threads:
        parts = [part.numpy().view("u1") for part in tensor.chunk(n_threads)]
        ways: list[Callable[[], object]] = [
            tensor.sum,
            lambda: list(threads.map(lambda part: part.max(), parts)),
        ]
        return float(2**log2_bytes / min(best(way, "cpu", attempts) for way in ways))


def memory_now(attempts: int = 3) -> float:
    """Bytes a second that memory gives in this moment, by NumPy, in whatever process; in some 15 ms."""
    n_bytes, read = _reader()
    return n_bytes / best(read, "cpu", attempts)


@cache
def _reader() -> tuple[int, Callable[[], object]]:
    """So many bytes, and what reads them once, with a thread for each core."""
    import numpy as np

    n_threads = os.cpu_count() or 1
    parts = np.array_split(np.ones(2**27, np.uint8), n_threads)
    threads = ThreadPoolExecutor(n_threads)
    return 2**27, lambda: list(threads.map(np.max, parts))


def cuda_read_limit(log2_bytes: int, attempts: int = 6) -> float:
    """Bytes a second from a tensor of that size, or of a quarter of the memory that is free."""
    import torch

    tensor = torch.ones(min(2**log2_bytes, torch.cuda.mem_get_info()[0] // 4) // 4, device="cuda")
    return float(tensor.nbytes / best(tensor.sum, "cuda", attempts))


def best(run: Callable[[], object], device: str, attempts: int) -> float:
    """The seconds of the fastest attempt, the device waited for."""

    def finished() -> None:
        run()
        if device == "cuda":
            import torch

            torch.cuda.synchronize()

    return min(seconds(finished) for _ in range(attempts))
