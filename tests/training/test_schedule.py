"""The learning rate goes up and down as its formula says."""

import math

import pytest
import torch

from glassgpt.training.config import OptimizerConfig, ScheduleConfig, TrainConfig
from glassgpt.training.schedule import learning_rate


def rates(steps, lr=2.0, **schedule):
    config = TrainConfig(steps=steps, optimizer=OptimizerConfig(lr=lr), schedule=ScheduleConfig(**schedule))
    return [learning_rate(step, config) for step in range(1, steps + 1)]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_warm_up_is_a_straight_line_from_zero(kind):
    assert rates(100, kind=kind, warmup_steps=4)[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_cosine_is_half_way_at_half_time_and_ends_at_the_lowest():
    lrs = rates(103, kind="cosine", warmup_steps=3, min_lr_ratio=0.1)
    assert lrs[3 + 50 - 1] == pytest.approx((2.0 + 0.2) / 2)
    assert lrs[-1] == pytest.approx(0.2)
    assert lrs[3:] == sorted(lrs[3:], reverse=True)


def test_cosine_equals_pytorchs():
    steps = 11
    ours = rates(steps, lr=1.0, kind="cosine", warmup_steps=0, min_lr_ratio=0.25)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=0.25)
    theirs = []
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        theirs.append(scheduler.get_last_lr()[0])
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_linear_falls_in_a_straight_line_to_the_lowest():
    lrs = rates(25, kind="linear", warmup_steps=5, min_lr_ratio=0.2)
    assert lrs[4:] == pytest.approx([2.0 - 1.6 * n / 20 for n in range(21)])


def test_constant_stays():
    assert set(rates(50, kind="constant", warmup_steps=5)[4:]) == {2.0}


def test_wsd_stays_then_falls_in_a_straight_line():
    lrs = rates(100, kind="wsd", warmup_steps=10, decay_fraction=0.2, min_lr_ratio=0.0)
    assert set(lrs[9:80]) == {2.0}
    assert lrs[80:] == pytest.approx([2.0 * (20 - n) / 20 for n in range(1, 21)])


def test_wsd_without_a_decay_stays():
    assert rates(10, kind="wsd", warmup_steps=1, decay_fraction=0.0)[-1] == 2.0


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warmup_steps", [None, 0, 1, 7, 50])
def test_every_step_of_every_short_run_has_a_rate(kind, steps, warmup_steps):
    lrs = rates(steps, kind=kind, warmup_steps=warmup_steps)
    assert all(0 < lr <= 2.0 and math.isfinite(lr) for lr in lrs)


def test_warm_up_is_a_twentieth_unless_told():
    lrs = rates(1000, kind="constant")
    assert lrs[48] < 2.0
    assert lrs[49] == 2.0
