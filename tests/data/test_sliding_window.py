"""Sliding windows as the course teaches them."""

import numpy as np
import pytest
import torch

from glassgpt.data import SlidingWindowDataset, create_dataloader
from glassgpt.errors import ConfigError, DataError


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor], ids=["list", "array", "tensor"])
@pytest.mark.parametrize(("n", "context_length", "stride"), [(23, 5, 3), (6, 5, 5), (31, 5, 1), (29, 3, 7)])
def test_items_equal_slices_of_the_text(kind, n, context_length, stride):
    ids = list(range(100, 100 + n))
    dataset = SlidingWindowDataset(kind(ids), context_length, stride)
    expected = [
        (ids[i : i + context_length], ids[i + 1 : i + 1 + context_length])
        for i in range(0, n - context_length, stride)
    ]
    assert [(x.tolist(), y.tolist()) for x, y in (dataset[i] for i in range(len(dataset)))] == expected


def test_the_end_of_the_dataset_ends_a_loop():
    dataset = SlidingWindowDataset(range(23), 5, 3)
    assert len(list(dataset)) == len(dataset) == 6
    assert torch.equal(dataset[-1][0], dataset[5][0])


def test_without_overlap_every_token_is_a_target_once():
    loader = create_dataloader(range(22), context_length=7, micro_batch_size=2, drop_last=False)
    assert sorted(int(t) for _, targets in loader for t in targets.flatten()) == list(range(1, 22))


def test_a_last_batch_that_is_not_full_is_dropped_on_request():
    for drop_last, sizes in ((True, [2]), (False, [2, 1])):
        loader = create_dataloader(range(22), context_length=7, micro_batch_size=2, drop_last=drop_last)
        assert [len(token_ids) for token_ids, _ in loader] == sizes


def test_the_same_seed_shuffles_alike_and_each_epoch_anew():
    def epochs(seed):
        loader = create_dataloader(range(200), context_length=7, micro_batch_size=3, seed=seed)
        return [[batch[0].tolist() for batch in loader] for _ in range(2)]

    assert epochs(3) == epochs(3)
    assert epochs(3)[0] != epochs(3)[1]
    assert epochs(3) != epochs(4)


def test_without_shuffling_windows_come_in_order():
    loader = create_dataloader(range(30), context_length=7, micro_batch_size=2, shuffle=False)
    assert [batch[0][:, 0].tolist() for batch in loader] == [[0, 7], [14, 21]]


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        (np.linspace(0, 9, 23), r"not shape \(23,\) of float64"),
        ([1, 2, float("nan")] * 5, r"of float64"),
        (torch.ones(23), r"of float32"),
        (np.ones((23, 5), int), r"not shape \(23, 5\)"),
        (torch.ones((23, 5), dtype=torch.int64), r"not shape \(23, 5\)"),
        (np.full(23, 2**64 - 1, np.uint64), r"Token id 18446744073709551615 is above"),
        ([], r"The text has 0 tokens"),
    ],
)
def test_what_is_no_row_of_ids_is_refused(ids, problem):
    with pytest.raises(DataError, match=problem):
        SlidingWindowDataset(ids, 5, 5)


def test_a_text_without_a_batch_is_refused():
    with pytest.raises(DataError, match=r"3 windows, too few .*micro_batch_size=4\..*drop_last=False"):
        create_dataloader(range(13), context_length=4)
    assert len(create_dataloader(range(13), context_length=4, drop_last=False)) == 1
    assert len(create_dataloader(range(17), context_length=4)) == 1


def test_settings_that_make_no_sense_are_refused():
    for setting in ({"micro_batch_size": 0}, {"n_workers": -1}, {"context_length": 2.5}, {"stride": 1.5}):
        with pytest.raises(ConfigError, match="{}={}".format(*next(iter(setting.items())))):
            create_dataloader(range(99), **({"context_length": 7} | setting))


def test_too_short_a_text_and_a_stride_of_zero_are_errors():
    with pytest.raises(DataError, match=r"has 7 tokens; context_length=7 needs at least 8"):
        SlidingWindowDataset(range(7), 7, 7)
    with pytest.raises(ConfigError, match="stride=0"):
        create_dataloader(range(99), context_length=7, stride=0)
