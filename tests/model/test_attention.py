"""Attention against loops over single queries, and what it may and may not see."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode

from glassgpt.by_hand import attention as by_hand
from glassgpt.model import attention
from glassgpt.model.attention import (
    CausalSelfAttention,
    Surroundings,
    _attend,
    _attend_grouped,
    _attend_in_products,
)
from glassgpt.model.config import ModelConfig
from glassgpt.model.positions import attention_mask, rotary_angles, rotate
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

heads = pytest.mark.parametrize("n_kv_heads", [6, 3, 1], ids=["multi-head", "grouped", "multi-query"])
biases = pytest.mark.parametrize(
    ("bias", "qkv_bias"), [(True, True), (False, True), (True, False), (False, False)]
)


def attention_layer(config: ModelConfig) -> CausalSelfAttention:
    return tiny_model(config).blocks[1].attention


def attend(attention: CausalSelfAttention, x: Tensor) -> Tensor:
    config, n_tokens = attention.config, x.shape[1]
    rotary = None
    if config.positions == "rope":
        rotary = rotary_angles(torch.arange(n_tokens), config.d_head, config.rope_theta, x.dtype)
    mask = attention_mask(n_tokens, n_tokens, config.attention_window, None, x.device)
    return attention(x, Surroundings(mask, rotary, None))


@heads
@pytest.mark.parametrize("positions", ["none", "rope"])
@pytest.mark.parametrize("window", [None, 1, 5])
def test_attention_equals_a_loop_over_single_queries(n_kv_heads, positions, window):
    attention = attention_layer(
        tiny_config(n_kv_heads=n_kv_heads, positions=positions, attention_window=window)
    )
    x = torch.randn(B, T, H * DH, dtype=torch.float64)

    torch.testing.assert_close(attend(attention, x), by_hand.attend(attention, x), **ROUNDING)


@heads
@biases
def test_attention_equals_one_einsum_over_all_heads(n_kv_heads, bias, qkv_bias):
    """The weights are named and multiplied here, so this one also sees a bias that is left out."""
    attention = attention_layer(
        tiny_config(n_kv_heads=n_kv_heads, bias=bias, qkv_bias=qkv_bias, positions="none")
    )
    x = torch.randn(B, T, H * DH, dtype=torch.float64)
    assert (attention.o_proj.bias is not None, attention.qkv_proj.bias is not None) == (bias, qkv_bias)

    projected = torch.einsum("btd,ed->bte", x, attention.qkv_proj.weight)
    if qkv_bias:
        projected = projected + attention.qkv_proj.bias
    q, k, v = projected.split([H * DH, n_kv_heads * DH, n_kv_heads * DH], dim=-1)
    q = q.reshape(B, T, n_kv_heads, H // n_kv_heads, DH)
    k, v = k.reshape(B, T, n_kv_heads, DH), v.reshape(B, T, n_kv_heads, DH)
    scores = torch.einsum("btgnd,bsgd->bgnts", q, k) / DH**0.5
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    mixed = torch.einsum("bgnts,bsgd->btgnd", weights, v).reshape(B, T, H * DH)
    expected = torch.einsum("btd,ed->bte", mixed, attention.o_proj.weight)
    if bias:
        expected = expected + attention.o_proj.bias

    torch.testing.assert_close(attend(attention, x), expected, **ROUNDING)


@every_choice
def test_changing_a_token_never_changes_logits_before_it(choices):
    model, token_ids = tiny_model(tiny_config(**choices)), tiny_ids()
    logits = model(token_ids)

    for t in range(T):
        changed = token_ids.clone()
        changed[:, t] = (changed[:, t] + 1) % V
        after = model(changed)
        torch.testing.assert_close(after[:, :t], logits[:, :t], **EXACT)
        assert not torch.equal(after[:, t], logits[:, t])


@pytest.mark.parametrize("positions", ["learned", "rope", "none"])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_sight_ends_window_minus_one_tokens_back_in_each_layer(positions, window):
    model, token_ids = tiny_model(tiny_config(positions=positions, attention_window=window)), tiny_ids()
    reach = L * (window - 1)  # each layer hands on what it saw

    for t in range(T - 1):
        changed = token_ids.clone()
        changed[:, t] = (changed[:, t] + 1) % V
        differs = (model(changed) != model(token_ids)).any(dim=-1)  # (B, T)
        seen = torch.zeros(T, dtype=torch.bool)
        seen[t : t + reach + 1] = True
        assert torch.equal(differs, seen.expand(B, T))


@heads
def test_attention_in_products_equals_the_fused_kernel_with_its_gradients(n_kv_heads):
    q = torch.randn(B, H, T, DH, dtype=torch.float64, requires_grad=True)
    k, v = torch.randn(2, B, n_kv_heads, T, DH, dtype=torch.float64, requires_grad=True)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    mixed = _attend_in_products(q, k, v, 0.0)

    torch.testing.assert_close(mixed, expected, **ROUNDING)
    gradients = torch.autograd.grad(mixed.square().sum(), (q, k, v))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), (q, k, v)), **ROUNDING)


@pytest.mark.parametrize("n_queries", [1, T])
@pytest.mark.parametrize("n_kv_heads", [3, 2, 1])
def test_grouped_attention_without_pytorchs_groups_is_the_same(n_kv_heads, n_queries):
    q = torch.randn(B, H, n_queries, DH, dtype=torch.float64, requires_grad=True)
    k, v = torch.randn(2, B, n_kv_heads, T, DH, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(B, 1, n_queries, T) < 0.7
    mask[..., -1] = True
    expected = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)

    mixed = _attend_grouped(q, k, v, mask, 0.0)

    torch.testing.assert_close(mixed, expected, **ROUNDING)
    gradients = torch.autograd.grad(mixed.square().sum(), (q, k, v))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), (q, k, v)), **ROUNDING)


@pytest.mark.parametrize(
    ("device", "n_kv_heads", "masked", "expected"),
    [("cuda", 2, True, 1), ("cuda", 2, False, 0), ("cuda", 6, True, 0), ("cpu", 2, True, 0)],
)
def test_on_a_gpu_a_mask_and_groups_go_without_pytorchs_groups(
    device, n_kv_heads, masked, expected, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        attention, "_attend_grouped", lambda *args: calls.append(args) or _attend_grouped(*args)
    )
    with FakeTensorMode():  # shapes and devices, and no numbers
        q = torch.empty(B, 6, T, DH, device=device)
        k, v = (torch.empty(B, n_kv_heads, T, DH, device=device) for _ in range(2))
        mask = torch.ones(B, 1, T, T, dtype=torch.bool, device=device) if masked else None
        assert _attend(q, k, v, mask, 0.0).shape == q.shape
    assert len(calls) == expected


def test_attention_in_products_drops_weights_and_makes_up_for_it():
    q, k = torch.randn(2, 1, 7, 5, DH)
    kept = torch.stack([_attend_in_products(q, k, torch.ones_like(k), 0.25) for _ in range(500)])

    assert kept.min() == 0  # the first token sees one weight only
    torch.testing.assert_close(kept.mean(), torch.tensor(1.0), rtol=0, atol=0.02)  # 5 deviations of the mean


@heads
@pytest.mark.parametrize(
    ("n_tokens", "in_products"), [(4 * DH, 1), (4 * DH + 1, 0)], ids=["in products", "fused, in float32"]
)
@pytest.mark.parametrize("positions", ["none", "rope"])
def test_attention_in_bfloat16_on_a_cpu_stays_close_to_float32_and_keeps_few_weights(
    monkeypatch, n_kv_heads, n_tokens, in_products, positions
):
    config = tiny_config(n_kv_heads=n_kv_heads, positions=positions, context_length=99)
    layer = attention_layer(config).float()
    x = torch.randn(B, n_tokens, H * DH)
    expected = attend(layer, x)
    calls = []
    monkeypatch.setattr(
        attention, "_attend_in_products", lambda *args: calls.append(args) or _attend_in_products(*args)
    )

    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(layer, x)

    assert len(calls) == in_products
    assert mixed.dtype == torch.bfloat16
    assert (mixed - expected).abs().max() < 0.03 * expected.abs().max()  # 8 bits: 0.4 % an operation


def test_rows_of_a_batch_do_not_see_each_other():
    model, token_ids = tiny_model(tiny_config()), tiny_ids()
    changed = token_ids.clone()
    changed[1] = (changed[1] + 1) % V

    before, after = model(token_ids), model(changed)

    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], **EXACT)
    assert not torch.equal(after[1], before[1])


def test_rope_scores_depend_only_on_the_distance():
    q, k = torch.randn(2, 1, 1, 1, DH, dtype=torch.float64)

    def score(at: int, back: int) -> Tensor:
        angles = rotary_angles(torch.tensor([at, at - back]), DH, 10_000.0, torch.float64)
        cos, sin = angles[0][0], angles[1][0]
        return (rotate(q, cos[None, :1], sin[None, :1]) * rotate(k, cos[None, 1:], sin[None, 1:])).sum()

    for back in (0, 1, 7):
        torch.testing.assert_close(score(7, back), score(911, back), **ROUNDING)
    assert abs(score(911, 7) - score(911, 1)) > 0.01


def test_rope_tells_neighbours_apart_in_bfloat16():
    """bfloat16 holds 8 bits: positions computed in it would put 256 and 257 at the same angle."""
    cos, sin = rotary_angles(torch.tensor([256, 257]), DH, 10_000.0, torch.bfloat16)

    assert cos.dtype == sin.dtype == torch.bfloat16
    assert (cos[0, 0, 0] - cos[0, 1, 0]).abs() > 0.1


def test_attention_without_positions_still_knows_the_order():
    """A causal model sees more tokens the later it stands (arXiv:2203.16634), so order shows even so."""
    model = tiny_model(tiny_config(positions="none"))
    first, second = model(torch.tensor([[2, 3, 5]])), model(torch.tensor([[3, 2, 5]]))

    assert not torch.allclose(first[0, -1], second[0, -1])
