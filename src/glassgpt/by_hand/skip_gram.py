"""The loss of the skip-gram with negative sampling by hand: one pair after another. Chapter 02."""

import math
from collections.abc import Sequence

Vector = list[float]


def sigmoid(x: float) -> float:
    """A score as a probability: 1 / (1 + e⁻ˣ)."""
    return 1 / (1 + math.exp(-x))


def dot(a: Vector, b: Vector) -> float:
    """How far two vectors point the same way: Σ aᵢ bᵢ."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def loss(word: Vector, context: Vector, noise: Sequence[Vector]) -> float:
    """−log σ(word · context) − Σ log(1 − σ(word · noise)): the pair is from the text, the noise is drawn."""
    surprise = -math.log(sigmoid(dot(word, context)))
    for other in noise:
        surprise -= math.log(sigmoid(-dot(word, other)))  # 1 − σ(x) = σ(−x), without rounding to 0
    return surprise


def gradients(word: Vector, context: Vector, noise: Sequence[Vector]) -> tuple[Vector, Vector, list[Vector]]:
    """d loss / d word, d loss / d context, and d loss / d each of the noise.

    The derivative by a score is σ(score) − label, with label 1 for the pair and 0 for noise: how wrong the
    guess was. A score is a dot product, so its derivative by one vector is the other.
    """
    wrong = [sigmoid(dot(word, context)) - 1] + [sigmoid(dot(word, other)) for other in noise]
    others = [context, *noise]
    for_word = [sum(w * other[i] for w, other in zip(wrong, others, strict=True)) for i in range(len(word))]
    for_others = [[w * x for x in word] for w in wrong]
    return for_word, for_others[0], for_others[1:]


def step(
    words: list[Vector], contexts: list[Vector], word: int, context: int, noise: list[int], lr: float
) -> None:
    """Go a step of stochastic gradient descent for one pair, in place; words are named by their rows."""
    for_word, for_context, for_noise = gradients(words[word], contexts[context], [contexts[k] for k in noise])
    moves = [(words, word, for_word), (contexts, context, for_context)]
    moves += [(contexts, k, gradient) for k, gradient in zip(noise, for_noise, strict=True)]
    for matrix, row, gradient in moves:
        matrix[row] = [x - lr * g for x, g in zip(matrix[row], gradient, strict=True)]
