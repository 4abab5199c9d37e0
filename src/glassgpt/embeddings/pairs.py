"""A text as pairs of a word and a neighbour, and noise beside them: what the skip-gram is trained on.

Which words stay, how far each looks, what the noise is: Mikolov et al. 2013, arXiv:1310.4546 §2, and
where the paper and its program differ, the program.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassgpt.errors import DataError

URN_SLOTS = 1 << 20


def count_words(sentences: Iterable[Sequence[str]], min_count: int) -> dict[str, int]:
    """How often each word comes that comes `min_count` times or more; the most frequent first.

    Raises DataError when fewer than two words do.
    """
    counts = Counter(word for sentence in sentences for word in sentence)
    kept = {word: count for word, count in counts.most_common() if count >= min_count}
    if len(kept) < 2:
        raise DataError(
            f"Of {len(counts):,} different words {len(kept)} come min_count={min_count} times or more, and "
            "vectors are learnt from neighbours. Give more text, as lists of words, or a lower min_count."
        )
    return kept


def flatten(
    sentences: Iterable[Sequence[str]], index: dict[str, int]
) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """The ids of all words that have one, end to end, and the number of the sentence of each."""
    token_ids: list[int] = []
    sentence_ids: list[int] = []
    for number, sentence in enumerate(sentences):
        known = [index[word] for word in sentence if word in index]
        token_ids += known
        sentence_ids += [number] * len(known)
    return torch.tensor(token_ids, dtype=torch.long), torch.tensor(sentence_ids, dtype=torch.long)


def keep_probabilities(frequencies: Int[Tensor, " V"], subsample: float) -> Float[Tensor, " V"]:
    """With which probability each word stays in the text: √(t / share) + t / share, where that is below 1.

    So word2vec's program has it; arXiv:1310.4546 §2.3 gives √(t / share) alone.
    """
    if subsample == 0:
        return torch.ones(len(frequencies))
    ratio = subsample * frequencies.sum() / frequencies
    return (ratio.sqrt() + ratio).clamp(max=1)


def noise_urn(frequencies: Int[Tensor, " V"], power: float) -> Int[Tensor, " S"]:
    """Word ids in numbers proportional to count^power: a slot drawn blindly is a word of the noise.

    It takes a look-up a draw, where drawing from the probabilities takes a search. Each word has a slot.
    """
    shares = frequencies.double() ** power
    n_slots = (shares / shares.sum() * max(URN_SLOTS, 16 * len(shares))).round().long().clamp(min=1)
    return torch.repeat_interleave(torch.arange(len(shares)), n_slots)


def draw_noise(
    urn: Int[Tensor, " S"], n_pairs: int, n_negatives: int, generator: torch.Generator
) -> Int[Tensor, "N K"]:
    """`n_negatives` words of the noise for each of `n_pairs` pairs."""
    return urn[torch.randint(len(urn), (n_pairs, n_negatives), generator=generator)]


def draw_pairs(
    token_ids: Int[Tensor, " M"],
    sentence_ids: Int[Tensor, " M"],
    keep: Float[Tensor, " V"],
    window: int,
    generator: torch.Generator,
) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """Words and their neighbours in a new random reading of a passage, shuffled.

    Frequent words drop out first, so that what stood further away moves into the window; then each word
    draws how far it looks, 1 to `window` words to both sides. Near neighbours thus come more often.
    """
    stays = torch.rand(len(token_ids), generator=generator) < keep[token_ids]
    token_ids, sentence_ids = token_ids[stays], sentence_ids[stays]
    reach = torch.randint(1, window + 1, (len(token_ids),), generator=generator)
    words, contexts = [], []
    for distance in range(1, window + 1):
        left, right = token_ids[:-distance], token_ids[distance:]
        together = sentence_ids[:-distance] == sentence_ids[distance:]
        looks_right = together & (reach[:-distance] >= distance)
        looks_left = together & (reach[distance:] >= distance)
        words += [left[looks_right], right[looks_left]]
        contexts += [right[looks_right], left[looks_left]]
    order = torch.randperm(sum(map(len, words)), generator=generator)
    return torch.cat(words)[order], torch.cat(contexts)[order]
