"""Backpropagation by hand: what autograd computes, and what finite differences measure."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glassgpt.by_hand import backward
from glassgpt.model import ModelConfig
from glassgpt.model.attention import Surroundings
from glassgpt.model.block import Block

T, H, DH, WIDTH = 7, 3, 5, 11
D = H * DH

# Both sides compute in float64; rounding stays below 1e-12, a wrong formula is off by 1e-2 and more.
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture
def block():
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=1, context_length=T, d_model=D, n_layers=1, n_heads=H, d_ff=WIDTH)
    block = Block(config, layer=0).double()
    for parameter in block.parameters():  # norms and biases too: what is 1 or 0 hides mistakes
        torch.nn.init.normal_(parameter, std=0.5)
    return block


@pytest.fixture
def x():
    return torch.randn(T, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def grad():
    return torch.randn(T, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def weights_of(block):
    return {name: parameter.detach().numpy() for name, parameter in block.named_parameters()}


def test_the_forward_pass_is_the_blocks(block, x):
    theirs = block(x[None], Surroundings(None, None, None))[0]
    mine = backward.block(x.numpy(), weights_of(block), n_heads=H)["out"]
    np.testing.assert_allclose(mine, theirs.detach().numpy(), **EXACT)


def test_every_gradient_equals_autograds(block, x, grad):
    x.requires_grad_()
    (block(x[None], Surroundings(None, None, None))[0] * grad).sum().backward()

    grad_x, grads = backward.block_backward(grad.numpy(), x.detach().numpy(), weights_of(block), n_heads=H)

    np.testing.assert_allclose(grad_x, x.grad.numpy(), **EXACT)
    assert grads.keys() == dict(block.named_parameters()).keys()
    for name, parameter in block.named_parameters():
        np.testing.assert_allclose(grads[name], parameter.grad.numpy(), err_msg=name, **EXACT)


def test_every_gradient_is_what_a_small_step_changes(block, x, grad):
    weights, x, grad = weights_of(block), x.numpy(), grad.numpy()
    grad_x, grads = backward.block_backward(grad, x, weights, n_heads=H)
    generator = np.random.default_rng(0)
    for name, gradient in {"x": grad_x, **grads}.items():
        array = x if name == "x" else weights[name]
        place = tuple(generator.integers(array.shape))
        before, losses = array[place], []
        for step in (1e-5, -1e-5):
            array[place] = before + step
            losses.append((backward.block(x, weights, n_heads=H)["out"] * grad).sum())
        array[place] = before
        # The error of a central difference falls with step², to about 1e-9 here.
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(gradient[place], rel=1e-6, abs=1e-6), name


def test_a_gradient_that_is_equal_for_all_scores_passes_no_softmax():
    p = backward.softmax(np.array([[0.3, -1.0, 2.0]]))
    np.testing.assert_allclose(backward.softmax_backward(np.ones_like(p), p), 0, atol=1e-15)


def test_a_norm_passes_nothing_back_along_a_shift_or_a_stretch():
    x, grad = np.random.default_rng(0).normal(size=(2, 3, 13))
    back, _, _ = backward.layer_norm_backward(grad, x, np.ones(13), eps=0.0)
    np.testing.assert_allclose(back.sum(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose((back * x).sum(axis=-1), 0, atol=1e-12)


def test_gelu_is_the_one_of_gpt2(x):
    theirs = F.gelu(x, approximate="tanh")
    np.testing.assert_allclose(backward.gelu(x.numpy()), theirs.numpy(), **EXACT)
