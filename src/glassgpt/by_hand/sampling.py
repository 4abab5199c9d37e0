"""Sampling and generation in loops over plain numbers. Chapter 05.

The twin of `glassgpt.generation`: one row, one token, one rule at a time.
"""

import math
from collections.abc import Callable
from typing import Any

from glassgpt.by_hand.loss import softmax


def next_token_probabilities(
    logits: list[float],
    *,
    previous: list[int] | None = None,
    repetition_penalty: float = 1.0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> list[float]:
    """The distribution that the next token is drawn from, one setting after the other."""
    logits = list(logits)
    for token_id in set(previous or []):
        if logits[token_id] > 0:
            logits[token_id] /= repetition_penalty
        else:
            logits[token_id] *= repetition_penalty

    if temperature == 0:
        return [float(token_id == logits.index(max(logits))) for token_id in range(len(logits))]
    logits = [logit / temperature for logit in logits]

    if top_k is not None:
        kth_largest = sorted(logits, reverse=True)[top_k - 1]
        logits = [logit if logit >= kth_largest else -math.inf for logit in logits]

    if top_p is not None:
        probabilities = softmax(logits)
        kept, mass = set(), 0.0
        for token_id in sorted(range(len(logits)), key=lambda token_id: -probabilities[token_id]):
            if mass < top_p:
                kept.add(token_id)
            mass += probabilities[token_id]
        logits = [logit if token_id in kept else -math.inf for token_id, logit in enumerate(logits)]

    if min_p is not None:
        probabilities = softmax(logits)
        least = min_p * max(probabilities)
        logits = [logit if p >= least else -math.inf for logit, p in zip(logits, probabilities, strict=True)]

    return softmax(logits)


def draw(probabilities: list[float], uniform: float) -> int:
    """Lay the probabilities end to end; return the token on whose stretch `uniform`, in [0, 1), falls."""
    end = 0.0
    for token_id, probability in enumerate(probabilities):
        end += probability
        if uniform < end:
            return token_id
    return max(token_id for token_id, probability in enumerate(probabilities) if probability > 0)


def generate(
    next_logits: Callable[[list[int]], list[float]],
    prompt: list[int],
    uniforms: list[float],
    context_length: int,
    **settings: Any,
) -> list[int]:
    """One new token for each number in `uniforms`; the whole window is read again for every one of them.

    `next_logits` is the model: it reads a window and scores every token that could follow. A full window
    loses its older half before the next token is read.
    """
    window = list(prompt)
    new: list[int] = []
    for uniform in uniforms:
        probabilities = next_token_probabilities(next_logits(window), previous=prompt + new, **settings)
        new.append(draw(probabilities, uniform))
        if len(window) == context_length:
            window = window[context_length - context_length // 2 :]
        window.append(new[-1])
    return new
