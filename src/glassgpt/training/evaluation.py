"""How good the model is on text it never trained on, and what much simpler ideas reach on the same text."""

import gzip

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from glassgpt.model.gpt import GPT
from glassgpt.model.modes import evaluating
from glassgpt.training.loss import linear_cross_entropy
from glassgpt.training.precision import Execution


@torch.no_grad()
def evaluate(
    model: GPT,
    windows: tuple[Int[Tensor, "W T"], Int[Tensor, "W T"]],
    micro_batch_size: int,
    execution: Execution,
) -> float:
    """The mean loss over `windows` of (token_ids, targets), in nats a token, with dropout off. Chapter 05."""
    losses, sizes = [], []
    with evaluating(model):
        for token_ids, targets in zip(*(part.split(micro_batch_size) for part in windows), strict=True):
            with execution.autocast():
                hidden = model.hidden(token_ids.to(execution.device))
                loss = linear_cross_entropy(hidden, model.head.weight, targets.to(execution.device))
            losses.append(loss)
            sizes.append(targets.numel())
    # Only now a GPU is waited for.
    total = sum(loss * size for loss, size in zip(torch.stack(losses).tolist(), sizes, strict=True))
    return float(total / sum(sizes))


def gzip_bits_per_byte(text: bytes) -> float:
    """What gzip, at its best level, needs for a byte of `text`."""
    return 8 * len(gzip.compress(text, compresslevel=9, mtime=0)) / len(text)


def unigram_bits_per_byte(
    train_tokens: np.ndarray, val_tokens: np.ndarray, vocab_size: int, val_bytes: int
) -> float:
    """What guessing each token from its frequency alone needs for a byte of the held-out text.

    p(token) = (count + 1) / (tokens + V), counted on the training text: a token never seen there still
    has a chance (Laplace's rule of succession).
    """
    counts = np.bincount(train_tokens, minlength=vocab_size) + 1
    surprise = np.log2(counts.sum()) - np.log2(counts)  # bits a token, (V,)
    return float(surprise[val_tokens].sum()) / val_bytes
