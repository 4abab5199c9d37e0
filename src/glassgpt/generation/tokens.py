"""Token ids in, new token ids out, each as soon as it is drawn."""

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glassgpt.errors import GenerationError, raise_problems
from glassgpt.generation.config import SamplingConfig
from glassgpt.generation.sampling import next_tokens, row_generators, seen_tokens
from glassgpt.generation.window import CachedWindowReader, WindowReader
from glassgpt.model.gpt import GPT


@overload
def generate(
    model: GPT,
    token_ids: Sequence[int],
    sampling: SamplingConfig | None = None,
    *,
    stop_token_ids: Collection[int] = (),
    vocab_size: int | None = None,
) -> Iterator[int]: ...
@overload
def generate(
    model: GPT,
    token_ids: Sequence[Sequence[int]] | Sequence[Tensor],
    sampling: SamplingConfig | None = None,
    *,
    stop_token_ids: Collection[int] = (),
    vocab_size: int | None = None,
) -> Iterator[list[int | None]]: ...
@overload
def generate(
    model: GPT,
    token_ids: Tensor,
    sampling: SamplingConfig | None = None,
    *,
    stop_token_ids: Collection[int] = (),
    vocab_size: int | None = None,
) -> Iterator[Any]: ...
def generate(
    model: GPT,
    token_ids: Sequence[int] | Sequence[Sequence[int]] | Sequence[Tensor] | Tensor,
    sampling: SamplingConfig | None = None,
    *,
    stop_token_ids: Collection[int] = (),
    vocab_size: int | None = None,
) -> Iterator[int] | Iterator[list[int | None]] | Iterator[Any]:
    """Continue `token_ids`, yielding each new token id as it is drawn. Chapter 05.

    One prompt yields ints. A batch of prompts, of any lengths, yields for each step a list with one entry
    a row, None once that row has ended; every row is what its prompt alone gives (with seed + i for row i).
    A row ends before the first of `stop_token_ids`, or after `max_new_tokens`. Only ids below `vocab_size`
    are drawn: the tokenizer's size, where the model's vocabulary was padded beyond it.

    Text longer than the context goes on in a window that drops its older half when full (`window.py`).
    The model runs where it is and as it is, without dropout or gradients; between two tokens it is as the
    caller left it. Rounding in float32 or less can decide between two logits that are all but equal, so
    that "equal" above and with `use_cache=False` holds for every token only when nothing is so close.

    Raises GenerationError at the call for a prompt that does not fit, later for logits that are no numbers.
    """
    sampling = sampling or SamplingConfig()
    prompts, is_batch = _as_prompts(token_ids)
    vocab_size = model.config.vocab_size if vocab_size is None else vocab_size
    names = [f"Prompt {i}" for i in range(len(prompts))] if is_batch else ["The prompt"]
    _check(dict(zip(names, prompts, strict=True)), model, sampling, stop_token_ids, vocab_size)
    prompts = [prompt[-model.config.context_length :] for prompt in prompts]
    steps = _steps(model, prompts, sampling, frozenset(stop_token_ids), vocab_size)
    return steps if is_batch else (step[0] for step in steps)


def _steps(
    model: GPT,
    prompts: list[list[int]],
    sampling: SamplingConfig,
    stop_token_ids: frozenset[int],
    vocab_size: int,
) -> Iterator[list[int | None]]:
    modules = list(model.modules())
    with _computing(modules):
        reader = (
            CachedWindowReader(model, prompts, sampling.max_new_tokens)
            if sampling.use_cache
            else WindowReader(model, prompts)
        )
        seen = None
        if sampling.repetition_penalty != 1:
            seen = seen_tokens(prompts, vocab_size, reader.device)
    generators = row_generators(sampling.seed, len(prompts))
    ended = [False] * len(prompts)
    for n_generated in range(sampling.max_new_tokens):
        with _computing(modules):
            logits = _checked(reader.next_logits(), n_generated)[:, :vocab_size]
            drawn = next_tokens(logits, sampling, seen, generators)
            if seen is not None:
                seen.scatter_(-1, drawn[:, None].to(seen.device), True)
        token_ids = drawn.tolist()
        ended = [was or token_id in stop_token_ids for was, token_id in zip(ended, token_ids, strict=True)]
        if all(ended):
            return
        # A row that has ended is computed along with the others, and not shown.
        yield [None if has else token_id for has, token_id in zip(ended, token_ids, strict=True)]
        reader.append(token_ids)


@contextlib.contextmanager
def _computing(modules: list[nn.Module]) -> Iterator[None]:
    """No dropout and no gradients inside; afterwards every module is in the mode it was in.

    Entered anew for each token: a generator that is waiting, or never finished, must hold on to nothing.
    """
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def _checked(logits: Float[Tensor, "B V"], n_generated: int) -> Float[Tensor, "B V"]:
    """`logits` in float32 or wider, or GenerationError where nothing sensible can be drawn from them."""
    # A sum costs little, and is no number if anything in it is none; very large ones have to be counted.
    if not math.isfinite(logits.sum().item()) and (n_bad := int((~logits.isfinite()).sum())):
        raise GenerationError(
            f"{n_bad:,} of {logits.numel():,} logits of new token {n_generated + 1:,} are nan or infinite. "
            f"The weights are damaged, or too large for {logits.dtype}: load another checkpoint, or "
            f"use float32."
        )
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _as_prompts(token_ids: Any) -> tuple[list[list[int]], bool]:
    """The prompts as lists, and whether they came as a batch."""
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in token_ids]  # tensors, NumPy
    if all(isinstance(row, int) for row in rows):  # an empty list is one prompt without tokens
        return [rows], False
    return [list(row) for row in rows], True


def _check(
    prompts: dict[str, list[int]],
    model: GPT,
    sampling: SamplingConfig,
    stop_token_ids: Collection[int],
    vocab_size: int,
) -> None:
    if not 1 <= vocab_size <= model.config.vocab_size:
        raise GenerationError(
            f"vocab_size={vocab_size:,} must be 1 to {model.config.vocab_size:,}, the model's own."
        )
    sampling.check_vocabulary(vocab_size)
    context_length = model.config.context_length
    outside = f"is outside vocab_size={vocab_size} (valid: 0–{vocab_size - 1}). Was another tokenizer used?"
    problems = [
        f"Stop token id {token_id} {outside}" for token_id in stop_token_ids if not 0 <= token_id < vocab_size
    ]
    if not prompts:
        problems.append("There are no prompts: the batch is empty. Pass at least one.")
    for name, prompt in prompts.items():
        if not prompt:
            problems.append(
                f"{name} has no tokens, and a model continues at least one. To start from nothing, pass "
                f"the id that stands between documents (tokenizer.end_of_text_id)."
            )
        if len(prompt) > context_length and sampling.truncate is None:
            problems.append(
                f"{name} has {len(prompt):,} tokens; this model's context_length is {context_length:,}. "
                f'Shorten it, or pass truncate="left".'
            )
        strangers = {token_id for token_id in prompt if not 0 <= token_id < vocab_size}
        where = "Token" if len(prompts) == 1 else f"{name}: token"
        problems += [f"{where} id {token_id} {outside}" for token_id in sorted(strangers)[:3]]
    raise_problems(GenerationError, problems, "What is to be continued")
