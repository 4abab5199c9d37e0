import copy
import gc
import platform
import weakref
from pathlib import Path

import pytest
import torch

from glassgpt.decoding import NativeStep, build, packed, quantize
from glassgpt.decoding.packed import packed_matrices
from glassgpt.generation import SamplingConfig, generate
from glassgpt.model import GPT, KVCache
from tests.decoding.models import a_model, needs_library

CPUINFO = Path("/proc/cpuinfo")
pytestmark = [
    needs_library,
    pytest.mark.skipif(
        platform.machine() != "x86_64" or not CPUINFO.exists() or "avx512bw" not in CPUINFO.read_text(),
        reason="needs a processor with AVX-512: elsewhere no weights are packed",
    ),
]

WIDTHS = [
    {"d_model": 128, "d_ff": 512, "n_heads": 4},  # whole groups of 128
    {"d_model": 192, "d_ff": 320, "n_heads": 4},  # half a group behind them
    {
        "d_model": 256,
        "d_ff": 64,
        "n_heads": 4,
        "vocab_size": 301,
    },  # rows too short to pack; and some that are left
]


def logits_of(step: NativeStep, model: GPT, n_rows: int) -> torch.Tensor:
    cache = KVCache(model.config, n_rows, 4)
    return torch.stack([step.logits([7 + row + t for row in range(n_rows)], cache) for t in range(3)])


@pytest.mark.parametrize("n_rows", [1, 2, 3, 5])
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda widths: f"{widths['d_model']} and {widths['d_ff']}")
def test_packed_weights_give_the_same_bits(widths, n_rows):
    model = quantize(a_model(**widths), "bfloat16")
    step = NativeStep(model, packed=True)
    assert step.packed
    assert torch.equal(logits_of(step, model, n_rows), logits_of(NativeStep(model), model, n_rows))


@pytest.mark.parametrize(("n_rows", "reads_it"), [(1, True), (2, True), (3, False)])
def test_one_or_two_rows_are_read_from_the_copy(n_rows, reads_it):
    model = quantize(a_model(**WIDTHS[0]), "bfloat16")
    step = NativeStep(model, packed=True)
    before = logits_of(step, model, n_rows)
    for memory in step.packed.values():
        memory.zero_()
    assert torch.equal(logits_of(step, model, n_rows), before) != reads_it


@pytest.mark.parametrize("strange", [1e-30, -1e30, 0.0, -0.0])
@pytest.mark.parametrize("n_rows", [1, 2])
def test_weights_that_four_bits_cannot_name_keep_their_bits(strange, n_rows):
    model = a_model(**WIDTHS[0])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter[-3:, ::37] = strange  # in rows that do not decide which 16 upper bytes there are
                parameter[5, 64] = strange
    model = quantize(model, "bfloat16")
    step = NativeStep(model, packed=True)
    rare = [int(memory[64 : 64 + matrix.numel() // 128].sum()) for matrix, memory in pairs(model, step)]
    assert min(rare) >= 4
    assert torch.equal(logits_of(step, model, n_rows), logits_of(NativeStep(model), model, n_rows))


def pairs(model: GPT, step: NativeStep) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each matrix that is packed, and its copy."""
    matrices = {parameter.data_ptr(): parameter for parameter in model.parameters()}
    return [(matrices[place], memory) for place, memory in step.packed.items()]


def test_every_number_with_one_of_16_upper_bytes_is_packed():
    model = quantize(a_model(d_model=256, vocab_size=256, n_heads=4), "bfloat16")
    upper = torch.tensor([*range(0x38, 0x40), *range(0xB8, 0xC0)], dtype=torch.int32)
    numbers = (upper[:, None] * 256 + torch.arange(256, dtype=torch.int32)).flatten().repeat(16)
    numbers = numbers[torch.randperm(len(numbers))].to(torch.int16).view(torch.bfloat16)
    with torch.no_grad():
        model.head.weight.copy_(numbers.view(256, 256))
    step = NativeStep(model, packed=True)
    memory = step.packed[model.head.weight.data_ptr()]
    assert not memory[64 : 64 + 512].any()
    assert torch.equal(logits_of(step, model, 1), logits_of(NativeStep(model), model, 1))


def test_a_copy_takes_three_quarters_of_the_bytes():
    model = quantize(a_model(d_model=768, vocab_size=1000, n_heads=12), "bfloat16")
    for matrix, memory in pairs(model, NativeStep(model, packed=True)):
        assert 0.75 < memory.nbytes / matrix.nbytes < 0.76


def test_weights_are_packed_once_until_they_change():
    model = quantize(a_model(**WIDTHS[0]), "bfloat16")
    first = packed_matrices(model)
    assert packed_matrices(model) is first
    for change in (
        lambda weight: weight.mul_(1.5),
        lambda weight: weight.data.mul_(1.5),  # no version of a tensor counts this
        lambda weight: weight.view(torch.int16)[3, 5].add_(1),  # one bit, or a few
        lambda weight: weight[3:5].copy_(weight[3:5].flip(0)),  # the same numbers in other places
    ):
        before = logits_of(NativeStep(model, packed=True), model, 1)
        with torch.no_grad():
            change(model.blocks[1].feedforward.down_proj.weight)
        logits = logits_of(NativeStep(model, packed=True), model, 1)
        assert not torch.equal(logits, before)
        assert torch.equal(logits, logits_of(NativeStep(model), model, 1))


def test_the_copy_goes_with_its_model():
    model = quantize(a_model(**WIDTHS[0]), "bfloat16")
    memory = weakref.ref(next(iter(packed_matrices(model).values())))
    twin = copy.deepcopy(model)
    assert twin not in packed._kept
    assert memory() is not None
    del model
    gc.collect()
    assert memory() is None


@pytest.mark.parametrize("model", [a_model(**WIDTHS[0]), a_model(**WIDTHS[0]).bfloat16()])
def test_weights_that_may_be_trained_are_not_packed(model):
    assert packed_matrices(model) == {}


@pytest.fixture
def registers_of_256_bits(monkeypatch):
    monkeypatch.setattr(build, "_FLAGS", [*build._FLAGS, "-mno-avx512f"])
    build._library.cache_clear()
    yield
    build._library.cache_clear()


@pytest.mark.usefixtures("registers_of_256_bits")
def test_without_long_registers_nothing_is_packed():
    assert packed_matrices(quantize(a_model(**WIDTHS[0]), "bfloat16")) == {}


@pytest.mark.parametrize(
    ("n_prompts", "n_tokens", "packs"), [(1, 64, True), (2, 64, True), (3, 64, False), (1, 63, False)]
)
def test_long_texts_of_one_or_two_prompts_are_written_from_packed_weights(
    n_prompts, n_tokens, packs, monkeypatch
):
    model = quantize(a_model(**WIDTHS[0], context_length=80), "bfloat16")
    prompts = [[3, 5, 7 + i] for i in range(n_prompts)]
    sampling = SamplingConfig(max_new_tokens=n_tokens, temperature=0.0)
    text = list(generate(model, prompts, sampling))
    assert (model in packed._kept) == packs
    monkeypatch.setattr("glassgpt.generation.window.packing_pays", lambda n_rows, n_tokens: False)
    assert list(generate(model, prompts, sampling)) == text
