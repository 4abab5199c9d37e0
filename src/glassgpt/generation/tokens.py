"""Token ids in, new token ids out, each as soon as it is drawn."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, overload

from torch import Tensor

from glassgpt.checks import is_int
from glassgpt.errors import GenerationError, raise_problems
from glassgpt.generation.config import SamplingConfig
from glassgpt.generation.drawing import Drawer
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
    caller left it, though a CUDA GPU is by then computing the next one, on the stream of that call. Whoever
    changes weights there turns `speculate` off, as tokens that were guessed right have been read already. A
    change that is no new `_version` (a fused optimizer's, or through `.data`) counts at once only in training
    mode, as there may be a packed copy of the weights (`decoding/packed.py`).
    Rounding in float32 or less can decide between two logits that are all but equal, so that "equal" above
    and with `use_cache=False` holds for every token only when nothing is so close.

    Several threads may generate with the same model, as long as none trains it.

    Raises GenerationError at the call for what is no prompt or does not fit, later for logits that are no
    numbers.
    """
    sampling = sampling or SamplingConfig()
    prompts, is_batch = _as_prompts(token_ids)
    stop_token_ids = _as_ids(_listed(stop_token_ids, "stop_token_ids"), "stop_token_ids")
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
    drawer = Drawer(model, prompts, sampling, vocab_size)
    ended = [False] * len(prompts)
    for n_before in range(sampling.max_new_tokens):
        token_ids = drawer.draw(more=n_before + 1 < sampling.max_new_tokens)
        ended = [was or token_id in stop_token_ids for was, token_id in zip(ended, token_ids, strict=True)]
        if all(ended):
            return
        # A row that has ended is computed along with the others, and not shown.
        yield [None if has else token_id for has, token_id in zip(ended, token_ids, strict=True)]
        drawer.append(token_ids)


def _as_prompts(token_ids: Any) -> tuple[list[list[int]], bool]:
    """The prompts as lists, and whether they came as a batch. Raises GenerationError for anything else."""
    rows = _listed(token_ids, "token_ids")
    if not any(map(_is_listable, rows)):  # an empty list is one prompt without tokens
        return [_as_ids(rows, "the prompt")], False
    return [_as_ids(_listed(row, f"Prompt {i}"), f"prompt {i}") for i, row in enumerate(rows)], True


def _is_listable(values: object) -> bool:
    return isinstance(values, Iterable) and not isinstance(values, str)


def _listed(values: Any, name: str) -> list[Any]:
    """A list of Python's own numbers, of a tensor or an array too."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if not _is_listable(values):
        raise GenerationError(
            f"{name} is {values!r}; needed are whole numbers, or a list of them for each prompt, as in "
            f"[3, 5] or [[3, 5], [7]]. A tokenizer makes them of text."
        )
    return [value.tolist() if hasattr(value, "tolist") else value for value in values]


def _as_ids(values: list[Any], name: str) -> list[int]:
    for value in values:
        if not is_int(value):
            raise GenerationError(
                f"{value!r} in {name} is no token id. Ids are whole numbers; a tokenizer makes them of text."
            )
    return values


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
                f'Shorten it, or choose truncate="left" (--truncate left), which reads its end only.'
            )
        strangers = {token_id for token_id in prompt if not 0 <= token_id < vocab_size}
        where = "Token" if len(prompts) == 1 else f"{name}: token"
        problems += [f"{where} id {token_id} {outside}" for token_id in sorted(strangers)[:3]]
    raise_problems(GenerationError, problems, "What is to be continued")
