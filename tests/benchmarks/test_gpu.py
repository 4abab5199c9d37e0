"""The rows for a GPU, as far as a machine without one can tell."""

import pytest

from benchmarks.gpu import ROWS, bytes_read
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
