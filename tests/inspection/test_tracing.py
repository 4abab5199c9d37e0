"""`trace` reports what the model computed, and leaves no trace of its own."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from glassgpt.errors import DataError, TokenizerError
from glassgpt.generation import SamplingConfig, generate
from glassgpt.inspection import logit_lens, trace
from glassgpt.model.gpt import GPT
from tests.model.tiny import (
    DH,
    EXACT,
    ROUNDING,
    B,
    H,
    L,
    T,
    V,
    every_choice,
    tiny_config,
    tiny_ids,
    tiny_model,
)

WIDTH = 29  # F is taken by torch.nn.functional here


def outputs_of(model, modules, token_ids):
    """What each of `modules` returns while `model` reads, by our own hooks."""
    kept = {}
    handles = [
        module.register_forward_hook(lambda m, _, output, name=name: kept.update({name: output}))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        model(token_ids)
    for handle in handles:
        handle.remove()
    return kept


def hooks_of(model):
    return [
        hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)
    ]


@every_choice
def test_weights_times_values_through_o_proj_are_what_the_fused_attention_returned(choices):
    model, token_ids = tiny_model(tiny_config(**choices)), tiny_ids()
    attentions = {layer: block.attention for layer, block in enumerate(model.blocks)}
    returned = outputs_of(model, attentions, token_ids)

    seen = trace(model, token_ids)

    for layer, attention in attentions.items():
        values = seen.values[layer].repeat_interleave(H // model.config.kv_heads, dim=1)  # (B, H, T, Dh)
        mixed = seen.attention_weights[layer] @ values
        ours = attention.o_proj(mixed.transpose(1, 2).reshape(B, T, H * DH))
        torch.testing.assert_close(ours, returned[layer], **ROUNDING)


@every_choice
def test_every_row_of_weights_sums_to_one_and_looks_only_back_and_into_the_window(choices):
    model = tiny_model(tiny_config(**choices))

    weights = trace(model, tiny_ids()).attention_weights

    assert weights.shape == (L, B, H, T, T)
    torch.testing.assert_close(weights.sum(-1), torch.ones(L, B, H, T, dtype=torch.float64), **ROUNDING)
    query, key = torch.arange(T)[:, None], torch.arange(T)
    visible = (key <= query) & (key > query - (choices["attention_window"] or T))
    assert (weights[..., ~visible] == 0).all()
    assert (weights[..., visible] > 0).all()


@every_choice
def test_logits_are_the_models_own_bit_for_bit_and_no_hook_stays(choices):
    model, token_ids = tiny_model(tiny_config(**choices)), tiny_ids()
    expected = model(token_ids)

    seen = trace(model, token_ids)

    torch.testing.assert_close(seen.logits, expected.detach(), **EXACT)
    assert hooks_of(model) == []
    torch.testing.assert_close(model(token_ids), expected, **EXACT)


@every_choice
def test_the_stream_begins_with_the_embeddings_and_grows_by_what_the_blocks_return(choices):
    model, token_ids = tiny_model(tiny_config(**choices)), tiny_ids()
    returned = outputs_of(model, dict(enumerate(model.blocks)), token_ids)
    embeddings = model.token_embedding(token_ids)
    if choices["positions"] == "learned":
        embeddings = embeddings + model.position_embedding.weight[:T]

    seen = trace(model, token_ids)

    assert seen.residual.shape == (L + 1, B, T, H * DH)
    torch.testing.assert_close(seen.embeddings, embeddings.detach(), **EXACT)
    for layer in range(L):
        torch.testing.assert_close(seen.residual[layer + 1], returned[layer], **EXACT)


@pytest.mark.parametrize("feedforward", ["gelu", "swiglu"])
def test_mlp_activations_through_down_proj_are_what_the_feedforward_returned(feedforward):
    model, token_ids = tiny_model(tiny_config(feedforward=feedforward)), tiny_ids()
    returned = outputs_of(
        model, {layer: block.feedforward for layer, block in enumerate(model.blocks)}, token_ids
    )

    activations = trace(model, token_ids).mlp_activations

    assert activations.shape == (L, B, T, WIDTH)
    for layer, block in enumerate(model.blocks):
        torch.testing.assert_close(
            block.feedforward.down_proj(activations[layer]), returned[layer], **ROUNDING
        )


def test_the_logit_lens_reads_the_models_logits_from_the_last_stream():
    model, token_ids = tiny_model(tiny_config()), tiny_ids()
    seen = trace(model, token_ids)

    logits = logit_lens(model, seen.residual)

    assert logits.shape == (L + 1, B, T, V)
    torch.testing.assert_close(logits[-1], seen.logits, **EXACT)
    first = F.layer_norm(
        seen.embeddings, [H * DH], model.final_norm.weight, model.final_norm.bias, model.config.norm_eps
    )
    torch.testing.assert_close(logits[0], (first @ model.token_embedding.weight.T).detach(), **ROUNDING)


def test_dropout_is_off_while_tracing_and_each_module_keeps_its_mode():
    model, token_ids = tiny_model(tiny_config(dropout=0.5)), tiny_ids()
    expected = model(token_ids).detach()
    model.train()
    model.blocks[1].eval()  # as when some layers are frozen

    seen = trace(model, token_ids)

    torch.testing.assert_close(seen.logits, expected, **EXACT)
    assert model.training
    assert model.blocks[0].dropout.training
    assert not model.blocks[1].dropout.training


def test_nothing_that_trace_returns_holds_a_graph():
    seen = trace(tiny_model(tiny_config()), tiny_ids())

    tensors = [seen.residual, seen.attention_weights, seen.values, seen.mlp_activations, seen.logits]
    assert not any(tensor.requires_grad for tensor in tensors)


def test_after_an_exception_no_hook_stays_and_the_mode_is_back():
    model = tiny_model(tiny_config()).train()
    token_ids = tiny_ids()

    with pytest.raises(TokenizerError, match="outside vocab_size"):
        trace(model, token_ids + V)
    model.blocks[1].feedforward.down_proj = torch.nn.Linear(7, 7).double()  # fails half-way
    with pytest.raises(RuntimeError):
        trace(model, token_ids)

    assert hooks_of(model) == []
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("shape", [(T,), (2, 0), (0, T), (1, 2, T)])
def test_token_ids_of_another_shape_are_refused_with_the_remedy(shape):
    with pytest.raises(DataError, match=r"needs \(B, T\).*token_ids\[None\]"):
        trace(tiny_model(tiny_config()), torch.zeros(shape, dtype=torch.int64))


def test_one_token_looks_at_itself():
    weights = trace(tiny_model(tiny_config()), tiny_ids(tokens=1)).attention_weights

    assert weights.shape == (L, B, H, 1, 1)
    assert (weights == 1).all()


CHOICES = [{}, {"positions": "rope", "n_kv_heads": 3, "attention_window": 5}]


@pytest.mark.parametrize("choices", CHOICES)
def test_a_bfloat16_model_is_traced_in_its_precision_with_weights_in_float32(choices):
    compare_in_bfloat16("cpu", choices)


@pytest.mark.parametrize("choices", CHOICES)
def test_a_bfloat16_model_on_a_gpu_is_traced_so_too(gpu, choices):
    compare_in_bfloat16(gpu, choices)


def compare_in_bfloat16(device, choices):
    torch.manual_seed(0)
    model = GPT(tiny_config(**choices)).to(device, torch.bfloat16).eval()
    token_ids = tiny_ids().to(device)

    seen = trace(model, token_ids)

    assert seen.attention_weights.dtype == torch.float32
    assert seen.residual.dtype == seen.logits.dtype == torch.bfloat16
    torch.testing.assert_close(seen.logits, model(token_ids).detach(), **EXACT)
    sums = seen.attention_weights.sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))  # float32's own rounding


def test_under_autocast_the_weights_are_those_of_the_narrow_queries_and_keys():
    torch.manual_seed(0)
    model, token_ids = GPT(tiny_config()).eval(), tiny_ids()

    with torch.autocast("cpu", torch.bfloat16):
        seen, expected = trace(model, token_ids), model(token_ids).detach()
        qkv = outputs_of(model, {0: model.blocks[0].attention.qkv_proj}, token_ids)[0]

    torch.testing.assert_close(seen.logits, expected, **EXACT)
    q, k, _ = (part.float().view(B, T, H, DH).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    scores = (q @ k.transpose(-2, -1) / math.sqrt(DH)).masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
    torch.testing.assert_close(seen.attention_weights[0], scores.softmax(-1))  # float32's own rounding


def test_what_another_thread_computes_meanwhile_is_not_in_the_trace():
    model, token_ids = tiny_model(tiny_config()), tiny_ids()
    expected = trace(model, token_ids)

    def read_in_between(*_):
        if threading.current_thread() is threading.main_thread():
            pool.submit(model, tiny_ids(rows=1, tokens=3)).result()

    with ThreadPoolExecutor(1) as pool:
        for module in (model.blocks[1].attention.o_proj, model.final_norm):
            module.register_forward_pre_hook(read_in_between)
        seen = trace(model, token_ids)

    for name, tensor in vars(seen).items():
        torch.testing.assert_close(tensor, getattr(expected, name), **EXACT)


def logits_of_a_trace(model, token_ids):
    return trace(model, token_ids).logits


def a_text(model, token_ids):
    return list(generate(model, token_ids, SamplingConfig(temperature=0.0, max_new_tokens=3)))


@pytest.mark.parametrize("work", [logits_of_a_trace, a_text])
def test_a_thread_that_leaves_brings_no_dropout_back_for_one_that_still_computes(work):
    model, token_ids = tiny_model(tiny_config(dropout=0.5)), tiny_ids()
    expected = model(token_ids).detach(), work(model, token_ids)
    model.train()
    other_began, this_ended = threading.Event(), threading.Event()
    others = []

    def meet(*_):
        if threading.current_thread() is not threading.main_thread():
            other_began.set()
            this_ended.wait(60)
        elif not others:
            others.append(pool.submit(work, model, token_ids))
            assert other_began.wait(60)

    with ThreadPoolExecutor(1) as pool:
        model.blocks[0].register_forward_pre_hook(meet)
        seen = trace(model, token_ids)
        this_ended.set()
        torch.testing.assert_close((seen.logits, others[0].result()), expected, **EXACT)

    assert all(module.training for module in model.modules())
