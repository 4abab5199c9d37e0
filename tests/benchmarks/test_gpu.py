"""The rows for a GPU, as far as a machine without one can tell."""

from pathlib import Path

import pytest
import torch

from benchmarks import gpu, limits
from benchmarks.gpu import ROWS, bytes_read
from benchmarks.rows import Setting
from benchmarks.running import why_not
from benchmarks.texts import Task


def test_without_a_gpu_each_row_says_what_it_needs():
    assert {why_not(row, has_gpu=False) for row in ROWS} == {"needs a CUDA GPU, and PyTorch finds none here"}
    assert {why_not(row, has_gpu=True) for row in ROWS} == {None}


@pytest.mark.parametrize("n_rows", [1, 256])
def test_a_token_reads_its_share_of_the_weights_and_its_own_keys_and_values(n_rows):
    weights = 2 * (50_257 * 768 + 12 * (12 * 768**2 + 13 * 768) + 2 * 768)
    keys_and_values = 2 * 2 * 12 * 768 * (64 + 192 / 2)
    task = Task(n_prompts=n_rows, prompt_tokens=64, new_tokens=192)
    assert bytes_read(task).amount == weights / n_rows + keys_and_values


@pytest.mark.parametrize(("free", "n_bytes"), [(2**20, 2**18), (2**40, 2**20)])
def test_reading_is_measured_on_a_quarter_of_a_small_gpus_memory_at_most(free, n_bytes, monkeypatch):
    ones, read = torch.ones, []
    monkeypatch.setattr(torch, "ones", lambda n, device: ones(n))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 2**40))
    monkeypatch.setattr(limits, "best", lambda run, *_: read.append(run()) or 0.5)
    assert limits.cuda_read_limit(20) == 2 * n_bytes
    assert [total.item() for total in read] == [n_bytes / 4]


@pytest.mark.parametrize(("quick", "n_measured"), [(False, gpu.MEASUREMENTS), (True, 1)])
def test_steps_are_waited_for_at_the_end_of_each_measurement_and_compiling_before_the_first(
    quick, n_measured, monkeypatch
):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("wait"))
    speeds = gpu.group_speeds(lambda: calls.append("step"), 2, 7, Setting(Path(), quick=quick))
    assert len(speeds) == n_measured
    assert calls == [*["step"] * gpu.WARMUP_STEPS, "wait", *["step", "step", "wait"] * n_measured]


EACH_SIDE = """
import os
from pathlib import Path

from benchmarks import gpu, training
from benchmarks.rows import Setting
from glassgpt.model import ModelConfig
from glassgpt.training import precision
from tests.stand_in_gpu import COMPILED

if COMPILED in os.environ:  # by the stand-in, which compiles without Triton
    precision._missing_for_compiling = lambda device: None
setting = Setting(Path(), quick=True)
config = ModelConfig(vocab_size=137, context_length=16, d_model=24, n_layers=2, n_heads=3)
ours, theirs = (train(config, 2, 16, 1, setting) for train in (gpu.train_ours, gpu.train_theirs))
check = training.check_losses(setting, {"ours": ours.output, "transformers": theirs.output})
assert check.agrees, check.how
assert len(ours.values) == len(theirs.values) == 1
"""


def test_both_sides_train_the_same_model(python_with_gpu):
    pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
    python_with_gpu(EACH_SIDE)
