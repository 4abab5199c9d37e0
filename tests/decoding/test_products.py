"""Products by oneDNN: the same numbers, and only where it may compute them."""

import pytest
import torch
import torch.nn.functional as F

from glassgpt.decoding import OneDNNProducts
from glassgpt.generation import SamplingConfig, generate
from glassgpt.model import GPT, gpt2

ONEDNN = "mkldnn::_linear_pointwise"

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="needs a PyTorch with oneDNN, as its own builds have"
)


def operations(run) -> list[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run()
    return [event.name for event in seen.events()]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(907, 768), (3, 311, 768), (1, 97, 768)])
def test_a_large_layer_gives_the_same_numbers_and_goes_to_onednn(shape, bias):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(768, 773, bias=bias), torch.randn(shape)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    with torch.no_grad(), OneDNNProducts():
        y = layer(x)
        assert ONEDNN in operations(lambda: layer(x))
    assert y.shape == (*shape[:-1], 773)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-5)  # 768 products near 1/28, in float32


def test_strides_do_not_matter():
    torch.manual_seed(0)
    x, weight = torch.randn(768, 907).T, torch.randn(773, 1536)[:, ::2]
    exact = F.linear(x.double(), weight.double())
    with torch.no_grad(), OneDNNProducts():
        assert ONEDNN in operations(lambda: F.linear(x, weight))
        torch.testing.assert_close(F.linear(x, weight).double(), exact, rtol=0, atol=1e-3)


def test_what_onednn_cannot_or_should_not_do_is_left_to_pytorch():
    def linear(dtype=torch.float32, n_rows=907):
        layer = torch.nn.Linear(768, 768, dtype=dtype)
        return layer(torch.ones(n_rows, 768, dtype=dtype))

    with OneDNNProducts():
        assert ONEDNN not in operations(linear)  # it would have no gradient
        linear().sum().backward()
        with torch.no_grad():
            assert ONEDNN in operations(linear)
            assert ONEDNN not in operations(lambda: linear(dtype=torch.float64))
            assert ONEDNN not in operations(lambda: linear(n_rows=1))
            with torch.autocast("cpu", torch.bfloat16):
                assert ONEDNN not in operations(linear)
                assert linear().dtype == torch.bfloat16
            torch._C._set_mkldnn_enabled(False)  # as torch.backends.mkldnn.flags does, but for a warning
            try:
                assert ONEDNN not in operations(linear)
            finally:
                torch._C._set_mkldnn_enabled(True)
    with torch.no_grad():
        assert ONEDNN not in operations(linear)  # outside nothing has changed


class Doubled(torch.Tensor):
    """A weight with a product of its own, as libraries for quantisation have them."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs)
        return result * 2 if function is F.linear else result


def test_a_tensor_of_another_class_keeps_its_own_product():
    x, weight = torch.ones(907, 768), torch.full((768, 768), 0.5)
    with torch.no_grad(), OneDNNProducts():
        assert (F.linear(x, weight.as_subclass(Doubled)) == 768).all()
        assert (F.linear(x, weight) == 384).all()


@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_of_gpt2_are_read_by_onednn_and_continued_as_before(use_cache, monkeypatch):
    torch.manual_seed(0)
    model = GPT(gpt2("124M"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # initial weights would repeat one token
    prompt, sampling = (
        list(range(100, 1000, 9)),
        SamplingConfig(max_new_tokens=2, temperature=0.0, use_cache=use_cache),
    )
    written: list[list[int]] = []
    assert ONEDNN in operations(lambda: written.append(list(generate(model, prompt, sampling))))
    monkeypatch.setattr("glassgpt.decoding.products._is_for_onednn", lambda *_: False)
    assert ONEDNN not in operations(lambda: written.append(list(generate(model, prompt, sampling))))
    assert written[0] == written[1]
