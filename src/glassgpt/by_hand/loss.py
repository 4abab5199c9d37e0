"""Cross-entropy by hand: one position after another, one logit after another. Chapter 05."""

import math
from collections.abc import Sequence


def softmax(logits: Sequence[float]) -> list[float]:
    """exp(logit) / Σ exp(logit). The largest logit is taken off first, which changes nothing but keeps
    exp from overflowing."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    """The mean over the positions of −log p(target), in nats."""
    surprises = []
    for scores, target in zip(logits, targets, strict=True):
        probabilities = softmax(scores)
        surprises.append(-math.log(probabilities[target]))
    return sum(surprises) / len(surprises)


def cross_entropy_gradient(logits: Sequence[Sequence[float]], targets: Sequence[int]) -> list[list[float]]:
    """d cross_entropy / d logits: at each position (softmax − onehot(target)) / number of positions."""
    gradient = []
    for scores, target in zip(logits, targets, strict=True):
        row = softmax(scores)
        row[target] -= 1
        gradient.append([value / len(targets) for value in row])
    return gradient


def perplexity(loss: float) -> float:
    """e to the loss: a model that is as unsure as between k equally likely tokens has perplexity k."""
    return math.e**loss


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """The loss of all tokens, in bits instead of nats, shared out over the bytes they stand for."""
    total_bits = loss * n_tokens / math.log(2)
    return total_bits / n_bytes
