"""Guesses that are read in the same step change when a token comes, and never which."""

import dataclasses
import itertools
from collections.abc import Iterable
from types import SimpleNamespace

import pytest
import torch

from glassgpt.decoding import NativeStep, quantize
from glassgpt.generation import SamplingConfig, generate, guessing, window
from glassgpt.generation.drawing import Drawer
from glassgpt.generation.guessing import Guesser, _Cost
from tests.decoding.models import a_model, needs_library

VERSE = [11, 12, 13, 14, 15, 16]


def guessed(text: list[int], most: int = 100) -> list[int]:
    return Guesser(text).guess(most)


def test_what_followed_the_same_two_tokens_is_guessed():
    assert guessed([1, 2, 3, 4, 1, 2]) == [3]
    assert guessed([1, 2, 3, 4, 9, 2]) == []
    assert guessed([1, 2, 3, 1, 2, 7, 1, 2]) == [7]  # when they last stood there


def test_a_longer_run_is_believed_before_a_shorter_one():
    assert guessed([1, 2, 3, 4, 5, 3, 4, 6, 1, 2, 3, 4]) == [5]
    assert guessed([1, 2, 3, 4, 5, 3, 4, 6, 9, 2, 3, 4]) == [6]


@pytest.mark.parametrize("text", [[], [1], [1, 2], [1, 2, 3, 4, 5]])
def test_nothing_is_guessed_where_nothing_repeats(text):
    assert guessed(text) == []


def fed(guesser: Guesser, text: list[int]) -> list[int]:
    """How many tokens were guessed before each of `text`."""
    counts = []
    for token_id in text:
        counts.append(len(guesser.guess(100)))
        guesser.append(token_id)
    return counts


def test_guesses_grow_while_they_are_right_and_go_round_in_a_circle():
    guesser = Guesser([1, 2, 3])
    counts = fed(guesser, [1, 2, 3] * 12)
    assert counts[:2] == [0, 0]
    assert counts[2] == 1
    assert counts[-1] == 7
    assert guesser.guess(100) == [1, 2, 3, 1, 2, 3, 1]
    assert guesser.guess(2) == [1, 2]
    assert guesser.guess(0) == []


def test_wrong_guesses_end_guessing_and_it_begins_again_by_itself():
    guesser = Guesser([])
    fed(guesser, [token_id for i in range(40) for token_id in (1, 2, 100 + i)])  # behind 1 2 always another
    assert guesser.guess(100) == []
    guesser.append(1)
    guesser.append(2)
    assert guesser.length == 2
    assert guesser.guess(100) == []  # found, and not believed
    assert fed(guesser, [7, 1, 2] * 12)[-1] == 7


def test_of_a_very_long_text_the_older_half_is_forgotten(monkeypatch):
    monkeypatch.setattr(guessing, "_MOST_KEPT", 20)
    guesser = Guesser([1, 2, 3, *range(100, 117)])
    guesser.append(1)  # the 21st
    assert guesser.text == [*range(107, 117), 1]
    guesser.append(2)
    assert guesser.guess(9) == []
    for token_id in (3, 4, 1, 2):
        guesser.append(token_id)
    assert guesser.guess(9) == [3]
    fed(guesser, [5, 6] * 500)
    assert len(guesser.text) <= 20
    assert guesser.guess(4) == [5, 6, 5, 6]


def told(costs: Iterable[float]) -> Guesser:
    """A guesser that was told, for each of `costs`, of a step with two guesses between some without."""
    guesser = Guesser(VERSE * 3)
    for cost in costs:
        for n_guesses, steps in [(0, 1), (2, 1 + 2 * cost), (0, 1)]:
            guesser.took(n_guesses, 0.004 * steps)
    return guesser


def test_the_less_a_guess_costs_the_more_are_read():
    counts = []
    for cost in (-0.3, 0.05, 0.1, 0.3, 0.6):
        guesser = told([cost] * 9)
        cost = max(cost, 0.02)  # fewer are not believed
        # With n guesses a step brings 1 + 1/2 + … + 1/2ⁿ tokens in 1 + n · cost of its time.
        speeds = [(2 - 0.5**n) / (1 + n * cost) for n in range(8)]
        counts.append(len(guesser.guess(100)))
        assert counts[-1] == speeds.index(max(speeds))
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 5


def test_the_cost_is_that_of_a_few_steps_of_which_some_may_lie():
    assert told([0.1, 0.1, 9.0, 0.1, -1.0, 0.1, 8.0, 0.1, 0.1]).cost.of_one == pytest.approx(0.1)
    assert told([0.6] * 9 + [0.1] * 9).cost.of_one == pytest.approx(0.1)  # another moment
    for costs in ([], [9.0], [-1.0], [9.0, 9.0]):  # not by one or two
        assert told(costs).cost.of_one == 0.35


def test_what_guesses_cost_the_step_behind_them_counts_with_them():
    guesser = told([0.1] * 9)
    for _ in range(9):
        for n_guesses, seconds in [(0, 1.0), (0, 1.0), (3, 1.6), (1, 1.2), (0, 2.0)]:
            guesser.took(n_guesses, seconds)
    assert guesser.cost.of_one == pytest.approx((1.6 + 1.2 + 2.0 - 3) / 4)


@pytest.mark.parametrize(("n_steps", "expected"), [(15, 0.3), (16, 0.1)])
def test_only_a_step_without_guesses_of_just_before_is_compared_with(n_steps, expected):
    guesser = told([0.1] * 9)
    for _ in range(9):
        guesser.took(0, 1.0)
        for _ in range(n_steps):
            guesser.took(1, 1.3)
        guesser.took(0, 1.0)
    assert guesser.cost.of_one == pytest.approx(expected)


def test_where_every_other_step_reads_guesses_one_without_is_not_compared_with_for_long():
    guesser = told([0.1] * 9)
    for speed in (1.0, 9.0):  # the machine becomes faster
        for _ in range(150):
            guesser.took(1, 1.2 / speed)
            guesser.took(0, 1.0 / speed)
        assert guesser.cost.of_one == pytest.approx(0.2)


def test_of_many_times_that_guesses_cost_too_much_one_is_read():
    guesser = told([2.0] * 9)
    counts = [len(guesser.guess(100)) for _ in range(128)]
    assert counts == ([0] * 63 + [1]) * 2
    assert all(guesser.guess(0) == [] for _ in range(128))


def spied(monkeypatch, times_count: bool = False) -> list[int]:
    """How many tokens each call of the C++ step reads, from now on.

    Unless `times_count`, a guess costs what it does at first: steps of these models take microseconds, and
    are no measure.
    """
    if not times_count:
        monkeypatch.setattr(_Cost, "took", lambda *_: None)
    read, logits = [], NativeStep.logits

    def noted(step, token_ids, cache, n_new=1):
        read.append(n_new)
        return logits(step, token_ids, cache, n_new)

    monkeypatch.setattr(NativeStep, "logits", noted)
    return read


@needs_library
@pytest.mark.parametrize("to", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("positions", ["learned", "rope"])
@pytest.mark.parametrize("context_length", [23, 41])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"seed": 3, "temperature": 0.3},
        {"seed": 4, "temperature": 0.2, "repetition_penalty": 1.05, "top_p": 0.9},
    ],
    ids=["greedy", "drawn", "penalised"],
)
def test_the_tokens_are_the_same_and_come_in_fewer_steps(
    to, positions, context_length, settings, monkeypatch
):
    """Also where windows slide, and where what is drawn is not what was guessed."""
    model = a_model(positions=positions, context_length=context_length)
    model = model if to is None else quantize(model, to)
    sampling = SamplingConfig(max_new_tokens=100, **settings)
    plain = dataclasses.replace(sampling, speculate=False)
    read = spied(monkeypatch)

    def generated(settings: SamplingConfig) -> list[int]:
        read.clear()
        return list(generate(model, VERSE * 3, settings))

    expected = generated(plain)
    assert read == [1] * 100
    assert generated(sampling) == expected
    assert len(read) < 100
    assert sum(read) > 100  # what is more was guessed wrong


@needs_library
def test_every_logit_has_the_same_bits(monkeypatch):
    model = a_model(vocab_size=19)
    found, read = [], spied(monkeypatch)
    for speculate in (True, False):
        sampling = SamplingConfig(max_new_tokens=30, temperature=0.0, speculate=speculate)
        drawer = Drawer(model, [[3, 4, 5] * 3], sampling, 19)
        logits = []
        for _ in range(30):
            with torch.inference_mode():
                logits.append(drawer.reader.next_logits().clone())
            drawer.append([int(logits[-1].argmax())])
        found.append(torch.cat(logits))
    assert len(read) < 60
    assert torch.equal(*found)


@needs_library
@pytest.mark.parametrize("n_new", range(1, 13))
def test_nothing_is_read_for_tokens_that_nobody_wants(n_new, monkeypatch):
    """Where every guess is right, each token is read once, and none behind the last that is drawn."""
    drawer = Drawer(a_model(), [VERSE * 3], SamplingConfig(max_new_tokens=n_new), 53)
    read = spied(monkeypatch)
    for token_id in (VERSE * 2)[:n_new]:
        with torch.inference_mode():
            drawer.reader.next_logits()
        drawer.append([token_id])
    assert sum(read) == n_new
    assert len(read) < max(n_new, 2)


@needs_library
def test_guesses_that_were_read_and_not_drawn_are_forgotten(monkeypatch):
    """Whatever is drawn: here the reader is told to go on with tokens that nothing could have guessed."""
    model = a_model()
    drawer, plain = (
        Drawer(model, [VERSE * 3], SamplingConfig(max_new_tokens=20, speculate=speculate), 53)
        for speculate in (True, False)
    )
    read = spied(monkeypatch)
    for token_id in [*VERSE, 40, *VERSE[:3], 41, 42, *VERSE[:4]]:
        with torch.inference_mode():
            assert torch.equal(drawer.reader.next_logits(), plain.reader.next_logits())
        drawer.append([token_id])
        plain.append([token_id])
    assert max(read) > 2


@needs_library
@pytest.mark.parametrize("cost", [0.1, 0.6])
def test_the_guesser_is_told_how_long_each_step_took(cost, monkeypatch):
    read, calls, now = spied(monkeypatch, times_count=True), itertools.count(), [0.0]

    def perf_counter() -> float:
        if next(calls) % 2:  # behind a step
            now[0] += 1 + cost * (read[-1] - 1)
        return now[0]

    drawer = Drawer(a_model(), [VERSE * 3], SamplingConfig(max_new_tokens=200), 53)
    monkeypatch.setattr(window, "time", SimpleNamespace(perf_counter=perf_counter))
    for token_id in [token_id for i in range(20, 52, 3) for token_id in (*VERSE, i, i + 1, i + 2)]:
        with torch.inference_mode():
            drawer.reader.next_logits()
        drawer.append([token_id])
    assert drawer.reader.guesser.cost.of_one == pytest.approx(cost)


@needs_library
def test_only_the_tokens_of_a_single_prompt_are_guessed(monkeypatch):
    read = spied(monkeypatch)
    list(generate(a_model(), [VERSE * 3] * 2, SamplingConfig(max_new_tokens=20, temperature=0.0)))
    assert read == [1] * 20
