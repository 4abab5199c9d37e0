"""GELU and its gradient in C++: PyTorch's numbers, and only where they may be computed so."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from glassgpt.decoding import DifferentiableGELU, gelu
from tests.decoding.models import CountedLibrary, needs_library

pytestmark = needs_library


@pytest.fixture
def calls(monkeypatch):
    """The names of the library's functions that were called."""
    names = []
    monkeypatch.setattr(gelu, "library", lambda: CountedLibrary(names))
    monkeypatch.setattr(gelu, "is_x86", lambda: True)
    monkeypatch.setattr(gelu, "_LEAST_NUMBERS", 0)
    return names


def exact(x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().double().requires_grad_()
    y = F.gelu(x, approximate="tanh")
    y.backward(grad.double())
    return y.detach(), x.grad


def ours(x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    with DifferentiableGELU():
        y = F.gelu(x, approximate="tanh")
    y.backward(grad)
    return y.detach(), x.grad


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, {"rtol": 1e-5, "atol": 1e-6}), (torch.bfloat16, {"rtol": 2**-8, "atol": 1e-6})],
)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 33, 4096])
def test_values_and_gradients_are_the_exact_ones_but_for_rounding(n, dtype, tolerance, calls):
    torch.manual_seed(n)
    x, grad = ((4 * torch.randn(n)).to(dtype) for _ in range(2))
    results = ours(x, grad)
    assert all(result.dtype == dtype for result in results)
    for result, expected in zip(results, exact(x, grad), strict=True):
        torch.testing.assert_close(result.double(), expected, **tolerance)
    suffix = "_bfloat16" if dtype == torch.bfloat16 else ""
    assert calls == [f"glassgpt_gelu{suffix}", f"glassgpt_gelu_backward{suffix}"]


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_far_from_zero_it_is_nothing_or_all_and_nan_stays(dtype, calls):
    x = torch.tensor([-1e30, -100.0, -31.0, 0.0, 31.0, 100.0, 1e30, torch.nan], dtype=dtype).repeat(5)
    y, slope = ours(x, torch.ones_like(x))
    expected = x.where(~(x < 0), 0)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6, equal_nan=True)
    expected = torch.tensor([0, 0, 0, 0.5, 1, 1, 1, torch.nan], dtype=dtype).repeat(5)
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-6, equal_nan=True)


def test_bfloat16_rounds_to_the_nearest_and_ties_to_even(calls):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    x = x[x.isfinite()]
    y, _ = ours(x, torch.ones_like(x))
    with DifferentiableGELU():
        nearest = F.gelu(x.float(), approximate="tanh").bfloat16()
    assert torch.equal(y, nearest)


def test_a_gradient_that_lies_otherwise_is_taken(calls):
    x, grad = torch.randn(64, 48), torch.randn(48, 64).T
    torch.testing.assert_close(ours(x, grad)[1].double(), exact(x, grad)[1], rtol=1e-5, atol=1e-6)


def test_a_second_derivative_is_refused(calls):
    x = torch.randn(64, requires_grad=True)
    with DifferentiableGELU():
        y = F.gelu(x, approximate="tanh").sum()
    with pytest.raises(RuntimeError, match="differentiated only once"):
        torch.autograd.grad(y, x, create_graph=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_all_else_is_left_to_pytorch(calls, monkeypatch):
    x = torch.randn(64, 64)
    with DifferentiableGELU():
        F.gelu(x)
        F.gelu(x.T, approximate="tanh")
        F.gelu(x.double(), approximate="tanh")
        F.gelu(x.half(), approximate="tanh")
        F.gelu(x.to("meta"), approximate="tanh")
        F.gelu(x[:0], approximate="tanh")
        torch.vmap(lambda row: F.gelu(row, approximate="tanh"))(x)
        with torch.no_grad(), forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            assert forward_ad.unpack_dual(F.gelu(dual, approximate="tanh")).tangent is not None
        monkeypatch.setattr(gelu, "_LEAST_NUMBERS", 2**14)
        F.gelu(x, approximate="tanh")
        monkeypatch.setattr(gelu, "_LEAST_NUMBERS", 0)
        monkeypatch.setattr(gelu, "is_x86", lambda: False)
        F.gelu(x, approximate="tanh")
        monkeypatch.setattr(gelu, "is_x86", lambda: True)
        monkeypatch.setenv("GLASSGPT_NATIVE", "0")
        F.gelu(x, approximate="tanh")
        assert calls == []
        monkeypatch.delenv("GLASSGPT_NATIVE")
        F.gelu(input=x, approximate="tanh")
        assert calls == ["glassgpt_gelu"]
