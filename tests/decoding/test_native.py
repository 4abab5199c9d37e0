import copy
import dataclasses

import pytest
import torch

from glassgpt.decoding import NativeStep, build, quantize, why_not_native
from glassgpt.errors import GenerationError
from glassgpt.generation import guessing
from glassgpt.model import GPT, KVCache, gpt2
from tests.decoding.models import KINDS, a_model, logits_of_rows, needs_library, transposed

pytestmark = [needs_library, pytest.mark.usefixtures("each_library")]


def largest_difference(
    model: GPT, n_rows: int, n_padding: list[int] | None = None, dtype=torch.float32
) -> float:
    """Between PyTorch's logits and the C++ step's, as a share of the largest logit: five tokens behind a
    prompt of seven, each with a cache of its own."""
    step = NativeStep(model)
    padding = None if n_padding is None else torch.tensor(n_padding)
    token_ids = torch.randint(model.config.vocab_size, (n_rows, 12))
    theirs, ours = (KVCache(model.config, n_rows, 13, n_padding=padding, dtype=dtype) for _ in range(2))
    differences = []
    with torch.inference_mode():
        model.hidden(token_ids[:, :7], theirs)
        model.hidden(token_ids[:, :7], ours)
        for t in range(7, 12):
            expected = model(token_ids[:, t : t + 1], theirs)[:, 0].float()
            logits = step.logits(token_ids[:, t].tolist(), ours)
            differences.append((logits - expected).abs().max() / expected.abs().max())
    for layer in range(model.config.n_layers):  # all that was written, where it belongs
        torch.testing.assert_close(
            ours.keys[layer, :, :, :12], theirs.keys[layer, :, :, :12], atol=0.05, rtol=0.02
        )
    return max(differences).item()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_the_step_computes_what_the_model_does(kind):
    model = a_model(**kind)
    assert why_not_native(model) is None
    # float32 sums in another order: its 24 digits less those of some thousand additions
    assert largest_difference(model, 1) < 3e-6


@pytest.mark.parametrize("n_rows", [2, 3, 4, 5, 11])
def test_rows_of_a_batch_do_not_touch_each_other(n_rows):
    assert largest_difference(a_model(), n_rows) < 3e-6


@pytest.mark.parametrize("to", [None, "bfloat16", "int8"])
def test_a_row_gets_the_same_bits_in_any_batch(to):
    model = a_model(n_kv_heads=2, d_ff=320)
    model = model if to is None else quantize(model, to)
    # With 24 rows or more, tiles add up in another order.
    n_rows = 23 if to == "bfloat16" and build.library().glassgpt_has_tiles() else 43
    batches = [[0], [4], [1, 2], [3, 5, 6], [6, 5, 4, 3], list(range(9)), list(range(22, 1, -1))]
    together, *others = logits_of_rows(model, n_rows, [list(range(n_rows)), *batches])
    for rows, logits in zip(batches, others, strict=True):
        assert torch.equal(logits, together[rows])


def test_many_rows_beside_bfloat16_weights_keep_all_digits_of_their_activations():
    model = quantize(a_model(n_kv_heads=2, d_ff=320, vocab_size=151), "bfloat16")
    batches = [list(range(43)), list(range(41, 12, -1)), list(range(23)), list(range(20, 43))]
    together, turned, *fewer = logits_of_rows(model, 43, batches)
    assert torch.equal(turned, together[batches[1]])
    for rows, logits in zip(batches[2:], fewer, strict=True):
        # Rounded to 16 bits, activations would be 2⁻¹⁷ away, and the logits 1e-5 of the largest.
        assert (logits - together[rows]).abs().max() < 1e-6 * together.abs().max()
        assert torch.equal(logits, together[rows]) != bool(build.library().glassgpt_has_tiles())


@pytest.mark.parametrize("kind", KINDS[::5], ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("to", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("padding", [[0], [0, 9, 4]], ids=["one row", "padded rows"])
def test_several_tokens_at_once_get_the_same_bits_as_one_after_the_other(kind, to, padding):
    model = a_model(**kind) if to is None else quantize(a_model(**kind), to)
    step, n_rows = NativeStep(model), len(padding)
    token_ids = torch.randint(53, (n_rows, 19))
    caches = [
        KVCache(model.config, n_rows, 20, n_padding=torch.tensor(padding), dtype=dtype)
        for dtype in (torch.float32, torch.float32, torch.bfloat16, torch.bfloat16)
    ]
    for alone, together in (caches[:2], caches[2:]):
        expected = torch.stack([step.logits(token_ids[:, t].tolist(), alone) for t in range(19)], dim=1)
        # All widths of a block, and more than one; of one row one more than are ever guessed.
        most = guessing._MOST + 1 if n_rows == 1 else 7
        parts = token_ids.split([most, 1, 2, 3, 13 - most], dim=1)  # (B, T)
        logits = [step.logits(part.flatten().tolist(), together, n_new=part.shape[1]) for part in parts]
        logits = [part.view(n_rows, -1, model.config.vocab_size) for part in logits]
        assert torch.equal(torch.cat(logits, dim=1), expected)
        assert together.n_tokens == 19
        assert torch.equal(together.keys[..., :19, :], alone.keys[..., :19, :])
        assert torch.equal(together.values[..., :19, :], alone.values[..., :19, :])


def test_token_ids_that_do_not_fill_the_rows_are_refused():
    model = a_model()
    for n_new in (2, 0, -1):
        with pytest.raises(GenerationError, match=f"5 token ids are not n_new={n_new} for each row"):
            NativeStep(model).logits([1, 2, 3, 4, 5], KVCache(model.config, 2, 9), n_new=n_new)


@pytest.mark.parametrize("to", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("n_rows", [1, 5, 11, 27])
def test_weights_that_lie_anywhere_in_memory_give_the_same_bits(to, n_rows):
    model = a_model(d_ff=320)
    model = model if to is None else quantize(model, to)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():  # one number behind a line of the cache, as a mapped file may be
            memory = torch.empty(parameter.numel() + 64, dtype=parameter.dtype)
            first = 1 + -(memory.data_ptr() // memory.itemsize) % (64 // memory.itemsize)
            place = memory[first : first + parameter.numel()].view(parameter.shape)
            parameter.data = place.copy_(parameter)
    matrices = [parameter for parameter in moved.parameters() if parameter.dim() == 2]
    assert all(parameter.data_ptr() % 64 == parameter.itemsize for parameter in matrices)
    token_ids = torch.randint(53, (n_rows,)).tolist()
    expected, logits = (NativeStep(m).logits(token_ids, KVCache(m.config, n_rows, 3)) for m in (model, moved))
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("positions", ["learned", "rope", "none"])
def test_padding_is_never_seen_and_positions_count_from_the_first_token(positions):
    model = a_model(positions=positions, attention_window=9)
    assert largest_difference(model, 4, [0, 2, 6, 3]) < 3e-6


@pytest.mark.parametrize("n_threads", [2, 3, 7])
@pytest.mark.parametrize("n_rows", [3, 27])
@pytest.mark.parametrize("to", [None, "bfloat16", "int8"])
def test_threads_share_the_work_without_changing_it(to, n_rows, n_threads):
    model = a_model(n_kv_heads=2, vocab_size=151)
    model = model if to is None else quantize(model, to)
    [alone] = logits_of_rows(model, n_rows, [list(range(n_rows))])
    torch.set_num_threads(n_threads)
    [shared] = logits_of_rows(model, n_rows, [list(range(n_rows))])
    assert torch.equal(shared, alone)
    assert largest_difference(model, n_rows) < (3e-6 if to is None else 0.02)


def test_bfloat16_throughout_stays_within_its_own_rounding():
    # PyTorch rounds every intermediate result to 8 digits, the step only what goes into the cache.
    assert largest_difference(a_model().bfloat16(), 2, dtype=torch.bfloat16) < 0.05


@pytest.mark.parametrize("to", ["bfloat16", "int8"])
@pytest.mark.parametrize("kind", KINDS[::7], ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("n_rows", [1, 5, 27])
def test_quantised_weights_are_multiplied_as_they_are(to, kind, n_rows, monkeypatch):
    monkeypatch.setattr("glassgpt.decoding.quantization.multiplies_bfloat16", lambda _: False)
    model = quantize(a_model(**kind), to)
    # PyTorch's products are float32's now; of int8, the step rounds activations to 16 bits at most
    assert largest_difference(model, n_rows) < (3e-6 if to == "bfloat16" else 3e-4)


@pytest.mark.parametrize("kind", KINDS[::7], ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("n_rows", [1, 5])
def test_a_cache_in_fewer_bits_than_the_activations_is_read_as_it_is(kind, n_rows):
    # A sum in another order may round to the neighbouring bfloat16, which is 2⁻⁸ of that number.
    assert largest_difference(a_model(**kind), n_rows, dtype=torch.bfloat16) < 5e-3


def test_keys_and_values_round_to_the_nearest_bfloat16_and_ties_to_even():
    model = a_model()
    qkv_proj = model.blocks[0].attention.qkv_proj
    halfway = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 + 2**-20])
    with torch.no_grad():
        qkv_proj.weight.zero_()
        qkv_proj.bias.copy_(halfway.repeat(48))
    cache = KVCache(model.config, 1, 2, dtype=torch.bfloat16)
    NativeStep(model).logits([3], cache)
    expected = torch.tensor([1, 1 + 2**-6, -1, 1 + 2**-7]).repeat(16).view(4, 16)
    for tensor in (cache.keys, cache.values):
        assert torch.equal(tensor[0, 0, :, 0].float(), expected)


def test_what_is_no_number_stays_none_in_a_cache_of_bfloat16():
    model = a_model()
    qkv_proj = model.blocks[0].attention.qkv_proj
    # Rounded like a number, all of these bits would carry over into the sign: −0 and 0.
    words = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32)
    with torch.no_grad():
        qkv_proj.bias.copy_(words.view(torch.float32).repeat(96))
    assert torch.equal(qkv_proj.bias.view(torch.int32)[:2], words)
    cache = KVCache(model.config, 1, 2, dtype=torch.bfloat16)
    NativeStep(model).logits([3], cache)
    for tensor in (cache.keys, cache.values):
        assert tensor[0, 0, :, 0].isnan().all()


@pytest.mark.parametrize("n_rows", [1, 5, 11])
def test_small_activations_keep_their_digits_beside_8_bit_weights(n_rows):
    def logits(scale: float) -> torch.Tensor:
        model = a_model()
        model.final_norm.weight.data *= scale
        model.final_norm.bias.data *= scale
        model = quantize(model, "int8")
        return NativeStep(model).logits(list(range(n_rows)), KVCache(model.config, n_rows, 3))

    assert torch.equal(logits(2**-25) * 2**25, logits(1.0))  # a power of two rounds nothing


def test_scores_far_beyond_what_an_exponential_can_hold():
    model = a_model()
    for block in model.blocks:
        block.attention.qkv_proj.weight.data *= 30  # scores times 900, in the thousands
    assert largest_difference(model, 2) < 1e-4


def test_the_shapes_of_gpt2_124m_agree():
    torch.manual_seed(5)
    model = GPT(gpt2("124M")).eval()
    assert largest_difference(model, 1) < 1e-5
    assert largest_difference(quantize(model, "int8"), 1) < 0.02  # bfloat16's rounding, in PyTorch's products


def test_weights_that_lie_transposed_are_laid_in_rows_once():
    model, expected = transposed(a_model()), a_model().state_dict()
    weight = model.blocks[0].feedforward.up_proj.weight
    with torch.inference_mode():  # as `generate` does
        first = NativeStep(model)
    assert model.blocks[0].feedforward.up_proj.weight is weight
    assert not weight.is_inference()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert model.head.weight is model.token_embedding.weight
    places = {parameter.data_ptr() for parameter in model.parameters()}
    for step in (first, NativeStep(model)):
        assert {tensor.data_ptr() for tensor in step.kept} == places
    assert largest_difference(model, 1) < 3e-6


def test_weights_that_other_processes_share_stay_where_they_are():
    model = transposed(a_model()).share_memory()
    assert largest_difference(model, 1) < 3e-6
    assert all(parameter.is_shared() for parameter in model.parameters())


def test_what_is_written_into_the_weights_counts_at_once():
    model = transposed(a_model())
    step = NativeStep(model)
    before = step.logits([3], KVCache(model.config, 1, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    logits = step.logits([3], KVCache(model.config, 1, 5))
    assert not torch.equal(logits, before)
    assert torch.equal(logits, NativeStep(model).logits([3], KVCache(model.config, 1, 5)))


@pytest.mark.parametrize("moment", ["0 backward", "0 step", "2 backward", "2 step"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_training_goes_on_as_if_nothing_had_been_generated(moment, fused, set_to_none):
    def trained(moment: str) -> dict[str, torch.Tensor]:
        def perhaps_generate(now: str) -> None:
            if now == moment:
                assert largest_difference(model, 1) < 3e-6

        model = transposed(a_model())
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
        for step in range(4):
            perhaps_generate(f"{step} backward")
            model(torch.arange(41)[None]).logsumexp(-1).mean().backward()
            perhaps_generate(f"{step} step")
            optimizer.step()
            optimizer.zero_grad(set_to_none)
        return model.state_dict()

    # Products of matrices that lie otherwise round otherwise: far less than a step of Adam, which is 0.01.
    torch.testing.assert_close(trained(moment), trained("never"), rtol=0, atol=1e-3)


@pytest.mark.parametrize("to", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
@pytest.mark.parametrize("n_rows", [1, 27])
def test_what_is_no_number_reaches_the_logits(to, damage, n_rows):
    model = a_model() if to is None else quantize(a_model(), to)
    model.blocks[0].attention_norm.weight.data[11] = damage
    logits = NativeStep(model).logits([7] * n_rows, KVCache(model.config, n_rows, 5))
    assert not logits.isfinite().any()


@pytest.mark.parametrize("n_rows", [1, 11])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_weights_and_activations_do_not_overflow(n_rows, sign):
    model = a_model(d_ff=1024, feedforward="swiglu")
    for block in model.blocks:
        feedforward = block.feedforward
        for layer, bias in ((feedforward.gate_proj, 10.0), (feedforward.up_proj, 10.0 * sign)):
            layer.weight.data.zero_()  # all activations large, and the same
            layer.bias.data.fill_(bias)
        feedforward.down_proj.weight.data.fill_(1.0)
        feedforward.down_proj.weight.data[::2] = -1.0  # the norm does not take these away
    small = quantize(model, "int8")
    down_proj = small.blocks[0].feedforward.down_proj
    assert (down_proj.weight.abs() == 127).all()
    assert down_proj.largest_activation == (2**31 - 1) // (127 * 1024) < 2**15
    logits = NativeStep(small).logits([7] * n_rows, KVCache(model.config, n_rows, 5))
    expected = NativeStep(model).logits([7] * n_rows, KVCache(model.config, n_rows, 5))
    assert (logits - expected).abs().max() / expected.abs().max() < 0.02
    down_proj.largest_activation = small.blocks[1].feedforward.down_proj.largest_activation = 2**15 - 1
    logits = NativeStep(small).logits([7] * n_rows, KVCache(model.config, n_rows, 5))
    assert (logits - expected).abs().max() / expected.abs().max() > 0.5  # so it would have shown


def test_a_full_cache_refuses_another_token():
    model = a_model()
    step, cache = NativeStep(model), KVCache(model.config, 1, 2)
    step.logits([1], cache)
    step.logits([2], cache)
    with pytest.raises(GenerationError, match="2 of at most 2 tokens"):
        step.logits([3], cache)


class Louder(torch.nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Wrapped(torch.nn.Module):
    """As adapters wrap a layer: nothing of its own but another forward."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.weight, self.bias = base.weight, base.bias


def test_what_the_step_cannot_do_is_left_to_pytorch():
    model = a_model()
    assert "float64" in why_not_native(a_model().double())
    assert "meta" in why_not_native(GPT.uninitialised(model.config, device="meta"))
    assert "multiples" in why_not_native(a_model(d_model=40))
    handle = model.blocks[1].register_forward_hook(lambda *_: None)
    assert "blocks.1 has hooks" in why_not_native(model)
    handle.remove()
    assert why_not_native(model) is None
    model.blocks[1].attention.forward = lambda x, around: x
    assert "forward of its own" in why_not_native(model)
    del model.blocks[1].attention.forward
    original = model.blocks[0].attention.o_proj
    for stranger, word in ((Louder(64, 64), "Louder"), (Wrapped(original), "differs")):
        model.blocks[0].attention.o_proj = stranger
        assert word in why_not_native(model)
    model.blocks[0].attention.o_proj = original
    model.head = torch.nn.Linear(64, 61, bias=False)
    assert "head.weight has the shape (61, 64), not (53, 64)" in why_not_native(model)


@pytest.mark.parametrize("register", ["forward_hook", "forward_pre_hook"])
def test_hooks_are_seen_wherever_they_hang(register):
    model = a_model()
    module = torch.nn.modules.module
    for hang, words in (
        (getattr(model.blocks[1].feedforward, f"register_{register}"), "blocks.1.feedforward has hooks"),
        (getattr(module, f"register_module_{register}"), "hooks for all modules"),
    ):
        with hang(lambda *_: None):
            assert words in why_not_native(model)
        assert why_not_native(model) is None


class Doubled(torch.Tensor):
    """A weight of a class that may have a product of its own."""


def test_weights_and_norms_of_another_kind_are_left_to_pytorch():
    def said(change, **fields) -> str:
        model = a_model(**fields)
        change(model)
        return why_not_native(model)

    def set_norm(norm):
        return lambda model: setattr(model, "final_norm", norm)

    assert said(set_norm(torch.nn.LayerNorm(64, eps=0.5))) == "final_norm has eps=0.5, not 1e-05"
    assert said(set_norm(torch.nn.RMSNorm(64)), norm="rmsnorm") == "final_norm has eps=None, not 1e-05"
    bare = torch.nn.LayerNorm(64, elementwise_affine=False)
    assert said(set_norm(bare)) == "it differs from its configuration in final_norm.bias"
    assert "token_embedding has a max_norm" in said(lambda m: setattr(m.token_embedding, "max_norm", 1.0))

    def set_class(model):
        weight = model.head.weight.detach().as_subclass(Doubled)
        del model.head.weight
        model.head.register_buffer("weight", weight)

    assert said(set_class, tied_embeddings=False) == "head.weight is a Doubled, which it does not know"


def test_scales_belong_to_8_bit_matrices_alone():
    model = quantize(a_model(), "int8")
    o_proj = model.blocks[0].attention.o_proj
    o_proj.weight.data = o_proj.weight.data.float()
    assert "differs from its configuration in blocks.0.attention.o_proj.scale" in why_not_native(model)
    model = quantize(a_model(), "int8")
    model.blocks[0].attention.o_proj.scale = None
    assert "differs from its configuration in blocks.0.attention.o_proj.scale" in why_not_native(model)
    model.blocks[0].attention.o_proj.scale = torch.ones(63)
    assert "o_proj.scale has the shape (63,), not (64,)" in why_not_native(model)


def test_pytorchs_own_dropout_is_as_good_as_ours():
    model = a_model()
    model.blocks[0].dropout = torch.nn.Dropout(0.1)
    assert why_not_native(model) is None


def test_a_row_whose_newest_token_is_padding_sees_itself():
    model = a_model()
    padding = torch.tensor([0, 40], dtype=torch.int32)
    ours, theirs = (KVCache(model.config, 2, 41, n_padding=padding) for _ in range(2))
    with torch.inference_mode():
        expected = model(torch.tensor([[3], [5]]), theirs)[:, 0]
    torch.testing.assert_close(NativeStep(model).logits([3, 5], ours), expected, atol=1e-5, rtol=1e-5)


def test_a_cache_of_another_type_is_refused():
    model = a_model()
    with pytest.raises(GenerationError, match="float32 or bfloat16"):
        NativeStep(model).logits([3], KVCache(model.config, 1, 5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_pytorchs_defaults_for_new_tensors_change_nothing(dtype):
    model = a_model(positions="rope")
    expected = NativeStep(model).logits([7], KVCache(model.config, 1, 5))
    cache = KVCache(model.config, 1, 5)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            logits = NativeStep(model).logits([7], cache)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("to", [torch.bfloat16, torch.float16])
def test_int8_survives_a_model_that_changes_its_type(to):
    model = quantize(a_model(d_ff=1024), "int8")
    changed = copy.deepcopy(model).to(to).float()
    logits = NativeStep(changed).logits([7], KVCache(model.config, 1, 5))
    expected = NativeStep(model).logits([7], KVCache(model.config, 1, 5))
    assert (
        logits - expected
    ).abs().max() / expected.abs().max() < 0.05  # scales, norms and biases were rounded


def test_a_cache_that_the_step_would_misread_is_refused():
    model = a_model()
    step = NativeStep(model)
    sliced, of_two_types, padded, elsewhere = (KVCache(model.config, 3, 5) for _ in range(4))
    sliced.keys, sliced.values = sliced.keys[:, :2], sliced.values[:, :2]
    of_two_types.values = of_two_types.values.bfloat16()
    padded.n_padding = torch.zeros(3, dtype=torch.int32)
    elsewhere.keys = elsewhere.keys.to("meta")
    for cache, n_rows, word in (
        (sliced, 2, "without gaps"),
        (of_two_types, 3, "cache is torch.bfloat16"),
        (padded, 3, "n_padding is torch.int32"),
        (elsewhere, 3, "on meta"),
    ):
        with pytest.raises(GenerationError, match=word):
            step.logits([1] * n_rows, cache)


def test_what_lies_outside_the_weights_or_the_cache_is_never_read():
    model = a_model(n_kv_heads=2)
    step = NativeStep(model)
    for token_id in (-1, 53):
        with pytest.raises(GenerationError, match=f"Token id {token_id} is outside vocab_size=53"):
            step.logits([token_id], KVCache(model.config, 1, 5))
    for fields in ({"n_layers": 1}, {"n_kv_heads": 1}, {"d_model": 128}, {"context_length": 99}):
        stranger = KVCache(
            dataclasses.replace(model.config, **fields), 1, 99 if "context" in str(fields) else 5
        )
        with pytest.raises(GenerationError, match=r"the model needs|room for 99 tokens"):
            step.logits([3], stranger)


def test_a_model_without_a_window_forgets_nothing_and_with_one_forgets():
    far = a_model(attention_window=5)
    near = a_model(attention_window=5)
    near.config = dataclasses.replace(near.config, attention_window=None)
    assert largest_difference(far, 1) < 3e-6
    one, other = (NativeStep(m) for m in (far, near))
    caches = [KVCache(far.config, 1, 20) for _ in range(2)]
    for token_id in range(9):
        first, second = one.logits([token_id], caches[0]), other.logits([token_id], caches[1])
        assert torch.equal(first, second) == (token_id < 5)
