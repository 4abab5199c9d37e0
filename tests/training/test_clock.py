"""A run's time, that of earlier starts included, and its speed, what is not training left out."""

import pytest

from glassgpt.training import clock as clock_module
from glassgpt.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """The time, to be set: `now[0] = 5.0`."""
    seconds = [1000.0]
    monkeypatch.setattr(clock_module.time, "monotonic", lambda: seconds[0])
    return seconds


def test_the_seconds_of_earlier_starts_count(now):
    clock = Clock(70.0, None)
    assert clock.seconds() == 70.0
    now[0] += 5
    assert clock.seconds() == 75.0


def test_the_limit_is_for_this_start_alone(now):
    clock = Clock(7000.0, max_minutes=2)
    now[0] += 119
    assert not clock.is_over()
    now[0] += 1
    assert clock.is_over()


def test_without_a_limit_it_is_never_over(now):
    clock = Clock(0.0, None)
    now[0] += 1e9
    assert not clock.is_over()


def test_the_speed_is_that_of_training_since_it_was_last_asked(now):
    clock = Clock(0.0, None)
    clock.count(30)
    now[0] += 3
    assert clock.tokens_per_second() == 10.0
    clock.count(50)
    now[0] += 2
    with clock.paused():
        now[0] += 100
    assert clock.tokens_per_second() == 25.0
