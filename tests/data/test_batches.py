"""Batches: a pure function of (seed, step, rank) that goes through every window once an epoch."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.data import Batches, TokenArray, eval_windows
from glassgpt.data import batches as batches_module
from glassgpt.data.permutation import permute
from glassgpt.errors import ConfigError, DataError, TokenizerError

SEEDS = st.integers(0, 2**63)


@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_permute_gives_every_place_once(n, key):
    assert sorted(permute(np.arange(n), n, np.uint64(key))) == list(range(n))


def test_permute_depends_on_the_key_and_leaves_no_pattern():
    n = 4099
    first, second = (permute(np.arange(n), n, np.uint64(key)) for key in (1, 2))
    assert np.mean(first == second) < 0.01
    for order in (first, second):
        # Of n random numbers, neighbours and places are uncorrelated up to 1/√n = 0.016: four times that.
        assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.064
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.064


def test_permute_takes_places_beyond_four_billion():
    n = 2**40 + 7
    places = np.arange(n - 1009, n)
    assert len(set(permute(places, n, np.uint64(3)).tolist())) == 1009


@st.composite
def shapes(draw):
    context_length = draw(st.integers(1, 7))
    n_tokens = draw(st.integers(context_length + 1, 43))
    return n_tokens, context_length


def starts_of(batches, n_steps):
    """Where the windows of the first steps begin: the token ids are their own places."""
    return [int(row[0]) for step in range(n_steps) for row in batches.batch(step)[0]]


@given(shapes(), st.integers(1, 5), SEEDS)
def test_an_epoch_has_every_window_once_and_wraps_inside_a_batch(shape, micro_batch_size, seed):
    n_tokens, T = shape
    batches = Batches(np.arange(n_tokens), context_length=T, micro_batch_size=micro_batch_size, seed=seed)
    n = batches.windows_per_epoch
    starts = starts_of(batches, -(-3 * n // micro_batch_size))[: 3 * n]
    for epoch in (starts[:n], starts[n : 2 * n], starts[2 * n :]):
        phase = min(epoch)
        assert sorted(epoch) == [phase + i * T for i in range(n)]
        assert max(epoch) + T < n_tokens


@given(shapes(), SEEDS)
def test_epochs_begin_at_different_places_and_together_miss_no_token(shape, seed):
    n_tokens, T = shape
    tokens = np.arange(n_tokens)
    n = Batches(tokens, context_length=T, micro_batch_size=1).windows_per_epoch
    n_phases = n_tokens - n * T
    starts = starts_of(Batches(tokens, context_length=T, micro_batch_size=n * n_phases, seed=seed), 1)
    assert {min(starts[e * n : (e + 1) * n]) for e in range(n_phases)} == set(range(n_phases))
    assert {start + i for start in starts for i in range(T + 1)} == set(range(n_tokens))


@given(shapes(), st.integers(1, 3), st.integers(1, 4), SEEDS)
def test_ranks_share_the_work_of_one_without_overlap(shape, micro_batch_size, world_size, seed):
    n_tokens, T = shape
    tokens = np.arange(n_tokens)
    one = Batches(tokens, context_length=T, micro_batch_size=micro_batch_size * world_size, seed=seed)
    ranks = [
        Batches(
            tokens,
            context_length=T,
            micro_batch_size=micro_batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    for step in (0, 1, 5, 1_000_003):
        parts = [rank.batch(step)[0] for rank in ranks]
        assert torch.equal(torch.cat(parts), one.batch(step)[0])


@given(shapes(), SEEDS, st.lists(st.integers(0, 10**9), min_size=2, max_size=6))
def test_a_batch_depends_on_nothing_but_seed_step_and_rank(shape, seed, steps):
    n_tokens, T = shape

    def fresh():
        return Batches(np.arange(n_tokens), context_length=T, micro_batch_size=3, seed=seed)

    used = fresh()
    for step in steps:
        for first, second in zip(used.batch(step), fresh().batch(step), strict=True):
            assert torch.equal(first, second)


def test_batches_are_what_they_always_were():
    """A run that was begun with an earlier version goes on with the batches that it would have had."""
    alone, second_of_two = (
        Batches(np.arange(1009), context_length=7, micro_batch_size=5, seed=3, rank=rank, world_size=rank + 1)
        for rank in (0, 1)
    )
    steps = (0, 1, 28, 29, 1_000_003)
    assert [alone.batch(step)[0][:, 0].tolist() for step in steps] == [
        [558, 397, 572, 768, 285], [460, 698, 313, 355, 271], [880, 719, 418, 450, 247],
        [541, 891, 737, 835, 492], [55, 636, 825, 972, 181],
    ]  # fmt: skip
    assert [second_of_two.batch(step)[0][:, 0].tolist() for step in steps] == [
        [460, 698, 313, 355, 271], [152, 747, 852, 5, 838], [324, 140, 77, 343, 700],
        [336, 826, 742, 889, 798], [105, 161, 686, 420, 63],
    ]  # fmt: skip


@pytest.mark.parametrize("windows_at_once", [1, 7, 10, 4096])
def test_how_many_places_are_computed_together_changes_no_batch(windows_at_once, monkeypatch):
    def some():
        batches = Batches(np.arange(211), context_length=7, micro_batch_size=5, rank=1, world_size=2)
        return torch.stack([torch.stack(batches.batch(step)) for step in range(23)])

    expected = some()
    monkeypatch.setattr(batches_module, "WINDOWS_AT_ONCE", windows_at_once)
    torch.testing.assert_close(some(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("tokens_at_once", [42, 100, 2**15])
def test_how_many_tokens_are_read_together_changes_no_batch(tokens_at_once, monkeypatch):
    def some(at_once):
        monkeypatch.setattr(batches_module, "TOKENS_AT_ONCE", at_once)
        batches = Batches(np.arange(211), context_length=7, micro_batch_size=3, rank=1, world_size=2)
        # One after another, the same one twice, back, far away, across epochs, and on from there.
        steps = [*range(40), 39, 40, 7, 8, 10, 1365, 1366, 1367, 1368, 0, 1, 2]
        return torch.stack([torch.stack(batches.batch(step)) for step in steps])

    torch.testing.assert_close(some(tokens_at_once), some(1), rtol=0, atol=0)


def test_small_batches_are_read_together_only_for_who_asks_for_one_after_another(monkeypatch):
    monkeypatch.setattr(batches_module, "TOKENS_AT_ONCE", 4 * 21)
    batches, read = Batches(np.arange(911), context_length=7, micro_batch_size=3), []
    windows = batches.tokens.windows
    monkeypatch.setattr(
        batches.tokens, "windows", lambda starts, T: (read.append(len(starts) // 3), windows(starts, T))[1]
    )
    for step in [0, 1, 2, 3, 4, 5, 100, 50, 51, 52]:
        batches.batch(step)
    assert read == [4, 4, 1, 1, 4]  # steps 0, 4, 100, 50 and 51


def test_what_is_written_into_a_batch_reaches_no_other():
    fresh = [Batches(np.arange(101), context_length=7, micro_batch_size=3).batch(step) for step in range(9)]
    batches = Batches(np.arange(101), context_length=7, micro_batch_size=3)
    for step in range(8):  # the next one has been read already
        token_ids, targets = batches.batch(step)
        token_ids.zero_()
        torch.testing.assert_close(targets, fresh[step][1], rtol=0, atol=0)
        targets.zero_()
    torch.testing.assert_close(batches.batch(8), fresh[8], rtol=0, atol=0)
    for step in (7, 8):
        torch.testing.assert_close(batches.batch(step), fresh[step], rtol=0, atol=0)


def test_batches_that_were_read_together_are_tensors_of_their_own():
    batches = Batches(np.arange(101), context_length=7, micro_batch_size=3)
    (first, _), (second, _) = batches.batch(0), batches.batch(1)
    x = torch.ones(101, requires_grad=True)
    loss = (x[first] * x[first]).sum()  # its backward pass reads `first`
    second.zero_()
    loss.backward()
    assert first.untyped_storage().nbytes() == second.untyped_storage().nbytes() == 3 * 7 * 8
    again = pickle.loads(pickle.dumps(batches))
    assert again._ahead == {}
    for part, expected in zip(again.batch(2), batches.batch(2), strict=True):
        assert torch.equal(part, expected)


def test_an_id_outside_the_vocabulary_is_an_error_of_its_own_step_alone():
    tokens = np.arange(3, 103)
    tokens[47] = 1009
    batches = Batches(tokens, context_length=7, micro_batch_size=1, vocab_size=997)
    expected = Batches(tokens, context_length=7, micro_batch_size=1)
    n_bad = 0
    for step in range(batches.windows_per_epoch):
        window = expected.batch(step)
        if 1009 in window[0] or 1009 in window[1]:
            n_bad += 1
            with pytest.raises(TokenizerError, match="Token id 1009"):
                batches.batch(step)
        else:
            torch.testing.assert_close(batches.batch(step), window, rtol=0, atol=0)
    assert n_bad in (1, 2)  # where windows meet, both have it


def test_targets_are_the_next_tokens_as_int64():
    token_ids, targets = Batches(
        np.arange(101, dtype="<u2"), context_length=7, micro_batch_size=3, seed=5
    ).batch(2)
    assert token_ids.shape == targets.shape == (3, 7)
    assert token_ids.dtype == targets.dtype == torch.int64
    assert token_ids.is_contiguous()
    assert targets.is_contiguous()
    assert torch.equal(targets, token_ids + 1)


def test_another_seed_gives_another_order():
    first, second = (
        starts_of(Batches(np.arange(1009), context_length=7, micro_batch_size=11, seed=seed), 13)
        for seed in (0, 1)
    )
    assert first != second


def test_each_epoch_has_an_order_of_its_own():
    batches = Batches(np.arange(1009), context_length=7, micro_batch_size=1, seed=0)
    n = batches.windows_per_epoch
    starts = starts_of(batches, 2 * n)
    first, second = ([start - min(epoch) for start in epoch] for epoch in (starts[:n], starts[n:]))
    assert sorted(first) == sorted(second)
    assert first != second


def test_shards_and_one_array_give_the_same_batches():
    tokens = np.random.default_rng(0).integers(0, 999, 211).astype("<u2")
    shards = TokenArray([tokens[:3], tokens[3:100], tokens[100:101], tokens[101:]])
    for step in range(23):
        whole, parts = (
            Batches(t, context_length=11, micro_batch_size=5, seed=2).batch(step) for t in (tokens, shards)
        )
        assert torch.equal(whole[0], parts[0])
        assert torch.equal(whole[1], parts[1])


def test_too_short_a_text_is_an_error_with_the_remedy():
    Batches(np.arange(14), context_length=13, micro_batch_size=2).batch(0)
    too_short = r"has 13 tokens; context_length=13 needs at least 14\. "
    with pytest.raises(DataError, match=rf"^The text {too_short}Use more text, .*at most 12\.$"):
        Batches(np.arange(13), context_length=13, micro_batch_size=2)
    with pytest.raises(
        DataError, match=rf"^The held-out text {too_short}.*a larger val_fraction.*at most 12\.$"
    ):
        eval_windows(np.arange(13), 13)


def test_without_any_text_no_context_length_is_advised():
    with pytest.raises(DataError, match=r"^The held-out text has 0 tokens; .*val_fraction") as caught:
        eval_windows(np.arange(0), 13)
    assert "at most" not in str(caught.value)


@pytest.mark.parametrize("bad", [13, -1])
def test_an_id_outside_the_vocabulary_is_an_error(bad):
    tokens = np.array([3, 5, bad, 7, 2])
    message = rf"Token id {bad} is outside vocab_size=13 \(valid: 0–12\)\. Was another tokenizer used\?"
    with pytest.raises(TokenizerError, match=message):
        Batches(tokens, context_length=4, micro_batch_size=1, vocab_size=13).batch(0)
    with pytest.raises(TokenizerError, match=message):
        eval_windows(tokens, 4, vocab_size=13)
    Batches(tokens, context_length=4, micro_batch_size=1).batch(0)


def test_settings_that_make_no_sense_are_named_together():
    with pytest.raises(ConfigError, match=r"(?s)micro_batch_size=0.*rank=2 is not in 0 … world_size − 1 = 1"):
        Batches(np.arange(99), context_length=3, micro_batch_size=0, rank=2, world_size=2)
    with pytest.raises(ConfigError, match="step=-1"):
        Batches(np.arange(99), context_length=3, micro_batch_size=1).batch(-1)


def test_tokens_must_be_a_row_of_whole_numbers():
    with pytest.raises(DataError, match=r"one row of whole numbers, not shape \(3, 5\)"):
        Batches(np.zeros((3, 5), int), context_length=2, micro_batch_size=1)


@given(shapes(), st.one_of(st.none(), st.integers(1, 60)))
def test_evaluation_windows_never_overlap_and_spread_over_the_text(shape, n_windows):
    n_tokens, T = shape
    token_ids, targets = eval_windows(np.arange(n_tokens), T, n_windows)
    n_all = (n_tokens - 1) // T
    assert len(token_ids) == (n_all if n_windows is None else min(n_windows, n_all))
    assert torch.equal(targets, token_ids + 1)
    gaps = token_ids[1:, 0] - token_ids[:-1, 0]
    assert (gaps >= T).all()
    if len(gaps):
        assert gaps.max() - gaps.min() <= T, "windows are spaced evenly"
    last_start = int(token_ids[-1, 0])
    assert last_start >= (n_all - n_all / len(token_ids) - 1) * T, "they reach to the end of the text"


def test_no_evaluation_windows_is_an_error():
    with pytest.raises(ConfigError, match="n_windows=0"):
        eval_windows(np.arange(99), 7, 0)
