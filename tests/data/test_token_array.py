"""A token array reads like one array, whatever it lies in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.data import TokenArray
from glassgpt.data.token_array import check_ids
from glassgpt.errors import TokenizerError


@given(st.lists(st.integers(0, 5), max_size=6), st.data())
def test_a_token_array_reads_like_the_whole(lengths, data):
    whole = np.arange(sum(lengths), dtype="<u2")
    tokens = TokenArray(np.split(whole, np.cumsum(lengths)))
    assert len(tokens) == len(whole)
    bounds = st.one_of(st.none(), st.integers(-40, 40))
    start, stop = data.draw(bounds), data.draw(bounds)
    assert tokens[start:stop].tolist() == whole[start:stop].tolist()
    assert tokens[:].dtype == whole.dtype
    if len(whole):
        place = data.draw(st.integers(-len(whole), len(whole) - 1))
        assert tokens[place] == whole[place]
        length = data.draw(st.integers(1, len(whole)))
        starts = np.array(data.draw(st.lists(st.integers(0, len(whole) - length), max_size=5)), np.int64)
        assert tokens.windows(starts, length).tolist() == [whole[s : s + length].tolist() for s in starts]


def test_a_place_beyond_the_end_is_an_index_error():
    tokens = TokenArray([np.arange(7)])
    for place in (7, -8):
        with pytest.raises(IndexError):
            tokens[place]
    with pytest.raises(IndexError, match="step 1, not 2"):
        tokens[::2]


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "int64"])
@pytest.mark.parametrize("cuts", [[], [3], [3, 4, 50]])
def test_windows_are_the_slices_in_the_order_asked_for_and_copies(cuts, dtype):
    whole = np.random.default_rng(0).integers(0, 50_257, 97).astype(dtype)
    tokens = TokenArray(np.split(whole, cuts))
    starts = np.array([90, 0, 1, 2, 3, 43, 44, 49, 50, 90])

    windows = tokens.windows(starts, 7)

    assert windows.dtype == whole.dtype
    assert windows.tolist() == [whole[start : start + 7].tolist() for start in starts]
    windows[:] = 0
    assert tokens[:].tolist() == whole.tolist()


def test_windows_of_every_second_id_are_what_they_say():
    """An array that is a view with gaps is no row of memory that windows could be cut from."""
    every_second = np.arange(97)[::2]
    assert TokenArray.of(every_second).windows(np.array([5, 3]), 3).tolist() == [[10, 12, 14], [6, 8, 10]]


@pytest.mark.parametrize("cuts", [[], [3]])
def test_a_window_beyond_the_end_is_never_read(cuts):
    tokens = TokenArray(np.split(np.arange(7), cuts))
    with pytest.raises((IndexError, ValueError)):
        tokens.windows(np.array([5]), 3)


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "int16"])
def test_the_highest_and_the_lowest_id_are_checked(dtype):
    check_ids(np.array([0, 12, 5], dtype), 13)
    check_ids(np.array([], dtype), 13)
    with pytest.raises(TokenizerError, match="Token id 13 is outside vocab_size=13"):
        check_ids(np.array([0, 13, 5], dtype), 13)
    with pytest.raises(TokenizerError, match="Token id -1 is outside" if dtype == "int16" else "Token id 6"):
        check_ids(np.array([0, -1, 5]).astype(dtype) if dtype == "int16" else np.array([65_535], dtype), 13)
