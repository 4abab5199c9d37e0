"""From logits to the next token, in small steps that each take logits and give logits.

    repetition penalty → temperature → top-k → top-p → min-p → softmax → draw

Each `keep_` removes tokens by setting their logit to −∞, so that the next step, and the softmax, see
what is left as a distribution of its own. Every row of a batch is treated as if it stood alone.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassgpt.generation.config import SamplingConfig


def next_tokens(
    logits: Float[Tensor, "B V"],
    sampling: SamplingConfig,
    seen: Bool[Tensor, "B V"] | None,
    generators: Sequence[torch.Generator],
) -> Int[Tensor, " B"]:
    """One token id for each row, drawn from `next_token_probabilities`; on the CPU or the logits' device."""
    if _is_greedy(sampling, logits):  # where a draw could only point at the largest
        return _places_of_largest(_penalised(logits, sampling, seen))
    return draw(next_token_probabilities(logits, sampling, seen), generators)


def next_token_probabilities(
    logits: Float[Tensor, "B V"],
    sampling: SamplingConfig,
    seen: Bool[Tensor, "B V"] | None = None,
) -> Float[Tensor, "B V"]:
    """The distribution that the next token is drawn from. Chapter 05.

    `seen` marks the tokens that the repetition penalty applies to (`seen_tokens`). At temperature 0 all
    probability is on the largest logit, the first of them if several are equal.
    Raises GenerationError when top_k is above the vocabulary.
    """
    sampling.check_vocabulary(logits.shape[-1])
    logits = _penalised(logits, sampling, seen)
    if _is_greedy(sampling, logits):
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = scale_by_temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.softmax(dim=-1)


def _places_of_largest(logits: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
    if logits.device.type == "cpu":  # NumPy takes a tenth of PyTorch's time
        return torch.from_numpy(logits.detach().numpy().argmax(axis=-1))
    return logits.argmax(dim=-1)


def _is_greedy(sampling: SamplingConfig, logits: Tensor) -> bool:
    return sampling.temperature < torch.finfo(logits.dtype).tiny  # dividing by less would be dividing by zero


def _penalised(logits: Tensor, sampling: SamplingConfig, seen: Tensor | None) -> Tensor:
    if seen is None or sampling.repetition_penalty == 1:
        return logits
    return penalise_repetition(logits, seen, sampling.repetition_penalty)


def penalise_repetition(
    logits: Float[Tensor, "B V"], seen: Bool[Tensor, "B V"], penalty: float
) -> Float[Tensor, "B V"]:
    """Make the tokens in `seen` less probable (Keskar et al. 2019, arXiv:1909.05858 §4.1).

    The paper divides their logits by the penalty. That would raise a negative one, so it is multiplied
    instead, as everybody has done since.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def scale_by_temperature(logits: Float[Tensor, "B V"], temperature: float) -> Float[Tensor, "B V"]:
    """(logits − their maximum) / temperature: the maximum changes no probability, and prevents overflow."""
    return (logits - logits.amax(dim=-1, keepdim=True)) / temperature


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Keep the k largest logits, and any that equal the k-th (Fan et al. 2018, arXiv:1805.04833 §5)."""
    smallest_kept = logits.topk(k, dim=-1).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < smallest_kept, -torch.inf)


def keep_top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep the fewest tokens whose probabilities sum to p or more (arXiv:1904.09751 §3.1).

    A token stays when those before it, the likelier ones, sum to less than p; so the first always does, even
    where p is below the smallest float32. Equal ones count in order of their ids.
    """
    if p == 1:
        return logits  # a sum of many rounded numbers may reach 1 before the last of them
    probabilities = logits.softmax(dim=-1)
    if probabilities.device.type == "cuda":
        return logits.masked_fill(~_likeliest_in_parallel(probabilities, p), -torch.inf)
    # Tokens below (1 − p) / V sum to less than 1 − p, so those before them reach p: there is no need to sort
    # them. A language model leaves some hundreds.
    candidates = probabilities >= (1 - p) / probabilities.shape[-1]
    kept = torch.zeros_like(candidates)
    for row in range(len(probabilities)):
        token_ids = candidates[row].nonzero()[:, 0]
        descending, order = probabilities[row, token_ids].sort(descending=True, stable=True)
        mass_before = F.pad(descending.cumsum(dim=0)[:-1], (1, 0))
        kept[row, token_ids[order[_is_below(mass_before, p)]]] = True
    return logits.masked_fill(~kept, -torch.inf)


def _likeliest_in_parallel(probabilities: Float[Tensor, "B V"], p: float) -> Bool[Tensor, "B V"]:
    """The tokens that `keep_top_p` keeps, for a GPU: it sorts all sooner than it says how many matter."""
    descending, order = probabilities.sort(dim=-1, descending=True, stable=True)
    mass_before = F.pad(descending.cumsum(dim=-1)[:, :-1], (1, 0))
    return torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order, _is_below(mass_before, p))


def _is_below(mass: Tensor, p: float) -> Tensor:
    return mass < max(p, torch.finfo(mass.dtype).tiny)


def keep_min_p(logits: Float[Tensor, "B V"], min_p: float) -> Float[Tensor, "B V"]:
    """Keep tokens at least min_p times as probable as the likeliest (arXiv:2407.01082 §3)."""
    probabilities = logits.softmax(dim=-1)
    removed = probabilities < min_p * probabilities.amax(dim=-1, keepdim=True)
    return logits.masked_fill(removed, -torch.inf)


def seen_tokens(
    rows: Sequence[Sequence[int]], vocab_size: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "B V"]:
    """True where a row has the token."""
    seen = torch.zeros(len(rows), vocab_size, dtype=torch.bool, device="cpu")
    for row, token_ids in zip(seen, rows, strict=True):
        row[list(token_ids)] = True
    return seen.to(device)


def row_generators(seed: int | None, n_rows: int) -> list[torch.Generator]:
    """One source of random numbers for each row: row i is seeded with `seed` + i.

    So a row's text does not depend on the rest of its batch, and equals that of its prompt alone with
    seed + i; and one prompt repeated gives different texts. The generators live on the CPU: a seed draws
    the same numbers whatever the model runs on, and PyTorch's global ones are left alone.
    """
    generators = [torch.Generator() for _ in range(n_rows)]
    for row, generator in enumerate(generators):
        if seed is None:
            generator.seed()  # from the operating system
        else:
            generator.manual_seed(seed + row)
    return generators


def draw(probabilities: Float[Tensor, "B V"], generators: Sequence[torch.Generator]) -> Int[Tensor, " B"]:
    """One token id for each row, each with its probability; those of a CUDA GPU stay there.

    Inverse transform sampling: lay the probabilities end to end, let one uniform number point at a place.
    """
    uniform = torch.cat(
        [torch.rand(1, generator=generator, dtype=torch.double, device="cpu") for generator in generators]
    )
    if probabilities.device.type == "cuda":
        return _places_in_parallel(probabilities, uniform.to(probabilities.device, non_blocking=True))
    # A CPU sums in order and in float64, so that a probability of 0 has no place a number could point at.
    token_ids = torch.empty(len(probabilities), dtype=torch.long, device="cpu")
    for row, values in enumerate(probabilities.cpu()):
        ends = values.double().cumsum(dim=0)  # (V,); of one row at a time, which fits a processor's cache
        place = uniform[row, None] * ends[-1]
        token_ids[row] = torch.searchsorted(ends, place, right=True)[0]
    return token_ids


def _places_in_parallel(
    probabilities: Float[Tensor, "B V"], uniform: Float[Tensor, " B"]
) -> Int[Tensor, " B"]:
    """The tokens that `uniform` points at, for a GPU, which sums in no order.

    Whole numbers add up to the same in any, so a probability of 0 has no place; one below 2⁻⁵¹ loses its own.
    What is drawn from nan is some token: ids are read before anybody has seen that they come from no numbers.
    """
    ends = (probabilities.double() * 2**50).round().long().cumsum(dim=-1)  # (B, V)
    total = ends[:, -1]
    place = torch.minimum((uniform * total).long(), total - 1)  # the product may round up
    return torch.searchsorted(ends, place[:, None], right=True)[:, 0].clamp(max=probabilities.shape[-1] - 1)
