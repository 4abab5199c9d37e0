"""The learning rate over a run: up in a straight line, then down as the schedule says. Chapter 06."""

import math

from glassgpt.training.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of optimizer step `step`, the first being 1.

    lr · share(step), with the highest lr at the end of the warm-up and lr · min_lr_ratio at the last step.
    """
    return config.optimizer.lr * share_of_highest(step, config)


def share_of_highest(step: int, config: TrainConfig) -> float:
    """The share of its highest learning rate that every parameter gets at optimizer step `step`.

    Warm-up: step / warmup_steps. Then, with p the part of the rest that is over and m = min_lr_ratio:
    cosine m + (1 − m)(1 + cos πp)/2 (arXiv:1608.03983); linear 1 − (1 − m) p; constant 1; wsd 1 until the
    last decay_fraction of all steps, then a line to m (arXiv:2404.06395 §4).
    """
    schedule, steps = config.schedule, config.steps
    warmup = max(1, steps // 20) if schedule.warmup_steps is None else schedule.warmup_steps
    if step <= warmup:
        return step / warmup
    lowest = schedule.min_lr_ratio
    progress = (step - warmup) / (steps - warmup)
    if schedule.kind == "cosine":
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2
    if schedule.kind == "linear":
        return 1 - (1 - lowest) * progress
    if schedule.kind == "wsd":
        decay_steps = round(steps * schedule.decay_fraction)
        falling = step - (steps - decay_steps)
        return 1.0 if falling <= 0 else 1 - (1 - lowest) * falling / decay_steps
    return 1.0
