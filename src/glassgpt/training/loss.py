"""How surprised the model was by the token that came: cross-entropy, and two ways to read it.

`cross_entropy` starts from logits, as a chapter does. `linear_cross_entropy` starts one step earlier, from
what the head reads, and holds only so many logits at once: all of them would be the largest tensor of a
training step, B · T · V numbers where everything else is B · T · D.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glassgpt.errors import ConfigError

IGNORED = -100
"""The target of a position that does not count, such as padding."""

_CHUNK_LOGITS = {"cpu": 2**25, "cuda": 2**27}
"""How many logits `linear_cross_entropy` holds at once, unless told: on a CPU 667 tokens with GPT-2's
vocabulary. Each chunk reads all of `weight` and adds to all of its gradient: a few large ones are cheaper."""

_CACHED_NUMBERS = 2**21
"""How many float32 numbers a CPU takes up at a time, so that they stay in its cache: 8 MB."""

_MULTIPLE = {"cuda": 64}
"""What the logits' width is padded to a multiple of: a GPU's tensor cores want one, and 50,257 is none."""


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
    backward pass has nothing left to compute. It can be differentiated once: `backward(create_graph=True)`
    raises. Raises ConfigError where the shapes do not fit.
    """
    device = hidden.device.type
    if hidden.shape[:-1] != targets.shape:
        raise ConfigError(
            f"hidden has the shape {tuple(hidden.shape)}: its targets need {tuple(hidden.shape[:-1])} "
            f"and have {tuple(targets.shape)}."
        )
    if chunk_tokens is None:
        # Equal chunks: a small rest would read all of `weight` too, and cost as much as a large one.
        most_tokens = max(1, _CHUNK_LOGITS.get(device, 2**25) // len(weight))
        n_chunks = max(1, math.ceil(targets.numel() / most_tokens))
        chunk_tokens = max(1, math.ceil(targets.numel() / n_chunks))
    if chunk_tokens < 1:
        raise ConfigError(f"chunk_tokens={chunk_tokens} must be at least 1, or None.")
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
        total = torch.zeros((), dtype=exact, device=hidden.device)
        share = 1 / counted.sum().reshape(1)  # of each target that counts in the mean
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.empty_like(weight) if wants_weight else None
        V, D = weight.shape
        w = weight.to(dtype)
        n_padding = -V % _MULTIPLE.get(hidden.device.type, 1)
        if n_padding:
            w = F.pad(w, (0, 0, 0, n_padding))

        for start in range(0, max(1, len(hidden)), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            h, counts = hidden[rows].to(dtype), counted[rows, None]
            target = targets[rows, None]
            target = target.masked_fill(target == IGNORED, 0)  # some token; what it gives is multiplied by 0
            logits = h @ w.T  # (chunk, V)
            if n_padding:
                logits[:, V:] = -math.inf  # tokens that do not exist have no probability
            for part in _parts(logits, V):
                log_probabilities = torch.log_softmax(logits[part], dim=-1, dtype=exact)
                total -= (log_probabilities.gather(1, target[part]) * counts[part]).sum()
                if wants_hidden or wants_weight:
                    # Narrow again, where nobody needs the logits any more.
                    logits[part] = _gradient(log_probabilities, target[part])
            if grad_hidden is not None:
                grad_hidden[rows] = (logits @ w) * (counts * share)
            if grad_weight is not None:
                h = h * counts.to(dtype)
                for part in _parts(grad_weight, D):
                    product = logits[:, part].T @ h
                    if start == 0:  # the sum of the others need not begin with zeros
                        torch.mul(product, share, out=grad_weight[part])
                    else:
                        grad_weight[part] += product * share
        ctx.save_for_backward(grad_hidden, grad_weight)
        return (total * share).squeeze()

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph=True
            raise RuntimeError(
                "linear_cross_entropy can be differentiated only once. Use cross_entropy(hidden @ weight.T, "
                "targets) for a derivative of its gradient."
            )
        grads: Iterable[Tensor | None] = ctx.saved_tensors
        if not _is_seen_to_be_one(grad_loss):
            grads = (None if grad is None else grad * grad_loss.to(grad.dtype) for grad in grads)
        grad_hidden, grad_weight = grads
        return grad_hidden, grad_weight, None, None, None, None


def _gradient(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """softmax − onehot(target)."""
    if torch.compiler.is_compiling():  # one kernel with what comes before and behind; adding to some is none
        onehot = torch.arange(log_probabilities.shape[1], device=target.device) == target
        return log_probabilities.exp() - onehot.to(log_probabilities.dtype)
    grad = log_probabilities.exp_()  # in the memory of its logarithm
    return grad.scatter_add_(1, target, -torch.ones_like(target, dtype=grad.dtype))


def _is_seen_to_be_one(number: Tensor) -> bool:
    """A CPU has it at hand, and need not multiply a whole gradient by 1; a GPU would be waited for."""
    return number.device.type == "cpu" and not torch.compiler.is_compiling() and number.item() == 1


def _parts(matrix: Tensor, n_columns: int) -> Iterator[slice]:
    """All rows of `matrix`: on a CPU, as many at a time as stay in its cache between operations."""
    n_rows = len(matrix)
    step = max(1, _CACHED_NUMBERS // n_columns) if matrix.device.type == "cpu" else max(1, n_rows)
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def perplexity(loss: float) -> float:
    """exp(loss): among how many equally likely tokens the model was, on average, in doubt. Chapter 05."""
    return math.exp(loss) if loss < 700 else math.inf  # e⁷⁰⁹ is the largest that a float holds


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """loss / ln 2 · tokens / bytes: what comparing models with different vocabularies needs.

    `loss` is in nats a token; `n_bytes` is the UTF-8 length of the text that the tokens stand for.
    """
    return loss / math.log(2) * n_tokens / n_bytes
