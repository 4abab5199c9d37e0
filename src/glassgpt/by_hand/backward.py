"""Backpropagation through a transformer block by hand, in NumPy: no autograd anywhere. Chapter 05.

One rule does it all, step by step from the last to the first. If y = f(x), and `grad` says how the loss
changes with each number of y, then how it changes with each number of x is grad · ∂y/∂x (Rumelhart et al.
1986). Each `…_backward` is that product for one step, with ∂y/∂x never written out. Values that the way back
needs again are computed again.

The block reads one text: x is (T, D). Its weights have the names of `glassgpt.model`'s `Block.state_dict()`.
"""

import math

import numpy as np
from jaxtyping import Float

Matrix = Float[np.ndarray, "_ _"]
Vector = Float[np.ndarray, " _"]
Weights = dict[str, np.ndarray]


def linear_backward(grad: Matrix, x: Matrix, weight: Matrix) -> tuple[Matrix, Matrix, Vector]:
    """y = x Wᵀ + b: the gradients of x, W and b. W and b serve every position, so theirs are sums."""
    return grad @ weight, grad.T @ x, grad.sum(axis=0)


def layer_norm(x: Matrix, weight: Vector, bias: Vector, eps: float) -> Matrix:
    """n · weight + bias, where n is x with mean 0 and variance 1 in each row."""
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - x.mean(axis=-1, keepdims=True)) / deviation * weight + bias


def layer_norm_backward(grad: Matrix, x: Matrix, weight: Vector, eps: float) -> tuple[Matrix, Vector, Vector]:
    """With g = grad · weight: (g − mean(g) − n · mean(g n)) / deviation; and those of weight and bias.

    Shifting or stretching a row of x would change nothing, so a gradient along either is taken out.
    """
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    n = (x - x.mean(axis=-1, keepdims=True)) / deviation
    g = grad * weight
    along_n = (g * n).mean(axis=-1, keepdims=True)
    return (
        (g - g.mean(axis=-1, keepdims=True) - n * along_n) / deviation,
        (grad * n).sum(axis=0),
        grad.sum(axis=0),
    )


def softmax(scores: Matrix) -> Matrix:
    """exp(score) / Σ exp(score) in each row."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_backward(grad: Matrix, p: Matrix) -> Matrix:
    """p · (grad − Σ p grad): only what is better or worse than the average of a row matters."""
    return p * (grad - (p * grad).sum(axis=-1, keepdims=True))


def gelu(x: Matrix) -> Matrix:
    """x · Φ(x), with GPT-2's formula for Φ: ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_backward(grad: Matrix, x: Matrix) -> Matrix:
    """Product and chain rule: Φ(x) + x Φ′(x), with tanh′ = 1 − tanh²."""
    tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return grad * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner)


def attention_weights(q: Matrix, k: Matrix) -> Matrix:
    """softmax(q kᵀ / √Dh) over the keys up to each query."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    future = np.triu(np.ones(scores.shape, dtype=bool), k=1)
    return softmax(np.where(future, -np.inf, scores))


def attention_backward(grad: Matrix, q: Matrix, k: Matrix, v: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """One head, weights @ v: the gradients of q, k and v. A weight of 0 in the future passes nothing back."""
    weights = attention_weights(q, k)
    grad_scores = softmax_backward(grad @ v.T, weights) / math.sqrt(q.shape[1])
    return grad_scores @ k, grad_scores.T @ q, weights.T @ grad


def block(x: Matrix, weights: Weights, n_heads: int, eps: float = 1e-5) -> dict[str, Matrix]:
    """The forward pass: everything that is computed on the way, "out" being the block's output."""
    w = weights
    kept = {"normal": layer_norm(x, w["attention_norm.weight"], w["attention_norm.bias"], eps)}
    kept["qkv"] = kept["normal"] @ w["attention.qkv_proj.weight"].T + w["attention.qkv_proj.bias"]
    heads = np.split(kept["qkv"], 3 * n_heads, axis=1)  # H queries, H keys, H values: (T, Dh) each
    kept["mixed"] = np.hstack(
        [attention_weights(heads[h], heads[n_heads + h]) @ heads[2 * n_heads + h] for h in range(n_heads)]
    )
    kept["middle"] = x + kept["mixed"] @ w["attention.o_proj.weight"].T + w["attention.o_proj.bias"]
    kept["normal_2"] = layer_norm(
        kept["middle"], w["feedforward_norm.weight"], w["feedforward_norm.bias"], eps
    )
    kept["wide"] = kept["normal_2"] @ w["feedforward.up_proj.weight"].T + w["feedforward.up_proj.bias"]
    kept["bent"] = gelu(kept["wide"])
    down = kept["bent"] @ w["feedforward.down_proj.weight"].T + w["feedforward.down_proj.bias"]
    kept["out"] = kept["middle"] + down
    return kept


def block_backward(
    grad: Matrix, x: Matrix, weights: Weights, n_heads: int, eps: float = 1e-5
) -> tuple[Matrix, Weights]:
    """From the gradient of the block's output: that of x, and of each weight by its name."""
    kept = block(x, weights, n_heads, eps)
    grads: Weights = {}

    def through_linear(name: str, grad: Matrix, x: Matrix) -> Matrix:
        back = linear_backward(grad, x, weights[f"{name}.weight"])
        grad_x, grads[f"{name}.weight"], grads[f"{name}.bias"] = back
        return grad_x

    def through_norm(name: str, grad: Matrix, x: Matrix) -> Matrix:
        back = layer_norm_backward(grad, x, weights[f"{name}.weight"], eps)
        grad_x, grads[f"{name}.weight"], grads[f"{name}.bias"] = back
        return grad_x

    # The feed-forward half. A sum passes its gradient on to both terms: that is the residual path.
    grad_bent = through_linear("feedforward.down_proj", grad, kept["bent"])
    grad_wide = gelu_backward(grad_bent, kept["wide"])
    grad_normal_2 = through_linear("feedforward.up_proj", grad_wide, kept["normal_2"])
    grad_middle = grad + through_norm("feedforward_norm", grad_normal_2, kept["middle"])

    # The attention half, in the same way.
    grad_mixed = through_linear("attention.o_proj", grad_middle, kept["mixed"])
    q, k, v = (np.split(part, n_heads, axis=1) for part in np.split(kept["qkv"], 3, axis=1))
    back = map(attention_backward, np.split(grad_mixed, n_heads, axis=1), q, k, v)
    grad_qkv = np.hstack([part for parts in zip(*back, strict=True) for part in parts])
    grad_normal = through_linear("attention.qkv_proj", grad_qkv, kept["normal"])
    return grad_middle + through_norm("attention_norm", grad_normal, x), grads
