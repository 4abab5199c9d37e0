"""Dropout's arithmetic on a CPU, which is our own, held to what the paper asks of it."""

import pytest
import torch
import torch.nn.functional as F

from glassgpt.model import attention
from glassgpt.model.dropout import Dropout, dropout
from tests.alone import run_alone


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_of_p_is_zero_and_the_rest_makes_up_for_it(p):
    torch.manual_seed(0)
    x = torch.randn(1000, 1000, dtype=torch.float64)
    y = dropout(x, p)
    is_zero = y == 0
    # five deviations of a million draws, and half a step of 2⁻¹⁶
    assert is_zero.double().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p)) ** 0.5 / 1000 + 2**-17)
    torch.testing.assert_close(y[~is_zero], x[~is_zero] / (1 - p), rtol=2**-12, atol=0)


def test_every_number_has_the_same_chance_and_none_tells_of_another():
    torch.manual_seed(0)
    kept = dropout(torch.ones(4_000_000), 0.3).view(-1, 8) > 0  # four come from one draw
    torch.testing.assert_close(
        kept.double().mean(0), torch.full((8,), 0.7, dtype=torch.double), atol=0.004, rtol=0
    )
    correlated = torch.corrcoef(kept.double().T).fill_diagonal_(0)
    assert correlated.abs().max() < 0.008  # of 500,000 rows: five deviations


@pytest.mark.parametrize("p", [0.0, 2**-18])
def test_a_chance_of_nothing_changes_nothing(p):
    x = torch.randn(7, 3)
    assert torch.equal(dropout(x, p), x)


def test_all_or_an_impossible_share():
    assert not dropout(torch.ones(1000, 1000), 1.0).any()
    for p in (-0.1, 1.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            dropout(torch.ones(3), p)


def test_nearly_everything_may_be_left_out():
    y = dropout(torch.ones(1000, 1000), 1 - 2**-20)
    assert torch.isfinite(y).all()
    assert 0 < y.count_nonzero() < 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (5, 1, 3), (4, 16)])
def test_any_shape_and_type(shape, dtype):
    y = dropout(torch.ones(shape, dtype=dtype), 0.5)
    assert (y.shape, y.dtype) == (shape, dtype)
    assert set(y.unique().tolist()) <= {0, 2}


def test_gradients_pass_where_numbers_did():
    x = torch.randn(6, 7).T.requires_grad_()  # does not lie in order
    y = dropout(x, 0.4)
    (2 * y).sum().backward()
    factor = torch.where(y == 0, 0, 65536 / (65536 - round(0.4 * 65536)))
    torch.testing.assert_close(y.detach(), x.detach() * factor)
    torch.testing.assert_close(x.grad, 2 * factor)


def test_the_seed_decides_and_threads_do_not():
    def drawn(n_threads: int) -> torch.Tensor:
        torch.set_num_threads(n_threads)
        torch.manual_seed(4)
        return dropout(torch.ones(300, 1000), 0.3)

    assert torch.equal(drawn(1), drawn(2))
    assert not torch.equal(dropout(torch.ones(100), 0.5), dropout(torch.ones(100), 0.5))


def test_a_module_drops_in_training_only():
    module, x = Dropout(0.5), torch.ones(100)
    assert 0 < module(x).count_nonzero() < 100
    assert module.eval()(x) is x


COMPILING = """
import torch
from glassgpt.model.dropout import dropout
compiled = torch.compile(lambda x: dropout(x, 0.3), backend="eager", fullgraph=True)
print(round((compiled(torch.ones(1000, 1000)) == 0).float().mean().item(), 2))
"""


def test_a_model_that_is_compiled_is_not_interrupted_by_it():
    assert run_alone(COMPILING) == "0.3\n"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n_kv_heads", [4, 2])
@pytest.mark.parametrize("n_tokens", [5, 33])  # of heads of 8: above four times that, other ways are taken
def test_attention_drops_weights_and_not_what_they_mix(dtype, n_kv_heads, n_tokens, monkeypatch):
    """With every weight doubled in place of a draw, what comes out has doubled."""
    torch.manual_seed(0)
    asked = []
    monkeypatch.setattr(
        attention, "dropout", lambda weights, p: (asked.append((weights.shape, p)), 2 * weights)[1]
    )
    q = torch.randn(2, 4, n_tokens, 8, dtype=dtype)
    k, v = (torch.randn(2, n_kv_heads, n_tokens, 8, dtype=dtype) for _ in range(2))
    mixed = attention._attend(q, k, v, None, 0.25)
    assert asked == [((8, n_tokens, n_tokens), 0.25)]
    expected = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), is_causal=True, enable_gqa=True
    )
    atol = 0.05 if dtype == torch.bfloat16 else 1e-12
    torch.testing.assert_close(mixed.double(), 2 * expected, rtol=0.02 if atol == 0.05 else 0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_attention_in_a_window_has_dropout_too(dtype):
    """PyTorch's own: on average it changes nothing."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 9, 8, dtype=dtype).unbind()
    mask = torch.ones(9, 9, dtype=torch.bool).tril().triu(-3)
    draws = torch.stack([attention._attend(q, k, v, mask, 0.25) for _ in range(2000)]).double()
    assert draws.std(dim=0).min() > 0
    expected = attention._attend(q, k, v, mask, 0.0).double()
    torch.testing.assert_close(draws.mean(dim=0), expected, rtol=0, atol=0.15)
