"""Skip-gram training: each piece by hand, each random choice by its share, the whole by what it learns."""

import itertools
import math

import numpy as np
import pytest
import torch

from glassgpt.by_hand import skip_gram as by_hand
from glassgpt.embeddings import SkipGram, SkipGramConfig, pairs, train_skip_gram
from glassgpt.embeddings.pairs import (
    count_words,
    draw_noise,
    draw_pairs,
    flatten,
    keep_probabilities,
    noise_urn,
)
from glassgpt.embeddings.skip_gram import pair_losses
from glassgpt.errors import ConfigError, DataError

V, D, N, K = 11, 5, 17, 3


@pytest.fixture
def model() -> SkipGram:
    model = SkipGram({f"w{i}": V - i for i in range(V)}, SkipGramConfig(d_vector=D))
    torch.manual_seed(0)
    model.word_vectors = torch.randn(V, D, dtype=torch.float64)
    model.context_vectors = torch.randn(V, D, dtype=torch.float64)
    return model


@pytest.fixture
def batch():
    """Pairs with noise, some of which hits the neighbour itself."""
    torch.manual_seed(1)
    words, contexts, noise = torch.randint(V, (N,)), torch.randint(V, (N,)), torch.randint(V, (N, K))
    noise[0, 1] = contexts[0]
    return words, contexts, noise


def counted(contexts, noise, row):
    """The noise of one pair that counts."""
    return [k for k in noise[row].tolist() if k != contexts[row]]


def test_training_starts_from_small_vectors_on_all_sides_and_from_scores_of_zero():
    model = SkipGram({f"w{i}": 1 for i in range(97)}, SkipGramConfig(d_vector=D))

    assert -1 / D <= model.word_vectors.min() < -0.9 / D
    assert 0.9 / D < model.word_vectors.max() <= 1 / D
    assert (model.context_vectors == 0).all()


def test_losses_equal_the_loop_by_hand(model, batch):
    words, contexts, noise = batch
    v, u = model.word_vectors.tolist(), model.context_vectors.tolist()

    expected = [
        by_hand.loss(v[words[row]], u[contexts[row]], [u[k] for k in counted(contexts, noise, row)])
        for row in range(N)
    ]

    torch.testing.assert_close(
        model.losses(*batch), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_a_step_with_one_pair_equals_the_step_by_hand(model, batch):
    words, contexts, noise = batch
    for row in range(N):
        v, u = model.word_vectors.tolist(), model.context_vectors.tolist()
        hits = counted(contexts, noise, row)
        by_hand.step(v, u, int(words[row]), int(contexts[row]), hits, lr=0.3)

        model.step(words[row : row + 1], contexts[row : row + 1], noise[row : row + 1], lr=0.3)

        np.testing.assert_allclose(model.word_vectors, v, rtol=0, atol=1e-12)
        np.testing.assert_allclose(model.context_vectors, u, rtol=0, atol=1e-12)


def test_a_step_goes_down_the_gradient_of_the_summed_losses(model, batch):
    v = model.word_vectors.clone().requires_grad_()
    u = model.context_vectors.clone().requires_grad_()
    pair_losses(v, u, *batch).sum().backward()

    model.step(*batch, lr=0.3)

    torch.testing.assert_close(model.word_vectors, v.detach() - 0.3 * v.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.context_vectors, u.detach() - 0.3 * u.grad, rtol=0, atol=1e-12)


def test_rows_that_no_pair_names_stay_as_they_are(model):
    before = model.word_vectors.clone(), model.context_vectors.clone()

    model.step(torch.tensor([3]), torch.tensor([5]), torch.tensor([[7, 5, 7]]), lr=0.3)

    assert changed_rows(before[0], model.word_vectors) == {3}
    assert changed_rows(before[1], model.context_vectors) == {5, 7}


def changed_rows(before, after):
    return set((before != after).any(dim=1).nonzero().flatten().tolist())


def test_words_are_numbered_by_frequency_and_rare_ones_left_out():
    sentences = [["b", "a", "c", "a"], ["a", "b", "d"]]

    assert count_words(sentences, min_count=1) == {"a": 3, "b": 2, "c": 1, "d": 1}
    assert count_words(sentences, min_count=2) == {"a": 3, "b": 2}


def test_a_rare_word_is_as_if_it_were_not_there():
    token_ids, sentence_ids = flatten([["b", "a", "c", "a"], ["c"], ["a", "b"]], {"a": 0, "b": 1})

    assert token_ids.tolist() == [1, 0, 0, 0, 1]
    assert sentence_ids.tolist() == [0, 0, 0, 2, 2]


def test_the_probability_to_stay_is_that_of_word2vec():
    keep = keep_probabilities(torch.tensor([900, 99, 1]), subsample=0.01)

    def word2vec(share):
        return math.sqrt(0.01 / share) + 0.01 / share

    assert keep.tolist() == pytest.approx([word2vec(0.9), word2vec(0.099), 1])
    assert keep_probabilities(torch.tensor([900, 1]), subsample=0.0).tolist() == [1, 1]


def test_the_probability_to_stay_is_gensims():
    word2vec = pytest.importorskip("gensim.models", reason="needs gensim: pip install gensim").Word2Vec
    text = [[f"w{i}" for i in range(13) for _ in range(1 + 5 * i)]]
    theirs = word2vec(min_count=1, sample=0.05)
    theirs.build_vocab(text)
    counts = count_words(text, 1)

    keep = keep_probabilities(torch.tensor(list(counts.values())), 0.05)

    expected = [theirs.wv.get_vecattr(word, "sample_int") / (2**32 - 1) for word in counts]
    np.testing.assert_allclose(keep, expected, rtol=1e-5)  # float32 here


def test_noise_comes_as_often_as_count_to_the_three_quarters():
    counts = torch.tensor([10_000, 256, 16, 1])
    expected = counts.double() ** 0.75 / (counts.double() ** 0.75).sum()

    drawn = draw_noise(noise_urn(counts, 0.75), 40_009, 5, torch.Generator().manual_seed(0))

    shares = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
    assert drawn.shape == (40_009, 5)
    # Five standard deviations of a share in that many draws are at most 0.006.
    torch.testing.assert_close(shares.double(), expected, rtol=0, atol=0.006)
    assert shares[3] > 0


def test_rare_words_of_a_large_vocabulary_get_no_more_than_their_share(monkeypatch):
    monkeypatch.setattr(pairs, "URN_SLOTS", 101)
    counts = torch.tensor([10_000] * 53 + [1] * 5_003)
    expected = counts.double() ** 0.75 / (counts.double() ** 0.75).sum()

    shares = torch.bincount(noise_urn(counts, 0.75)).double() / len(noise_urn(counts, 0.75))

    # 16 slots a word on average: rounding takes less than a twentieth from the share of all frequent words.
    assert shares[:53].sum() > 0.95 * expected[:53].sum()


def test_pairs_are_neighbours_within_the_window_and_the_sentence():
    token_ids, sentence_ids = torch.arange(13), torch.tensor([0] * 8 + [1] * 5)
    seen = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        seen |= set(
            zip(
                *(ids.tolist() for ids in draw_pairs(token_ids, sentence_ids, torch.ones(13), 3, generator)),
                strict=True,
            )
        )

    inside = [range(8), range(8, 13)]
    wanted = {(i, j) for part in inside for i, j in itertools.permutations(part, 2) if abs(i - j) <= 3}
    assert seen == wanted


def test_near_neighbours_come_more_often():
    n = 20_011
    ids = torch.arange(n)
    words, contexts = draw_pairs(
        ids, torch.zeros(n, dtype=torch.long), torch.ones(n), 4, torch.Generator().manual_seed(0)
    )

    per_word = torch.bincount((words - contexts).abs(), minlength=5) / n

    # Of 4 equally likely reaches, 4, 3, 2, 1 cover the distances 1, 2, 3, 4; to both sides.
    torch.testing.assert_close(per_word, torch.tensor([0, 2, 1.5, 1, 0.5]), rtol=0, atol=0.03)


def test_what_drops_out_lets_further_words_into_the_window():
    token_ids = torch.tensor([1, 0, 2, 0, 3])
    keep = torch.tensor([0.0, 1, 1, 1])

    words, contexts = draw_pairs(
        token_ids, torch.zeros(5, dtype=torch.long), keep, 1, torch.Generator().manual_seed(0)
    )

    assert sorted(zip(words.tolist(), contexts.tolist(), strict=True)) == [(1, 2), (2, 1), (2, 3), (3, 2)]


def two_topics(n_sentences: int) -> list[list[str]]:
    """Sentences about the kitchen and about the sea; "the" is in all of them."""
    topics = [["pan", "oven", "spoon", "salt"], ["ship", "wave", "sail", "harbour"]]
    random = np.random.default_rng(0)
    return [["the", *random.permutation(topics[i % 2])] for i in range(n_sentences)]


@pytest.fixture(scope="module")
def trained():
    losses = []
    config = SkipGramConfig(d_vector=7, window=2, min_count=1, n_epochs=10, lr=0.1, subsample=0.0, seed=1)
    probe = torch.tensor([1, 1, 1]), torch.tensor([2, 3, 4]), torch.tensor([[5], [6], [7]])
    model = train_skip_gram(
        two_topics(200),
        config,
        on_epoch=lambda epoch, model: losses.append((epoch, model.losses(*probe).mean().item())),
    )
    return model, losses


def test_words_of_one_topic_end_up_side_by_side(trained):
    vectors = trained[0].vectors

    for topic in (["pan", "oven", "spoon", "salt"], ["ship", "wave", "sail", "harbour"]):
        for word in topic:
            assert {near for near, _ in vectors.nearest(word, 3)} == set(topic) - {word}
    assert vectors.odd_one_out(["pan", "oven", "ship", "salt"]) == "ship"


def test_on_epoch_is_called_before_the_first_and_after_each(trained):
    assert [epoch for epoch, _ in trained[1]] == list(range(11))
    assert trained[1][0][1] == pytest.approx(2 * math.log(2))  # context vectors begin as zeros


def test_the_same_seed_gives_the_same_vectors_and_another_others():
    texts = two_topics(6)
    config = {"d_vector": 3, "min_count": 1, "n_epochs": 2, "batch_pairs": 7}

    first, again, other = (train_skip_gram(texts, SkipGramConfig(**config, seed=seed)) for seed in (0, 0, 1))

    assert torch.equal(first.word_vectors, again.word_vectors)
    assert torch.equal(first.context_vectors, again.context_vectors)
    assert not torch.equal(first.word_vectors, other.word_vectors)


def test_the_learning_rate_falls_linearly_from_lr_to_min_lr(monkeypatch):
    rates = []
    monkeypatch.setattr(SkipGram, "step", lambda self, *batch: rates.append(batch[-1]))
    config = SkipGramConfig(min_count=1, window=1, n_epochs=3, lr=0.5, min_lr=0.1, subsample=0.0)
    train_skip_gram([["a", "b"] * 500], config)

    assert rates[0] == 0.5
    assert 0.1 < rates[-1] < 0.15
    steps = np.diff(rates)
    np.testing.assert_allclose(steps[1:-1], steps[1], rtol=0.5)
    assert (steps < 0).all()


def test_training_takes_one_thread_and_gives_the_others_back():
    torch.set_num_threads(2)
    seen = []
    config = SkipGramConfig(d_vector=3, min_count=1, n_epochs=1, subsample=0.0)

    train_skip_gram(two_topics(2), config, on_epoch=lambda *_: seen.append(torch.get_num_threads()))

    assert seen == [1, 1]
    assert torch.get_num_threads() == 2


def test_the_vectors_are_a_copy(trained):
    model = trained[0]
    vectors = model.vectors
    kept = vectors.vectors.copy()

    model.step(torch.tensor([0]), torch.tensor([1]), torch.tensor([[2]]), lr=1.0)

    np.testing.assert_array_equal(vectors.vectors, kept)


@pytest.mark.parametrize(
    ("sentences", "problem"),
    [
        ([], "0 different words"),
        ([["once", "upon"]], "Of 2 different words 0 come min_count=5 times"),
        ([["a"], ["b"]] * 9, "No two of the 2 words"),
        (["a string"], "is a string"),
        ([["a", "b"] * 5], r"Nothing was learnt: of 10 words subsample=0\.001 left no two.*subsample=0\."),
    ],
)
def test_a_text_with_nothing_to_learn_from_is_refused(sentences, problem):
    with pytest.raises(DataError, match=problem):
        train_skip_gram(sentences)


def test_training_that_diverges_says_so():
    config = SkipGramConfig(d_vector=7, min_count=1, subsample=0.0, lr=9.0, batch_pairs=512, n_epochs=20)

    with pytest.raises(ConfigError, match=r"no longer finite after epoch.*lr=9\.0 or batch_pairs=512"):
        train_skip_gram(two_topics(200), config)


def test_the_learning_rate_cannot_rise():
    with pytest.raises(ConfigError, match=r"min_lr=0\.0001 is above lr=1e-05"):
        SkipGramConfig(lr=1e-5)


def test_a_number_that_no_float_holds_is_out_of_range():
    with pytest.raises(ConfigError, match=r"lr=10+ must be a positive number"):
        SkipGramConfig(lr=10**400)


def test_every_setting_out_of_range_is_named():
    with pytest.raises(ConfigError, match=r"(?s)d_vector=0.*window=1\.5.*lr=-1.*subsample=nan.*seed=-3"):
        SkipGramConfig(d_vector=0, window=1.5, lr=-1, subsample=float("nan"), seed=-3)
