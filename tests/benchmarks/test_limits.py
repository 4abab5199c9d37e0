"""The machine's limits: measured with matrices that fit what it can do."""

import pytest
import torch

from benchmarks.limits import BFLOAT16, FLOAT32, matrix_limits


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
