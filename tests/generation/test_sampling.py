"""The steps from logits to a token: equal to loops, and true to what they promise."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.by_hand import sampling as by_hand
from glassgpt.errors import GenerationError
from glassgpt.generation import SamplingConfig, next_token_probabilities
from glassgpt.generation.sampling import (
    _likeliest_in_parallel,
    _places_in_parallel,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    row_generators,
    seen_tokens,
)

B, V = 5, 23
EXACT = {"rtol": 0, "atol": 1e-12}  # float64: the same numbers, added in another order


def logits_with_ties(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return (torch.randn(B, V, dtype=torch.float64) * 3).round(decimals=1)


def kept(logits: torch.Tensor) -> list[set[int]]:
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in logits]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 999),
    choices=st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7]),
            "top_k": st.sampled_from([None, 1, 2, 7, V]),
            "top_p": st.sampled_from([None, 1e-9, 0.3, 0.9]),
            "min_p": st.sampled_from([None, 0.0, 0.11, 1.0]),
            "repetition_penalty": st.sampled_from([0.7, 1.0, 1.3]),
        }
    ),
)
def test_probabilities_equal_loops_by_hand(seed, choices):
    logits = logits_with_ties(seed)
    previous = torch.randint(V, (B, 7)).tolist()
    fast = next_token_probabilities(logits, SamplingConfig(**choices), seen_tokens(previous, V))
    slow = [
        by_hand.next_token_probabilities(row.tolist(), previous=seen, **choices)
        for row, seen in zip(logits, previous, strict=True)
    ]
    torch.testing.assert_close(fast, torch.tensor(slow, dtype=torch.float64), **EXACT)


def test_without_settings_the_probabilities_are_the_softmax():
    logits = logits_with_ties()
    torch.testing.assert_close(
        next_token_probabilities(logits, SamplingConfig()), logits.softmax(-1), **EXACT
    )


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-45, 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_temperature_of_zero_or_nearly_zero_takes_the_likeliest_token(temperature, dtype):
    logits = torch.tensor([[1.0, 9.0, -40.0], [-7.0, -8.0, -7.5]], dtype=dtype)
    probabilities = next_token_probabilities(logits, SamplingConfig(temperature=temperature))
    assert probabilities.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert probabilities.dtype == dtype


def test_of_equal_logits_greedy_takes_the_first():
    probabilities = next_token_probabilities(torch.tensor([[1.0, 4.0, 4.0]]), SamplingConfig(temperature=0.0))
    assert probabilities.tolist() == [[0, 1, 0]]


def test_a_huge_temperature_makes_all_tokens_equal_and_a_huge_logit_does_not_overflow():
    logits = torch.tensor([[1e38, -1e38, 0.0, 3.0]])
    flat = next_token_probabilities(torch.tensor([[5.0, 1.0, 0.0, 3.0]]), SamplingConfig(temperature=1e30))
    assert flat.tolist() == [[0.25] * 4]
    sharp = next_token_probabilities(logits, SamplingConfig(temperature=1e-3))
    assert sharp.tolist() == [[1, 0, 0, 0]]


def test_top_k_keeps_the_k_largest_and_those_tied_with_the_last():
    logits = torch.tensor([[5.0, 1.0, 3.0, 3.0, 2.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    assert kept(keep_top_k(logits, 1)) == [{0}, {4}]
    assert kept(keep_top_k(logits, 2)) == [{0, 2, 3}, {4, 3}]
    assert kept(keep_top_k(logits, 5)) == [{0, 1, 2, 3, 4}] * 2


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = torch.tensor([[0.125, 0.5, 0.25, 0.125]], dtype=torch.float64).log()
    # The log and the softmax round by about 1e-16, so a p is asked for just below and above a sum.
    for p, expected in [
        (1e-9, {1}),
        (0.5 - 1e-9, {1}),
        (0.5 + 1e-9, {1, 2}),
        (0.75 - 1e-9, {1, 2}),
        (0.75 + 1e-9, {0, 1, 2}),
        (0.875 + 1e-9, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ]:
        assert kept(keep_top_p(logits, p)) == [expected]


def test_top_p_stops_exactly_at_p():
    logits = torch.zeros(1, 4, dtype=torch.float64)  # four times 0.25, without any rounding
    assert kept(keep_top_p(logits, 0.5)) == [{0, 1}]


def test_a_small_top_p_keeps_one_of_any_number_of_equal_logits():
    for V in range(2, 999):  # whichever way float32 rounds 1 / V
        assert kept(keep_top_p(torch.zeros(1, V), 1e-9)) == [{0}]


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5])
def test_top_p_counts_equal_logits_in_order_of_their_ids(p):
    logits = torch.zeros(1, 1024, dtype=torch.float64)  # all as near to (1 − p) / V as equal ones can be
    assert kept(keep_top_p(logits, p)) == [set(range(math.ceil(p * 1024)))]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 999), p=st.floats(1e-6, 1))
def test_top_p_reaches_p_and_would_not_without_its_last_token(seed, p):
    logits = logits_with_ties(seed)
    for row, chosen in zip(logits.softmax(-1), kept(keep_top_p(logits, p)), strict=True):
        probabilities = sorted(row[list(chosen)].tolist())
        assert sum(probabilities) >= p - 1e-12
        assert p == 1 or sum(probabilities[1:]) < p
        assert len(chosen) >= 1


@pytest.mark.parametrize("p", [1e-46, 5e-324])
def test_a_top_p_too_small_for_float32_keeps_the_likeliest(p):
    logits = torch.tensor([[1.0, 9.0, -40.0], [-7.0, -8.0, -7.5]])
    assert kept(keep_top_p(logits, p)) == [{1}, {0}]
    likeliest = _likeliest_in_parallel(logits.softmax(-1), p)
    assert likeliest.tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize("penalty", [0.01, 100.0])
def test_the_largest_penalty_leaves_a_distribution_even_of_huge_logits(penalty):
    logits = torch.tensor([[2e36, -2e36, 3e36, 0.0], [0.0, 1e36, -4.0, 3.0]])
    seen = seen_tokens([[2, 0], [0, 1, 2]], 4)
    probabilities = next_token_probabilities(logits, SamplingConfig(repetition_penalty=penalty), seen)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(2))


def test_top_p_of_one_keeps_even_what_float32_cannot_add_to_one():
    logits = torch.tensor([[0.0] + [-25.0] * 9])
    assert kept(keep_top_p(logits, 1.0)) == [set(range(10))]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 999), p=st.floats(1e-6, 0.999))
def test_top_p_keeps_the_same_on_a_gpu(seed, p):
    logits = logits_with_ties(seed)
    expected = keep_top_p(logits, p).isfinite()
    assert torch.equal(_likeliest_in_parallel(logits.softmax(-1), p), expected)


def test_min_p_keeps_what_is_at_least_that_share_of_the_likeliest():
    logits = torch.tensor([[8.0, 4.0, 2.0, 1.0]], dtype=torch.float64).log()
    assert kept(keep_min_p(logits, 0.0)) == [{0, 1, 2, 3}]
    assert kept(keep_min_p(logits, 0.25 - 1e-9)) == [{0, 1, 2}]
    assert kept(keep_min_p(logits, 0.25 + 1e-9)) == [{0, 1}]
    assert kept(keep_min_p(logits, 1.0)) == [{0}]


def test_the_repetition_penalty_lowers_positive_and_negative_logits_of_seen_tokens_only():
    logits = torch.tensor([[2.0, -2.0, 3.0, 0.0], [2.0, -2.0, 3.0, 0.0]])
    seen = seen_tokens([[0, 1, 1], []], 4)
    assert penalise_repetition(logits, seen, 2.0).tolist() == [[1.0, -4.0, 3.0, 0.0], [2.0, -2.0, 3.0, 0.0]]


def test_settings_act_in_the_documented_order():
    # top_k first leaves {0, 1} with 4/7 and 3/7: top_p=0.5 then keeps token 0 alone. The other way round
    # 0.4 does not reach 0.5 and both would stay.
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    probabilities = next_token_probabilities(logits, SamplingConfig(top_k=2, top_p=0.5))
    assert probabilities.tolist() == [[1, 0, 0, 0]]
    # The temperature acts before top_p: 0.4 + 0.3 reach 0.65 at 1, and no longer at 4, where all are nearer
    # to a quarter.
    for temperature, n_kept in [(1.0, 2), (4.0, 3)]:
        sampling = SamplingConfig(temperature=temperature, top_p=0.65)
        assert (next_token_probabilities(logits, sampling) > 0).sum() == n_kept


def test_top_k_above_the_vocabulary_is_an_error():
    with pytest.raises(GenerationError, match="top_k=24 is above vocab_size=23"):
        next_token_probabilities(logits_with_ties(), SamplingConfig(top_k=V + 1))


def test_a_row_does_not_depend_on_the_rest_of_the_batch():
    logits = logits_with_ties()
    sampling = SamplingConfig(temperature=0.7, top_k=7, top_p=0.8, min_p=0.05)
    together = next_token_probabilities(logits, sampling)
    alone = torch.cat([next_token_probabilities(row[None], sampling) for row in logits])
    assert torch.equal(together, alone)
    ids = draw(together, row_generators(11, B))
    assert ids.tolist() == [
        draw(alone[row : row + 1], row_generators(11 + row, 1)).item() for row in range(B)
    ]


def test_a_draw_equals_the_walk_by_hand():
    probabilities = logits_with_ties().softmax(-1)
    numbers = [torch.rand(1, generator=g, dtype=torch.double).item() for g in row_generators(3, B)]
    expected = [by_hand.draw(row.tolist(), u) for row, u in zip(probabilities, numbers, strict=True)]
    assert draw(probabilities, row_generators(3, B)).tolist() == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(0.0, [1, 0, 0, 0]), (1 - 2**-53, [1, 2, 1, 1])], ids=["lowest", "highest"]
)
def test_the_ends_of_the_unit_interval_draw_the_first_and_the_last_possible_token(
    monkeypatch, number, expected
):
    monkeypatch.setattr(
        torch, "rand", lambda *size, generator, dtype, device: torch.full(size, number, dtype=dtype)
    )
    probabilities = torch.tensor(
        [
            [0.0, 1.0, 0.0],
            [0.25, 0.25, 0.5],
            [0.4999, 0.4999, 0.0],  # rounding can leave a sum short of 1
            [1.0, 1e-9, 0.0],  # float32 cannot add these, and the second is possible all the same
        ]
    )
    assert draw(probabilities, row_generators(0, 4)).tolist() == expected


def test_a_seed_draws_the_same_on_a_gpu():
    torch.manual_seed(0)
    n = 500
    probabilities = (3 * torch.randn(n, 101)).softmax(-1)
    probabilities[:, ::3] = 0
    uniform = torch.cat([torch.rand(1, generator=g, dtype=torch.double) for g in row_generators(0, n)])
    assert torch.equal(_places_in_parallel(probabilities, uniform), draw(probabilities, row_generators(0, n)))


def test_on_a_gpu_the_ends_of_the_unit_interval_draw_the_first_and_the_last_possible_token():
    probabilities = torch.tensor([[0.0, 0.25, 0.75, 0.0], [0.4999, 0.4999, 0.0, 0.0], [1.0, 1e-9, 0.0, 0.0]])
    lowest, highest = (torch.full((3,), number, dtype=torch.double) for number in (0.0, 1 - 2**-53))
    assert _places_in_parallel(probabilities, lowest).tolist() == [1, 0, 0]
    assert _places_in_parallel(probabilities, highest).tolist() == [2, 1, 1]


def test_a_gpu_draws_some_token_even_from_no_numbers():
    for damage in (torch.nan, torch.inf):
        probabilities = torch.full((3, 7), damage)
        uniform = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.double)
        token_ids = _places_in_parallel(probabilities, uniform)
        assert ((token_ids >= 0) & (token_ids < 7)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tokens_are_drawn_as_often_as_their_probabilities_say(dtype):
    n = 20_000
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0], dtype=dtype)
    counts = draw(probabilities.expand(n, -1), row_generators(0, n)).bincount(minlength=7)
    assert counts[[0, 2, 6]].tolist() == [0, 0, 0]
    for count, p in zip(counts.tolist(), probabilities.tolist(), strict=True):
        # Four standard deviations of a binomial count: a fair draw leaves them once in 16,000 times. As
        # every row has a seed of its own, neighbouring seeds are shown to be independent as well.
        assert abs(count - n * p) <= 4 * math.sqrt(n * p * (1 - p))


def test_one_generator_draws_as_often_as_the_probabilities_say():
    n, p = 5_000, 0.3
    generators = row_generators(0, 1)
    probabilities = torch.tensor([[1 - p, p]])
    count = sum(draw(probabilities, generators).item() for _ in range(n))
    assert abs(count - n * p) <= 4 * math.sqrt(n * p * (1 - p))  # as above


def test_a_seed_repeats_and_no_seed_does_not():
    probabilities = torch.full((1, 1000), 1e-3)

    def texts(seed):
        generators = row_generators(seed, 1)
        return [draw(probabilities, generators).item() for _ in range(20)]

    assert texts(5) == texts(5)
    assert all(first != second for first, second in pairwise([texts(5), texts(6), texts(None), texts(None)]))


def test_drawing_leaves_the_global_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    for seed in (1, None):
        draw(torch.full((2, 7), 1 / 7), row_generators(seed, 2))
    assert torch.equal(torch.rand(3), expected)
