import copy
import gc
import math
import weakref

import pytest
import torch

from glassgpt.decoding import NativeStep, packed, quantize
from glassgpt.decoding.faster import FasterOfTwo
from glassgpt.decoding.packed import packed_matrices, place_of
from glassgpt.generation import SamplingConfig, generate
from glassgpt.model import GPT, KVCache
from tests.decoding.models import OTHER_VENDOR, a_model, compiled_with, needs_library, needs_packing

pytestmark = [needs_library, needs_packing]

WIDTHS = [
    {"d_model": 128, "d_ff": 512, "n_heads": 4},  # whole groups of 128
    {"d_model": 192, "d_ff": 320, "n_heads": 4},  # half a group behind them
    {"d_model": 256, "d_ff": 64, "n_heads": 4, "vocab_size": 301},  # rows too short to pack; some left over
]


LONG = 1000  # tokens, for which copies are made at once
UPPER = torch.tensor([*range(0x38, 0x40), *range(0xB8, 0xC0)], dtype=torch.int32)
of_both = pytest.mark.parametrize("to", ["float32", "bfloat16"])


@pytest.fixture(autouse=True)
def packs_always(monkeypatch):
    """Copies are read wherever they can be, however long it takes."""
    monkeypatch.setattr(FasterOfTwo, "takes_first", lambda self: True)


def model_in(to: str, **fields) -> GPT:
    model = a_model(**fields)
    return model if to == "float32" else quantize(model, to)


def numbers_with_16_upper_bytes(to: str) -> torch.Tensor:
    """All that bfloat16 has, twice; of float32 those, with lower halves of all kinds."""
    torch.manual_seed(5)
    halves = (UPPER[:, None] * 256 + torch.arange(256)).flatten().repeat(2)
    if to == "bfloat16":
        return halves.to(torch.int16).view(torch.bfloat16)
    return (halves * 65536 + torch.randint(65536, halves.shape)).to(torch.int32).view(torch.float32)


def logits_of(step: NativeStep, model: GPT, n_rows: int) -> torch.Tensor:
    cache = KVCache(model.config, n_rows, 4)
    return torch.stack([step.logits([7 + row + t for row in range(n_rows)], cache) for t in range(3)])


@of_both
@pytest.mark.parametrize("flags", [[], OTHER_VENDOR], ids=["as it is", "for the other vendor"])
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda widths: f"{widths['d_model']} and {widths['d_ff']}")
def test_packed_weights_give_the_same_bits(widths, flags, to):
    with compiled_with(flags):
        model = model_in(to, **widths)
        step = NativeStep(model, LONG)
        assert step.packed
        for n_rows in (1, 2, 3, 5):
            assert torch.equal(logits_of(step, model, n_rows), logits_of(NativeStep(model), model, n_rows))


@of_both
@pytest.mark.parametrize(("n_rows", "reads_it"), [(1, True), (2, True), (3, False)])
def test_one_or_two_rows_are_read_from_the_copy(n_rows, reads_it, to):
    model = model_in(to, **WIDTHS[0])
    step = NativeStep(model, LONG)
    before = logits_of(step, model, n_rows)
    for memory in step.packed.values():
        memory.zero_()
    assert torch.equal(logits_of(step, model, n_rows), before) != reads_it


@of_both
@pytest.mark.parametrize("strange", [1e-30, -1e30, 0.0, -0.0])
@pytest.mark.parametrize("n_rows", [1, 2])
def test_weights_that_four_bits_cannot_name_keep_their_bits(strange, n_rows, to):
    model = model_in(to, d_model=256, vocab_size=256, n_heads=4)
    numbers = numbers_with_16_upper_bytes(to)
    numbers = numbers[torch.randint(len(numbers), (256, 256))]
    n_rare = torch.zeros(256, 2, dtype=torch.int)  # of each row's groups
    alone = [(1, 0), (5, 127), (77, 128), (200, 255), *((100 + i, i) for i in range(128))]
    together = [(255, 31), (255, 100), (20, 128), (20, 129), (20, 200), (30, 3), (30, 4), (40, 63), (40, 64)]
    for row, column in (*alone, *together):
        numbers[row, column] = strange
        n_rare[row, column // 128] += 1
    with torch.no_grad():
        model.head.weight.copy_(numbers)
    step = NativeStep(model, LONG)
    rare = rare_of(step, model)
    assert torch.equal(rare[..., 0] == 255, n_rare == 0)
    assert torch.equal(rare[..., 0] == 254, n_rare > 1)
    assert len(rare[100:228, 0, 0].unique()) == 128  # every place in a group
    upper = torch.tensor(strange).view(torch.int32).item() >> 24 & 255
    assert (rare[..., 1][n_rare == 1] == upper).all()
    assert torch.equal(logits_of(step, model, n_rows), logits_of(NativeStep(model), model, n_rows))


@of_both
@pytest.mark.parametrize("strange", [0.0, -0.0, 1e-30, 1e-40, math.inf, -math.inf, math.nan])
def test_one_other_bit_is_noticed_wherever_it_is(strange, to):
    numbers = numbers_with_16_upper_bytes(to)
    numbers = numbers[torch.randint(len(numbers), (64, 256))]
    numbers[0, 77] = strange  # alone in its group
    numbers[1, 77] = numbers[1, 90] = strange
    (copy,) = packed_matrices(linear := a_layer(numbers), LONG).values()
    places = copy[64 : 64 + 8 : 2].tolist()  # of the first groups: one rare weight, none, several, none
    assert (places[0] < 128, *places[1:]) == (True, 255, 254, 255)
    bits = linear.weight.detach().view(torch.int16 if to == "bfloat16" else torch.int32)
    assert packed._is_packed(linear.weight, copy)
    packed_places = [(0, 77), (0, 78), (0, 200), (2, 77), (2, 130)]
    for row, column in packed_places:
        for bit in range(8 * bits.itemsize):
            one = torch.tensor(1, dtype=bits.dtype) << bit
            bits[row, column] ^= one
            assert not packed._is_packed(linear.weight, copy)
            bits[row, column] ^= one
    bits[0, [76, 77]] = bits[0, [77, 76]]
    assert not packed._is_packed(linear.weight, copy)
    bits[0, [76, 77]] = bits[0, [77, 76]]
    assert packed._is_packed(linear.weight, copy)


def a_layer(weight: torch.Tensor) -> torch.nn.Linear:
    layer = torch.nn.Linear(*weight.T.shape, bias=False).eval()
    layer.weight = torch.nn.Parameter(weight)
    return layer


def rare_of(step: NativeStep, model: GPT) -> torch.Tensor:
    """Of a head of 256 × 256, what is rare in each group: its place and its upper byte, (256, 2, 2)."""
    memory = step.packed[place_of(model.head.weight)]
    return memory[64 : 64 + 1024].view(256, 2, 2)


def test_matrices_that_are_rare_all_over_are_not_packed():
    model = quantize(a_model(**WIDTHS[0]), "bfloat16")
    weight = model.blocks[0].feedforward.up_proj.weight
    with torch.no_grad():
        weight.copy_(torch.randn_like(weight.float()) * 10.0 ** torch.randint(-30, 30, weight.shape))
    for _ in range(2):
        copies = packed_matrices(model, LONG)
        assert place_of(weight) not in copies
        assert not packed._kept[model].copies[place_of(weight)].untyped_storage().nbytes()
        assert place_of(model.blocks[0].feedforward.down_proj.weight) in copies


def pairs(model: GPT, step: NativeStep) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each matrix that is packed, and its copy."""
    matrices = {place_of(parameter): parameter for parameter in model.parameters()}
    return [(matrices[place], memory) for place, memory in step.packed.items()]


@of_both
def test_every_number_with_one_of_16_upper_bytes_is_packed(to):
    model = model_in(to, d_model=256, vocab_size=256, n_heads=4)
    numbers = numbers_with_16_upper_bytes(to).repeat(8)
    with torch.no_grad():
        model.head.weight.copy_(numbers[torch.randperm(len(numbers))].view(256, 256))
    step = NativeStep(model, LONG)
    assert (rare_of(step, model)[..., 0] == 255).all()
    assert torch.equal(logits_of(step, model, 1), logits_of(NativeStep(model), model, 1))


@pytest.mark.parametrize(("to", "share"), [("float32", 7 / 8), ("bfloat16", 3 / 4)])
def test_a_copy_takes_that_share_of_the_bytes(to, share):
    model = model_in(to, d_model=768, vocab_size=1000, n_heads=12)
    found = pairs(model, NativeStep(model, LONG))
    assert len(found) == 4 * model.config.n_layers + 1
    for matrix, memory in found:
        assert share < memory.nbytes / matrix.nbytes < share + 0.01


@of_both
def test_weights_are_packed_once_until_they_change(to):
    model = model_in(to, **WIDTHS[0])
    bits, one = (torch.int16, 1) if to == "bfloat16" else (torch.int32, 1 << 16)  # as much of either
    first, again = packed_matrices(model, LONG), packed_matrices(model, LONG)
    assert first.keys() == again.keys()
    assert all(again[place] is first[place] for place in first)
    for change in (
        lambda weight: weight.mul_(1.5),
        lambda weight: weight.data.mul_(1.5),  # no version of a tensor counts this
        lambda weight: weight.data.view(bits)[3, 5].add_(one),  # one bit, or a few
        lambda weight: weight.data[:2, 3].neg_(),  # in a sum of words the two would cancel
        lambda weight: weight.data[3:5].copy_(weight[3:5].flip(0)),  # the same numbers in other places
    ):
        before = logits_of(NativeStep(model, LONG), model, 1)
        with torch.no_grad():
            change(model.blocks[1].feedforward.down_proj.weight)
        logits = logits_of(NativeStep(model, LONG), model, 1)
        assert not torch.equal(logits, before)
        assert torch.equal(logits, logits_of(NativeStep(model), model, 1))


@of_both
@pytest.mark.parametrize("n_threads", [1, 3])
def test_threads_share_packing_and_comparing(n_threads, to):
    torch.set_num_threads(n_threads)
    model = model_in(to, d_model=256, vocab_size=301, n_heads=4, d_ff=1024)
    for row in (0, 150, 300):
        assert torch.equal(
            logits_of(NativeStep(model, LONG), model, 1), logits_of(NativeStep(model), model, 1)
        )
        before = packed_matrices(model, LONG)[place_of(model.head.weight)].clone()
        model.head.weight.data[row, 131] *= -1
        assert not torch.equal(packed_matrices(model, LONG)[place_of(model.head.weight)], before)


def test_without_memory_for_it_there_is_no_copy(monkeypatch):
    def no_memory(tensors):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    model = quantize(a_model(**WIDTHS[0]), "bfloat16")
    with monkeypatch.context() as patch:
        patch.setattr(packed, "side_by_side", no_memory)
        assert packed_matrices(model, LONG) == {}
    assert packed_matrices(model, LONG)


def test_the_copy_goes_with_its_model():
    model = quantize(a_model(**WIDTHS[0]), "bfloat16")
    memory = weakref.ref(next(iter(packed_matrices(model, LONG).values())))
    twin = copy.deepcopy(model)
    assert twin not in packed._kept
    assert memory() is not None
    del model
    gc.collect()
    assert memory() is None


def test_copies_take_at_most_half_of_what_is_free(monkeypatch):
    model = model_in("float32", **WIDTHS[0])
    size = sum(copy.nbytes for copy in packed_matrices(model, LONG).values())
    packed._kept.clear()
    for free, is_packed in ((2 * size - 2, False), (2 * size, True), (0, True)):  # at last there are copies
        monkeypatch.setattr(packed, "free_memory", lambda free=free: free)
        assert bool(packed_matrices(model, LONG)) == is_packed


def test_a_copy_is_not_taken_for_one_of_other_numbers_in_the_same_place(monkeypatch):
    memory = torch.randn(256, 256)
    halves = memory.view(torch.bfloat16)[:128].view(256, 256).copy_(torch.randn(256, 256))
    layer = a_layer(halves)
    monkeypatch.setattr(packed, "_is_packed", lambda matrix, copy: True)
    monkeypatch.setattr(packed, "version_of", lambda tensors: 0)
    assert packed_matrices(layer, LONG)
    layer.weight = torch.nn.Parameter(memory)
    assert packed_matrices(layer, LONG)[place_of(memory)].nbytes == packed._packed_bytes(memory)


def test_copies_are_made_when_enough_tokens_have_been_asked_for():
    layer = a_layer(torch.randn(256, 256))
    for n_tokens in (31, 200, 31, 55):
        assert not packed_matrices(layer, n_tokens)
    assert packed_matrices(layer, 32)  # with 200 and 55
    assert not packed_matrices(layer, 31)
    assert packed_matrices(layer, 32)
    layer.weight.data.neg_()
    assert not packed_matrices(layer, 255)
    with torch.no_grad():
        layer.weight.neg_()  # nothing was packed, and it counts from there again
    assert not packed_matrices(layer, 255)
    assert packed_matrices(layer, 1 + 31)


def in_place(model: GPT) -> None:
    with torch.no_grad():
        model.head.weight.mul_(-1)


def by_a_fused_optimizer(model: GPT) -> None:
    for parameter in model.train().parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(model.parameters(), lr=0.5, fused=True).step()


@pytest.mark.parametrize("change", [in_place, by_a_fused_optimizer])
def test_weights_that_change_while_a_text_is_written_are_read_where_they_are(change):
    def text(packs: bool) -> list[int]:
        model = model_in("float32", **WIDTHS[0], context_length=400)
        sampling = SamplingConfig(max_new_tokens=300 if packs else 24, temperature=0.0, speculate=False)
        token_ids = []
        for token_id in generate(model, [3, 5, 7], sampling):
            token_ids.append(token_id)
            if len(token_ids) == 12:
                assert (model in packed._kept) == packs
                change(model)
            if len(token_ids) == 24:
                assert model not in packed._kept  # it has given its memory back
                return token_ids
        raise AssertionError("the text was too short")

    assert text(packs=True) == text(packs=False)


def a_packed_model() -> GPT:
    model = model_in("float32", **WIDTHS[0])
    list(generate(model, [3, 5, 7], SamplingConfig(max_new_tokens=300, temperature=0.0)))
    assert packed._kept[model].copies
    return model


@pytest.mark.parametrize(
    "change",
    [lambda model: model.train(), lambda model: model.head.register_forward_hook(lambda *_: None)],
    ids=["training mode", "no C++ step any more"],
)
def test_a_model_that_is_not_read_packed_any_more_loses_its_copy(change):
    model = a_packed_model()
    change(model)
    next(iter(generate(model, [3, 5, 7], SamplingConfig(max_new_tokens=2))))
    assert model not in packed._kept


def test_weights_made_in_inference_mode_are_not_packed():
    with torch.inference_mode():
        layer = a_layer(torch.randn(256, 256))
    assert packed_matrices(layer, LONG) == {}


@of_both
def test_without_long_registers_nothing_is_packed(to):
    with compiled_with(["-mno-avx512f"]):
        assert packed_matrices(model_in(to, **WIDTHS[0]), LONG) == {}


@pytest.mark.parametrize(
    ("n_prompts", "n_tokens", "packs"), [(1, 256, True), (2, 256, True), (3, 256, False), (1, 255, False)]
)
@of_both
def test_long_texts_of_one_or_two_prompts_are_written_from_packed_weights(
    to, n_prompts, n_tokens, packs, monkeypatch
):
    model = model_in(to, **WIDTHS[0], context_length=80)
    prompts = [[3, 5, 7 + i] for i in range(n_prompts)]
    sampling = SamplingConfig(max_new_tokens=n_tokens, temperature=0.0)
    text = list(generate(model, prompts, sampling))
    assert (model in packed._kept and bool(packed._kept[model].copies)) == packs
    monkeypatch.setattr("glassgpt.generation.window.MOST_PACKED_ROWS", 0)
    assert list(generate(model, prompts, sampling)) == text
