"""How surprised the model was by the token that came: cross-entropy, and two ways to read it.

`cross_entropy` starts from logits, as a chapter does. `linear_cross_entropy` starts one step earlier, from
what the head reads, and never holds all logits at once: they are the largest tensor of a training step,
B · T · V numbers where everything else is B · T · D.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
"""The target of a position that does not count, such as padding."""

_CHUNK_LOGITS = 2**24
"""How many logits `linear_cross_entropy` holds at once, unless told: 333 tokens with GPT-2's vocabulary."""


def cross_entropy(logits: Float[Tensor, "*shape V"], targets: Int[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """The mean of −log p(target) in nats, where p = softmax(logits). Chapter 05.

    −log p(target) = log Σᵥ exp(logitᵥ) − logit(target), in float32 at least. Targets of −100 do not count.
    """
    logits = logits.flatten(0, -2)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED)


def linear_cross_entropy(
    hidden: Float[Tensor, "*shape D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "*shape"],
    chunk_tokens: int | None = None,
) -> Float[Tensor, ""]:
    """`cross_entropy(hidden @ weight.T, targets)`, `chunk_tokens` rows at a time.

    The gradient of the logits is softmax(logits) − onehot(target), known as soon as the logits are: each
    chunk turns its own into gradients of `hidden` and `weight` at once and is forgotten, so that the
    backward pass has nothing left to compute.
    """
    if chunk_tokens is None:
        # Equal chunks: a small rest would read all of `weight` too, and cost as much as a large one.
        n_chunks = max(1, math.ceil(targets.numel() / max(1, _CHUNK_LOGITS // weight.shape[0])))
        chunk_tokens = max(1, math.ceil(targets.numel() / n_chunks))
    device = hidden.device.type
    # autocast does not reach into the function below; gradients keep the types of what they belong to
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    loss: Tensor = _LinearCrossEntropy.apply(
        hidden.flatten(0, -2), weight, targets.flatten(), chunk_tokens, dtype, torch.is_grad_enabled()
    )
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        chunk_tokens: int,
        dtype: torch.dtype,
        training: bool,
    ) -> Tensor:
        wants_hidden, wants_weight = (training and needed for needed in ctx.needs_input_grad[:2])
        exact = torch.promote_types(dtype, torch.float32)
        counted = (targets != IGNORED).to(exact)
        n_counted = counted.sum()
        total = torch.zeros_like(n_counted)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        w = weight.to(dtype)

        for start in range(0, len(hidden), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            h, counts = hidden[rows].to(dtype), counted[rows, None]
            target = targets[rows, None].clamp(min=0)  # an ignored one may point anywhere
            log_probabilities = torch.log_softmax(h @ w.T, dim=-1, dtype=exact)  # (chunk, V)
            total -= (log_probabilities.gather(1, target) * counts).sum()
            if not (wants_hidden or wants_weight):
                continue
            grad = log_probabilities.exp_()  # softmax, in the memory of its logarithm
            grad.scatter_add_(1, target, -torch.ones_like(target, dtype=exact))
            grad = grad.mul_(counts / n_counted).to(dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad @ w
            if grad_weight is not None:
                grad_weight += grad.T @ h
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total / n_counted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        grad_hidden, grad_weight = (
            None if grad is None else grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors
        )
        return grad_hidden, grad_weight, None, None, None, None


def perplexity(loss: float) -> float:
    """exp(loss): among how many equally likely tokens the model was, on average, in doubt. Chapter 05."""
    return math.exp(loss) if loss < 700 else math.inf  # e⁷⁰⁹ is the largest that a float holds


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """loss / ln 2 · tokens / bytes: what comparing models with different vocabularies needs.

    `loss` is in nats a token; `n_bytes` is the UTF-8 length of the text that the tokens stand for.
    """
    return loss / math.log(2) * n_tokens / n_bytes
