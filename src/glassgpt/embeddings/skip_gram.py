"""word2vec's skip-gram with negative sampling: vectors learnt by telling real neighbours from drawn ones.

Mikolov, Sutskever, Chen, Corrado, Dean 2013, "Distributed Representations of Words and Phrases and their
Compositionality", arXiv:1310.4546. For a word w with a neighbour c in the text, and K words nₖ
drawn from noise,

    loss = −log σ(v_w · u_c) − Σₖ log σ(−v_w · u_nₖ)

where v are word vectors, the ones that are kept, and u context vectors. Chapter 02.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glassgpt.embeddings.config import SkipGramConfig
from glassgpt.embeddings.pairs import (
    count_words,
    draw_noise,
    draw_pairs,
    flatten,
    keep_probabilities,
    noise_urn,
)
from glassgpt.embeddings.word_vectors import WordVectors
from glassgpt.errors import ConfigError, DataError

PASSAGE_TOKENS = 1 << 18  # pairs are made and shuffled within about so many words at a time


class SkipGram:
    """Two vectors for each word: v where it stands itself, u where it stands beside another."""

    def __init__(self, counts: dict[str, int], config: SkipGramConfig) -> None:
        """`counts`: how often each word that is kept comes in the text, the most frequent first."""
        self.config = config
        self.counts = counts
        self.index = {word: place for place, word in enumerate(counts)}
        self.generator = torch.Generator().manual_seed(config.seed)
        V, D = len(counts), config.d_vector
        self.word_vectors = (torch.rand(V, D, generator=self.generator) * 2 - 1) / D
        self.context_vectors = torch.zeros(V, D)

    @property
    def vectors(self) -> WordVectors:
        """What was learnt so far, as a copy."""
        return WordVectors(list(self.counts), self.word_vectors.numpy().copy())

    def losses(
        self, words: Int[Tensor, " N"], contexts: Int[Tensor, " N"], noise: Int[Tensor, "N K"]
    ) -> Float[Tensor, " N"]:
        """The loss of each pair, in nats. Noise that hit the neighbour itself does not count."""
        return pair_losses(self.word_vectors, self.context_vectors, words, contexts, noise)

    def step(
        self, words: Int[Tensor, " N"], contexts: Int[Tensor, " N"], noise: Int[Tensor, "N K"], lr: float
    ) -> None:
        """One step of gradient descent for each of N pairs, all from the same weights.

        The gradient by a score is σ(score) − label; a batch touches few rows of the matrices, and only
        those are written.
        """
        others = torch.cat([contexts[:, None], noise], dim=1)  # (N, 1 + K)
        rows = others.flatten()
        v = self.word_vectors.index_select(0, words)[:, None]  # (N, 1, D)
        u = self.context_vectors.index_select(0, rows).view(*others.shape, -1)  # (N, 1 + K, D)
        wrong = torch.sigmoid((v * u).sum(dim=-1))  # (N, 1 + K)
        wrong[:, 0] -= 1
        wrong[:, 1:].masked_fill_(noise == contexts[:, None], 0)
        move = (-lr * wrong)[:, :, None]
        self.word_vectors.index_add_(0, words, (move * u).sum(dim=1))
        self.context_vectors.index_add_(0, rows, (move * v).flatten(0, 1))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A step is a few small operations: to wake threads for each takes longer than the work they share,
    and on a machine that is busy otherwise ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def train_skip_gram(
    sentences: Iterable[Sequence[str]],
    config: SkipGramConfig | None = None,
    *,
    on_epoch: Callable[[int, SkipGram], None] | None = None,
) -> SkipGram:
    """Learn vectors for the words of `sentences`; `.vectors` of the result holds them.

    Windows do not reach from one sentence into the next. `on_epoch` is called before the first epoch, with
    0, and after each with its number.

    Raises DataError if no two words that come often enough are neighbours, or subsampling left none beside
    each other, ConfigError if training diverges.
    """
    config = config or SkipGramConfig()
    texts = [_words(sentence) for sentence in sentences]
    counts = count_words(texts, config.min_count)
    model = SkipGram(counts, config)
    token_ids, sentence_ids = flatten(texts, model.index)
    if not (sentence_ids[1:] == sentence_ids[:-1]).any():
        raise DataError(
            f"No two of the {len(counts):,} words that come min_count={config.min_count} times or more stand "
            "in the same sentence. Give longer sentences, or a lower min_count."
        )
    frequencies = torch.tensor(list(counts.values()))
    keep = keep_probabilities(frequencies, config.subsample)
    urn = noise_urn(frequencies, config.noise_power)
    batch_pairs = config.batch_pairs or min(256, 1 + len(counts) // 6)

    n_pairs = 0
    if on_epoch:
        on_epoch(0, model)
    for epoch in range(config.n_epochs):
        for start in range(0, len(token_ids), PASSAGE_TOKENS):
            passage = slice(start, start + PASSAGE_TOKENS)
            words, contexts = draw_pairs(
                token_ids[passage], sentence_ids[passage], keep, config.window, model.generator
            )
            n_pairs += len(words)
            for first in range(0, len(words), batch_pairs):
                batch = slice(first, first + batch_pairs)
                noise = draw_noise(urn, len(words[batch]), config.n_negatives, model.generator)
                n_read = start + len(token_ids[passage]) * first / len(words)
                done = (epoch + n_read / len(token_ids)) / config.n_epochs
                lr = config.lr + (config.min_lr - config.lr) * done
                model.step(words[batch], contexts[batch], noise, lr)
        if not (model.word_vectors.isfinite().all() and model.context_vectors.isfinite().all()):
            raise ConfigError(
                f"The vectors are no longer finite after epoch {epoch + 1}: the steps are too large. Lower "
                f"lr={config.lr} or batch_pairs={batch_pairs}."
            )
        if on_epoch:
            on_epoch(epoch + 1, model)
    if not n_pairs:
        raise DataError(
            f"Nothing was learnt: of {len(token_ids):,} words subsample={config.subsample} left no two "
            "beside each other. Give more text, or subsample=0."
        )
    return model


def pair_losses(
    word_vectors: Float[Tensor, "V D"],
    context_vectors: Float[Tensor, "V D"],
    words: Int[Tensor, " N"],
    contexts: Int[Tensor, " N"],
    noise: Int[Tensor, "N K"],
) -> Float[Tensor, " N"]:
    """The loss of each pair, in nats. Noise that happens to be the neighbour itself does not count."""
    v = word_vectors[words]
    pair = -F.logsigmoid((v * context_vectors[contexts]).sum(dim=-1))
    drawn = -F.logsigmoid(-(context_vectors[noise] @ v[:, :, None]).squeeze(-1))
    return pair + drawn.masked_fill(noise == contexts[:, None], 0).sum(dim=-1)


def _words(sentence: Sequence[str]) -> list[str]:
    if isinstance(sentence, str):  # or its letters would be taken for words
        raise DataError(f"The sentence {sentence[:40]!r} is a string. Give lists of words: sentence.split().")
    return list(sentence)
