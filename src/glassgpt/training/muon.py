"""Muon: steps whose matrices turn every direction by the same amount."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glassgpt.hardware import multiplies_bfloat16

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_N_ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """Muon for the matrices in groups marked `muon`, AdamW for all other groups.

    m ← β m + (1 − β) g;  W ← (1 − lr · decay) W − lr · √max(1, rows / columns) · orthogonal(g + β (m − g))

    where β is the first of `betas`. A gradient's few large singular values drown the many small ones, which
    matter as well; the nearest orthogonal matrix has them all equal (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        for group in self.param_groups:
            if group["muon"]:
                by_shape: dict[tuple[int, ...], list[Tensor]] = {}
                for matrix in group["params"]:
                    by_shape.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
                for matrices in by_shape.values():
                    self._step_together(matrices, group)
        return super().step(closure)

    def _step_together(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """One step of matrices that have one shape when lying on their longer side: a batch of products is
        faster than one after another."""
        lr, beta = group["lr"], group["betas"][0]
        gradients, momenta = [], []
        for matrix in matrices:
            assert matrix.grad is not None, "backward() comes before step()"
            if matrix not in self.state:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
            momentum = self.state[matrix]["momentum"].lerp_(matrix.grad, 1 - beta)
            momenta.append(_lying(momentum))
            gradients.append(_lying(matrix.grad))
            matrix.grad = None  # spent: AdamW passes over what has none
        updates = torch.stack(gradients).lerp_(torch.stack(momenta), beta)
        if updates.dtype == torch.float32 and multiplies_bfloat16(updates.device):
            updates = updates.bfloat16()  # the iteration forgives rounding: near 1 is all that is asked
        for matrix, update in zip(matrices, orthogonalise(updates), strict=True):
            rows, columns = matrix.shape
            matrix.mul_(1 - lr * group["weight_decay"])
            _lying(matrix).add_(update, alpha=-lr * max(1, rows / columns) ** 0.5)


def orthogonalise(matrices: Float[Tensor, "N R C"]) -> Float[Tensor, "N R C"]:
    """Matrices with the same singular vectors and singular values near 1 (between 0.68 and 1.13).

    X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X, five times, from X = G / ‖G‖: an odd polynomial acts on the singular
    values alone, and this one, a Newton–Schulz iteration with tuned coefficients, drives them to 1 fast.
    """
    a, b, c = _NEWTON_SCHULZ
    x = _lying(matrices)  # X Xᵀ is then the smaller of the two squares
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_N_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if _is_tall(matrices) else x


def _lying(matrix: Tensor) -> Tensor:
    """The same memory, seen with the longer side across."""
    return matrix.mT if _is_tall(matrix) else matrix


def _is_tall(matrix: Tensor) -> bool:
    return matrix.shape[-2] > matrix.shape[-1]
