"""The machine, and its limits: measured with matrices that fit what it can do."""

import pytest
import torch

from benchmarks.limits import BFLOAT16, FLOAT32, matrix_limits
from benchmarks.machine import describe_machine, key


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_matrices_in_bfloat16_are_small_where_their_products_would_take_minutes(has_bfloat16, monkeypatch):
    shapes: dict[torch.dtype, set[tuple[int, ...]]] = {}
    multiply = torch.matmul

    def matmul(a, b):
        shapes.setdefault(a.dtype, set()).update((a.shape, b.shape))
        return multiply(a, b)

    monkeypatch.setattr(torch, "matmul", matmul)
    monkeypatch.setattr("glassgpt.hardware.multiplies_bfloat16", lambda device: has_bfloat16)
    limits = matrix_limits("cpu", 64)

    width = 64 if has_bfloat16 else 8
    assert shapes == {torch.float32: {(64, 64)}, torch.bfloat16: {(width, width)}}
    assert limits[FLOAT32] > 0
    assert limits[BFLOAT16] > 0


@pytest.mark.parametrize(
    ("capability", "words"), [("AVX2", "Processor 7, AVX2, "), ("DEFAULT", "Processor 7, ")]
)
def test_a_machine_is_told_by_the_instructions_that_pytorch_finds(capability, words, monkeypatch):
    monkeypatch.setattr("benchmarks.machine.cpu_model", lambda: "Processor 7")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    machine = describe_machine()

    assert key(machine).startswith(f"{words}{machine['cores']} cores")


def test_a_library_that_is_told_what_to_use_is_said_so(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert describe_machine()["settings"]["ATEN_CPU_CAPABILITY"] == "avx2"
