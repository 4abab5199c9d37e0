"""The held-out loss, and the simple ideas that it is compared with."""

import gzip
import math

import numpy as np
import pytest
import torch

from glassgpt.data import eval_windows
from glassgpt.errors import TokenizerError
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.training.evaluation import evaluate, gzip_bits_per_byte, unigram_bits_per_byte
from glassgpt.training.loss import bits_per_byte, cross_entropy
from glassgpt.training.precision import Execution

CPU = Execution(torch.device("cpu"), torch.float32, compiled=False)


def make_model():
    torch.manual_seed(0)
    return GPT(
        ModelConfig(vocab_size=13, context_length=5, d_model=12, n_layers=2, n_heads=3, dropout=0.5)
    ).double()


@pytest.mark.parametrize("micro_batch_size", [1, 3, 11, 50])
def test_the_held_out_loss_is_the_mean_over_all_tokens_however_they_are_batched(micro_batch_size):
    model = make_model()
    windows = eval_windows(np.arange(60) % 13, 5)  # 11 windows: 3 does not divide them
    model.eval()
    expected = cross_entropy(model(windows[0]), windows[1]).item()
    model.train()

    loss = evaluate(model, windows, micro_batch_size, CPU)

    assert loss == pytest.approx(expected, abs=1e-12)
    assert model.training  # as it was


def test_each_module_keeps_its_mode_even_when_the_evaluation_fails():
    model, windows = make_model().train(), eval_windows(np.arange(60) % 13, 5)
    model.blocks[1].eval()  # as when some layers are frozen
    before = [module.training for module in model.modules()]

    evaluate(model, windows, 3, CPU)
    assert [module.training for module in model.modules()] == before
    with pytest.raises(TokenizerError):
        evaluate(model, (windows[0] + 13, windows[1]), 3, CPU)
    assert [module.training for module in model.modules()] == before


def test_evaluation_leaves_no_gradients_and_no_random_numbers_behind():
    model = make_model()
    before = torch.get_rng_state()
    evaluate(model, eval_windows(np.arange(60) % 13, 5), 3, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gzip_is_measured_in_bits_for_a_byte():
    text = b"the quick brown fox " * 50
    assert gzip_bits_per_byte(text) == 8 * len(gzip.compress(text, 9)) / len(text)
    assert gzip_bits_per_byte(np.random.default_rng(0).bytes(10_000)) > 8  # noise cannot be compressed


def test_the_unigram_baseline_equals_a_loop():
    train, val = np.array([0, 0, 0, 1, 2]), np.array([0, 3, 1])
    chances = [4 / 9, 2 / 9, 2 / 9, 1 / 9]  # each count and one more, of 5 tokens and 4 more
    bits = -sum(math.log2(chances[token]) for token in [0, 3, 1])
    assert unigram_bits_per_byte(train, val, vocab_size=4, val_bytes=7) == pytest.approx(bits / 7)


def test_the_unigram_baseline_of_uniform_tokens_is_the_uniform_loss():
    tokens = np.arange(64).repeat(100)
    assert unigram_bits_per_byte(tokens, tokens, 64, 6400) == pytest.approx(
        bits_per_byte(math.log(64), 6400, 6400)
    )
