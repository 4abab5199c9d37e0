"""A run so small that it takes a second, on a text that it goes through more than once."""

import pytest

from glassgpt.model.config import ModelConfig
from glassgpt.training.config import ScheduleConfig, TrainConfig

TEXT = "".join(f"{n} green bottles hanging on the wall; " for n in range(17))


@pytest.fixture
def tiny_config(tmp_path):
    """Make a configuration: `tiny_config(steps=3)`. 115 windows, 6 a step: the epoch wraps at step 20."""
    text = tmp_path / "bottles.txt"
    text.write_text(TEXT, encoding="utf-8")

    def make(**changes):
        settings = {
            "data": str(text),
            "tokenizer": "char",
            "out": tmp_path / "run",
            "model": ModelConfig(context_length=5, d_model=12, n_layers=2, n_heads=3, dropout=0.1),
            "steps": 23,
            "micro_batch_size": 3,
            "tokens_per_step": 30,
            "schedule": ScheduleConfig(warmup_steps=2),
            "log_every_steps": 1,
            "eval_every_steps": 4,
            "eval_windows": 7,
            "sample_every_steps": 5,
            "sample_tokens": 3,
            "checkpoint_every_steps": 7,
            "keep_checkpoints": 99,
            "device": "cpu",
        }
        return TrainConfig(**(settings | changes))

    return make


@pytest.fixture
def silent():
    """Somewhere to put what a run says."""
    return lambda line: None
