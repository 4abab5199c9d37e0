"""Training by hand: one weight matrix after another, every formula written out. Chapter 06.

The twin of `glassgpt.training` with AdamW, warm-up and a cosine: what its optimizer, schedule, clipping and
accumulation come to, without a class, a fused kernel or anything that is remembered out of sight.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from glassgpt.model.gpt import GPT

Batch = tuple[Tensor, Tensor]


def adamw_step(
    weight: Tensor,
    gradient: Tensor,
    averages: tuple[Tensor, Tensor],
    step: int,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The weight and the two averages after step number `step`, the first being 1.

    m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  w ← (1 − lr · decay) w − lr · m̂ / (√v̂ + ε), where the
    hats undo that both averages began at 0 (arXiv:1412.6980 §2, arXiv:1711.05101 algorithm 2).
    """
    mean = betas[0] * averages[0] + (1 - betas[0]) * gradient
    square = betas[1] * averages[1] + (1 - betas[1]) * gradient**2
    mean_now = mean / (1 - betas[0] ** step)
    square_now = square / (1 - betas[1] ** step)
    moved = (1 - lr * weight_decay) * weight - lr * mean_now / (square_now.sqrt() + eps)
    return moved, (mean, square)


def cosine_share(step: int, steps: int, warmup_steps: int, lowest: float) -> float:
    """The share of the highest learning rate: up in a straight line, then down half a cosine to `lowest`."""
    if step <= warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2


def clip(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """All gradients shortened by one factor, so that together they are at most `limit` long."""
    length = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
    factor = limit / max(length, limit)
    return [gradient * factor for gradient in gradients]


def mean_gradients(model: GPT, parts: Sequence[Batch]) -> list[Tensor]:
    """The gradient of the mean loss over `parts`, micro-batches of one size, parameter by parameter."""
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for token_ids, targets in parts:
        loss = F.cross_entropy(model(token_ids).flatten(0, 1), targets.flatten())
        gradients = torch.autograd.grad(loss, parameters)
        total = [sum_ + gradient for sum_, gradient in zip(total, gradients, strict=True)]
    return [sum_ / len(parts) for sum_ in total]


def train(
    model: GPT,
    batch: Callable[[int], Batch],
    *,
    steps: int,
    n_micro_batches: int,
    warmup_steps: int,
    lowest: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    grad_clip: float,
) -> None:
    """Train `model` in place. `batch(n)` is micro-batch n, counted over the whole run."""
    averages = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in model.parameters()]
    for step in range(1, steps + 1):
        first = (step - 1) * n_micro_batches
        parts = [batch(first + n) for n in range(n_micro_batches)]
        gradients = clip(mean_gradients(model, parts), grad_clip)
        for place, weight in enumerate(model.parameters()):
            moved, averages[place] = adamw_step(
                weight.detach(),
                gradients[place],
                averages[place],
                step,
                lr=lr * cosine_share(step, steps, warmup_steps, lowest),
                betas=betas,
                eps=eps,
                weight_decay=weight_decay if weight.dim() > 1 else 0.0,  # biases and norms do not decay
            )
            weight.data.copy_(moved)
