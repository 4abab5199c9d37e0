import random
from types import SimpleNamespace

import pytest
import torch

from glassgpt.decoding import NativeStep, build, native
from glassgpt.decoding.faster import FasterOfTwo
from glassgpt.model import KVCache
from tests.decoding.models import a_model, needs_library, needs_packing


def share_of_first(
    ways: FasterOfTwo, n_uses: int, first: float, second: float, moment=lambda use: 1.0
) -> float:
    """How often the first way is used, where they take so many seconds in such moments, give or take 5%."""
    n_first = 0
    for use in range(n_uses):
        is_first = ways.takes_first()
        n_first += is_first
        ways.took(is_first, (first if is_first else second) * moment(use) * random.uniform(0.95, 1.05))
    return n_first / n_uses


@pytest.fixture(autouse=True)
def same_noise():
    random.seed(7)


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.2), (1.2, 1.0)])
def test_the_faster_way_is_used_but_for_a_few_trials(first, second):
    ways = FasterOfTwo()
    share = share_of_first(ways, 1000, first, second)
    assert abs(share - (first < second)) < 0.025
    assert share not in (0, 1)


@pytest.mark.parametrize("second", [0.5, 2.0])
def test_at_first_both_are_used_in_turns_and_the_first_one_first(second):
    ways, used = FasterOfTwo(), []
    for _ in range(12):
        used.append(ways.takes_first())
        ways.took(used[-1], 1.0 if used[-1] else second)
    assert used == [True, False, True, False, True, False] + [second > 1] * 6


def test_a_way_that_becomes_the_faster_one_is_found():
    ways = FasterOfTwo()
    assert share_of_first(ways, 300, 1.0, 1.2) > 0.95
    share_of_first(ways, 200, 1.2, 1.0)
    assert share_of_first(ways, 300, 1.2, 1.0) < 0.05


def test_moments_that_are_slow_for_both_decide_nothing():
    ways = FasterOfTwo()
    share_of_first(ways, 100, 1.0, 1.1)
    for length in (3, 17, 50, 64):  # a machine that is half as fast, for so many uses
        assert share_of_first(ways, 2000, 1.0, 1.1, lambda use, length=length: 1 + use // length % 2) > 0.9


@pytest.mark.parametrize("is_trial", [False, True])
def test_one_time_that_is_far_too_long_decides_nothing(is_trial):
    ways = FasterOfTwo()
    share_of_first(ways, 100, 1.0, 1.1)
    while not ways.takes_first():
        ways.took(False, 1.1)
    while ways.takes_first():  # the next use is a trial of the second way
        ways.took(True, 1.0)
    if is_trial:
        ways.took(False, 1e-3)
    else:
        ways.took(True, 1e3)
        ways.took(False, 1.1)
    assert share_of_first(ways, 300, 1.0, 1.1) > 0.95


class SlowedLibrary:
    """The C++ library, whose step takes two seconds of `clock` with copies for so many rows, and without for
    others, and else one; it notes how many rows there were, and whether copies were read."""

    def __init__(self, rows_slow_with_copies: list[int]) -> None:
        self.slow, self.used, self.clock = rows_slow_with_copies, [], 0.0

    def __getattr__(self, name: str):
        return getattr(build.library(), name)

    def glassgpt_step(self, model, step, n_threads):
        n_rows, with_copies = step._obj.n_rows, bool(step._obj.reads_copies)
        self.used.append((n_rows, with_copies))
        self.clock += 2 if with_copies == (n_rows in self.slow) else 1
        return build.library().glassgpt_step(model, step, n_threads)


@needs_library
@needs_packing
@pytest.mark.parametrize("slow", [[], [1], [2], [1, 2]])
def test_copies_are_read_where_that_is_faster_for_so_many_rows(slow, monkeypatch):
    model, library = a_model(d_model=128, d_ff=512), SlowedLibrary(slow)
    step = NativeStep(model, 1000)
    monkeypatch.setattr(native, "library", lambda: library)
    monkeypatch.setattr(native, "time", SimpleNamespace(perf_counter=lambda: library.clock))
    caches = [KVCache(model.config, n_rows, 40) for n_rows in (1, 2, 3)]
    for _ in range(40):
        for n_rows, cache in enumerate(caches, start=1):
            step.logits([7] * n_rows, cache)
    for n_rows in (1, 2, 3):
        with_copies = [copies for rows, copies in library.used if rows == n_rows]
        assert with_copies[:6] == [n_rows < 3, False] * 3
        assert with_copies[6:] == [n_rows < 3 and n_rows not in slow] * 34


@needs_library
@needs_packing
def test_copies_that_are_not_faster_are_not_read(monkeypatch):
    model = a_model(d_model=128, d_ff=512, feedforward="swiglu")
    step = NativeStep(model, 1000)
    assert len(step.packed) == 5 * model.config.n_layers + 1
    for copy in step.packed.values():
        copy.zero_()
    for reads_copies in (True, False):
        monkeypatch.setattr(FasterOfTwo, "takes_first", lambda self, way=reads_copies: way)
        caches = [KVCache(model.config, 1, 1) for _ in range(2)]
        one, other = (
            s.logits([7], cache) for s, cache in zip((step, NativeStep(model)), caches, strict=True)
        )
        assert torch.equal(one, other) != reads_copies
