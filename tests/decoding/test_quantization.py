import gc
import math
from pathlib import Path

import pytest
import torch

from glassgpt.decoding import quantize
from glassgpt.decoding.quantization import QuantizedLinear
from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.generation import SamplingConfig, generate
from glassgpt.generation.window import CachedWindowReader
from glassgpt.model import GPT, gpt2
from tests.decoding.models import a_model, needs_library


def test_int8_errs_by_half_a_step_of_its_row_at_most():
    model = a_model()
    weight = model.blocks[1].attention.qkv_proj.weight.detach()
    weight[3] *= 1000  # an outlier is the business of its own row
    weight[5] = 0
    small = quantize(model, "int8").blocks[1].attention.qkv_proj
    assert small.weight.dtype == torch.int8
    errors = (small.weight * small.scale[:, None] - weight).abs()
    assert (errors <= weight.abs().amax(dim=1, keepdim=True) / 127 / 2 * 1.0001).all()
    assert (small.weight.abs().amax(dim=1)[torch.arange(192) != 5] == 127).all()  # all of the range is used
    assert not small.weight[5].any()


def test_bfloat16_is_the_nearest_one():
    model = a_model()
    small = quantize(model, "bfloat16").blocks[0].feedforward.up_proj
    assert torch.equal(small.weight, model.blocks[0].feedforward.up_proj.weight.bfloat16())


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
@pytest.mark.parametrize("fields", [{}, {"tied_embeddings": False, "feedforward": "swiglu", "bias": False}])
@pytest.mark.parametrize("in_bfloat16", [True, False])
def test_the_small_model_is_the_large_one_with_rounded_matrices(to, fields, in_bfloat16, monkeypatch):
    monkeypatch.setattr("glassgpt.decoding.quantization.multiplies_bfloat16", lambda _: in_bfloat16)
    model = a_model(**fields)
    token_ids = torch.randint(53, (3, 17))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = quantize(model, to)
    with torch.no_grad():
        logits = small(token_ids)
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) or name == "token_embedding":
                rounded = small.get_submodule(name)
                scale = 1 if rounded.scale is None else rounded.scale[:, None]
                module.weight.copy_(rounded.weight.float() * scale)
        expected = model(token_ids)
    tolerance = 0.03 if in_bfloat16 else 1e-5  # products of 8 digits, or of 24
    assert (logits - expected).abs().max() / expected.abs().max() < tolerance
    model.load_state_dict(before)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
def test_a_small_layer_is_compiled_in_one_piece(to):
    linear = quantize(a_model(), to).blocks[0].feedforward.up_proj
    x = torch.randn(3, 64)
    compiled = torch.compile(linear, backend="eager", fullgraph=True)  # which takes no second piece
    assert torch.equal(compiled(x), linear(x))


def test_a_small_layer_multiplies_in_what_its_new_device_has(monkeypatch):
    linear = quantize(a_model(), "int8").blocks[0].feedforward.up_proj
    for has_bfloat16 in (True, False):
        monkeypatch.setattr(
            "glassgpt.decoding.quantization.multiplies_bfloat16", lambda _, answer=has_bfloat16: answer
        )
        assert linear.to("meta").in_bfloat16 == has_bfloat16


def test_quantising_leaves_the_model_alone():
    model = a_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = quantize(model, "int8")
    assert (model.training, small.training) == (True, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in small.parameters())


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
@pytest.mark.parametrize("fields", [{}, {"tied_embeddings": False, "norm": "rmsnorm"}])
def test_the_small_model_shares_no_memory_with_the_large_one(to, fields):
    model = a_model(**fields)
    small = quantize(model, to)
    shared = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    for name, tensor in small.state_dict().items():
        assert tensor.untyped_storage().data_ptr() not in shared, name


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc/self/maps")
def test_a_file_that_was_mapped_is_let_go(tmp_path):
    a_model().save_pretrained(tmp_path / "model")
    assert "model.safetensors" not in Path("/proc/self/maps").read_text()
    model = GPT.from_pretrained(tmp_path / "model")
    assert "model.safetensors" in Path("/proc/self/maps").read_text()
    model = quantize(model, "int8")
    gc.collect()
    assert "model.safetensors" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
@pytest.mark.parametrize("at_once", [1, 65, 1000])
def test_rows_are_rounded_alike_however_many_at_once(to, at_once, monkeypatch):
    model = a_model(d_ff=1024)
    for parameter in model.parameters():
        parameter.data *= torch.rand(len(parameter)).view(-1, *[1] * (parameter.dim() - 1))
    model.blocks[0].feedforward.down_proj.weight.data[3] = 0.5  # with the largest sum of magnitudes by far
    expected = quantize(model, to)
    monkeypatch.setattr("glassgpt.decoding.quantization._WEIGHTS_AT_ONCE", at_once)
    small = quantize(model, to)
    before = expected.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    for name, module in small.named_modules():
        if isinstance(module, QuantizedLinear):
            assert module.largest_activation == expected.get_submodule(name).largest_activation
    assert to == "bfloat16" or small.blocks[0].feedforward.down_proj.largest_activation < 2**15 - 1


@pytest.mark.parametrize(("to", "share"), [("bfloat16", 0.51), ("int8", 0.27)])
def test_memory_shrinks_as_promised_with_the_head_tied(to, share):
    model = GPT(gpt2("124M"))
    small = quantize(model, to)
    n_bytes = sum(tensor.nbytes for tensor in small.parameters())  # a tied one once
    assert n_bytes < share * 4 * model.n_parameters


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
def test_generating_goes_on_beyond_the_context_as_ever(to):
    small = quantize(a_model(), to)
    sampling = SamplingConfig(max_new_tokens=60, temperature=0.0)
    batch = list(generate(small, [[5, 6, 7], [8]], sampling))
    assert len(batch) == 60


@needs_library
@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        (a_model(), torch.float32),
        (a_model().half(), torch.float16),
        (a_model().bfloat16(), torch.bfloat16),
        (quantize(a_model(), "bfloat16"), torch.bfloat16),
        (quantize(a_model(), "int8"), torch.bfloat16),
    ],
    ids=["float32", "float16", "bfloat16", "to bfloat16", "to int8"],
)
def test_keys_and_values_shrink_with_the_weights(model, dtype):
    reader = CachedWindowReader(model, [[3, 4]], 5)
    assert reader.cache.keys.dtype == reader.cache.values.dtype == dtype


def test_where_pytorch_decodes_keys_and_values_stay_as_they_are(monkeypatch):
    monkeypatch.setenv("GLASSGPT_NATIVE", "0")
    assert CachedWindowReader(quantize(a_model(), "int8"), [[3, 4]], 5).cache.keys.dtype == torch.float32


def test_other_names_are_refused():
    with pytest.raises(ConfigError, match=r"quantize='int4' is not one of bfloat16, int8"):
        quantize(a_model(), "int4")


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name",
    [
        "blocks.0.attention.o_proj.weight",
        "blocks.1.feedforward.up_proj.bias",
        "final_norm.weight",
        "position_embedding.weight",
        "token_embedding.weight",
    ],
)
def test_weights_that_are_no_numbers_are_refused(to, value, name):
    model = a_model(tied_embeddings=False)
    weights = model.get_parameter(name).data
    weights.view(-1)[-3] = value
    with pytest.raises(ConfigError, match="nan or infinite"):
        quantize(model, to)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("first", ["bfloat16", "int8"])
def test_a_quantised_model_is_not_quantised_again(first, tied):
    small = quantize(a_model(tied_embeddings=tied), first)
    for to in ("bfloat16", "int8"):
        with pytest.raises(ConfigError, match=r"quantised already.*Quantise the one it was made from"):
            quantize(small, to)


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
def test_matrices_that_lie_transposed_are_quantised_into_rows(to):
    model = a_model()
    expected = quantize(model, to).state_dict()
    for module in (*model.blocks.modules(), model.head):
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.T.contiguous().T
    small = quantize(model, to)
    assert all(parameter.is_contiguous() for parameter in small.parameters())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in small.state_dict().items())


@pytest.mark.parametrize("assign", [True, False])
def test_weights_that_are_loaded_say_how_large_an_activation_may_be(assign):
    small = quantize(a_model(d_ff=1024), "int8")
    before, heavy = small.blocks[0].feedforward.down_proj.largest_activation, small.state_dict()
    heavy["blocks.0.feedforward.down_proj.weight"] = torch.full((64, 1024), -128, dtype=torch.int8)
    small.load_state_dict(heavy, assign=assign)
    largest = small.blocks[0].feedforward.down_proj.largest_activation
    assert largest == (2**31 - 1) // (128 * 1024) < before


def test_a_model_of_8_bit_integers_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="quantised"):
        quantize(a_model(), "int8").save_pretrained(tmp_path / "small")
    assert not (tmp_path / "small").exists()
