"""The cache changes when things are computed, never what."""

import pytest
import torch

from glassgpt.errors import GenerationError, TokenizerError
from glassgpt.model.costs import estimate
from glassgpt.model.kv_cache import KVCache
from tests.model.tiny import (
    CONTEXT,
    DH,
    EXACT,
    ROUNDING,
    B,
    L,
    T,
    V,
    every_choice,
    tiny_config,
    tiny_ids,
    tiny_model,
)

IN_PIECES = [[T], [1] * T, [3, 5, 2, 3], [T - 1, 1]]


def cache_for(model, n_padding=None, max_tokens=T):
    return KVCache(model.config, B, max_tokens, n_padding=n_padding, dtype=torch.float64)


def read_in(model, token_ids, pieces, cache):
    return torch.cat([model(piece, cache) for piece in token_ids.split(pieces, dim=1)], dim=1)


@every_choice
def test_logits_with_a_cache_equal_those_without_however_the_text_is_cut(choices):
    model, token_ids = tiny_model(tiny_config(**choices)), tiny_ids()
    expected = model(token_ids)

    for pieces in IN_PIECES:
        cache = cache_for(model)
        torch.testing.assert_close(read_in(model, token_ids, pieces, cache), expected, **ROUNDING)
        assert cache.n_tokens == T


@every_choice
def test_a_row_with_padding_on_the_left_equals_the_row_alone(choices):
    model, n_padding = tiny_model(tiny_config(**choices)), torch.tensor([0, 3, 7])
    token_ids = tiny_ids()  # the padding is made of tokens too, and of different ones in each row

    for pieces in ([T], [5, 6, 1, 1]):  # the cut after 5 falls inside the third row's padding
        logits = read_in(model, token_ids, pieces, cache_for(model, n_padding))
        assert logits.isfinite().all()
        for row, n in enumerate(n_padding):
            alone = model(token_ids[row : row + 1, n:])[0]
            torch.testing.assert_close(logits[row, n:], alone, **ROUNDING)


@every_choice
@pytest.mark.parametrize("n_padding", [None, [0, 3, 7]], ids=["no padding", "padding"])
def test_prefilling_leaves_the_cache_that_logits_leave(choices, n_padding):
    model, token_ids = tiny_model(tiny_config(**choices)), tiny_ids()
    padding = None if n_padding is None else torch.tensor(n_padding)
    read, prefilled = cache_for(model, padding), cache_for(model, padding)

    for piece in token_ids.split([8, 4, 1], dim=1):
        model(piece, read)
        assert model.prefill(piece, prefilled) is None
        n = read.n_tokens
        assert prefilled.n_tokens == n
        torch.testing.assert_close(prefilled.keys[:, :, :, :n], read.keys[:, :, :, :n], **EXACT)
        torch.testing.assert_close(prefilled.values[:, :, :, :n], read.values[:, :, :, :n], **EXACT)


def test_prefilling_leaves_out_most_of_the_last_block():
    model, token_ids = tiny_model(tiny_config()), tiny_ids()
    seen = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))

    model.prefill(token_ids, cache_for(model))

    last = [name.removeprefix(f"blocks.{L - 1}.") for name in seen if name.startswith(f"blocks.{L - 1}")]
    assert last == ["attention_norm", "attention.qkv_proj"]
    assert f"blocks.{L - 2}" in seen
    assert not {"final_norm", "head"} & set(seen)


def test_prefilling_builds_no_graph():
    model, graphs = tiny_model(tiny_config()), []
    model.blocks[0].register_forward_hook(lambda _, __, x: graphs.append(x.requires_grad))

    model(tiny_ids(), cache_for(model))
    model.prefill(tiny_ids(), cache_for(model))

    assert graphs == [True, False]


def test_prefilling_refuses_what_reading_refuses():
    model = tiny_model(tiny_config())
    with pytest.raises(GenerationError, match="The cache holds 3 rows, and was given 2"):
        model.prefill(tiny_ids(rows=2), cache_for(model))
    with pytest.raises(GenerationError, match="at most 12 tokens; 13 more"):
        model.prefill(tiny_ids(), cache_for(model, max_tokens=T - 1))
    with pytest.raises(TokenizerError, match="Token id 31 is outside vocab_size=31"):
        model.prefill(torch.full((B, T), V), cache_for(model))


def test_what_the_padding_is_made_of_does_not_matter():
    model, n_padding = tiny_model(tiny_config()), torch.tensor([0, 3, 7])
    token_ids = tiny_ids()
    other = token_ids.clone()
    other[1, :3], other[2, :7] = V - 1, 0

    before = model(token_ids, cache_for(model, n_padding))
    after = model(other, cache_for(model, n_padding))

    for row, n in enumerate(n_padding):
        torch.testing.assert_close(after[row, n:], before[row, n:], **EXACT)


def test_a_cache_larger_than_the_text_changes_nothing():
    model, token_ids = tiny_model(tiny_config()), tiny_ids()

    logits = model(token_ids, cache_for(model, max_tokens=CONTEXT))

    torch.testing.assert_close(logits, model(token_ids), **ROUNDING)


@pytest.mark.parametrize("n_padding", [None, [0, 3, 7]], ids=["no padding", "padding"])
def test_after_reset_a_cache_is_as_good_as_new(n_padding):
    model = tiny_model(tiny_config())
    padding = None if n_padding is None else torch.tensor(n_padding)
    used = cache_for(model, padding)
    read_in(model, tiny_ids(seed=2), [7, 5, 1], used)
    used.reset()
    assert used.n_tokens == 0

    token_ids = tiny_ids(seed=3)

    torch.testing.assert_close(
        read_in(model, token_ids, [5, 8], used),
        read_in(model, token_ids, [5, 8], cache_for(model, padding)),
        **EXACT,
    )


@pytest.mark.parametrize("n_kv_heads", [6, 3, 1])
@pytest.mark.parametrize(("dtype", "bytes_per_number"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_its_bytes_are_those_of_the_formula_and_of_the_estimate(n_kv_heads, dtype, bytes_per_number):
    config = tiny_config(n_kv_heads=n_kv_heads)
    cache = KVCache(config, B, T, dtype=dtype)

    assert cache.n_bytes == 2 * L * B * n_kv_heads * T * DH * bytes_per_number
    costs = estimate(config, bytes_per_number=bytes_per_number)
    assert cache.n_bytes == costs.cache_bytes_per_token * B * T


def test_it_grows_by_nothing_while_text_is_read():
    model = tiny_model(tiny_config())
    cache = cache_for(model)
    memory = (cache.keys.data_ptr(), cache.values.data_ptr(), cache.n_bytes)

    read_in(model, tiny_ids(), [1] * T, cache)

    assert (cache.keys.data_ptr(), cache.values.data_ptr(), cache.n_bytes) == memory


@pytest.mark.parametrize("max_tokens", [0, -1, CONTEXT + 1])
def test_a_size_outside_the_context_is_refused(max_tokens):
    with pytest.raises(GenerationError, match=rf"max_tokens={max_tokens} does not fit context_length=17"):
        KVCache(tiny_config(), B, max_tokens)


def test_padding_of_another_number_of_rows_is_refused():
    with pytest.raises(GenerationError, match=r"n_padding has shape \(2,\).* each of the 3 rows"):
        KVCache(tiny_config(), B, T, n_padding=torch.tensor([0, 1]))


@pytest.mark.parametrize("n", [-1, T, T + 5])
def test_padding_that_leaves_a_row_without_a_token_is_refused(n):
    with pytest.raises(GenerationError, match=r"each number must be 0 to 12"):
        KVCache(tiny_config(), B, T, n_padding=torch.tensor([0, n, 0]))


def test_another_number_of_rows_is_refused():
    model = tiny_model(tiny_config())
    with pytest.raises(GenerationError, match="The cache holds 3 rows, and was given 2"):
        model(tiny_ids(rows=2), cache_for(model))


def test_more_tokens_than_it_holds_are_refused_and_it_stays_as_it_was():
    model, token_ids = tiny_model(tiny_config()), tiny_ids()
    cache = cache_for(model)
    model(token_ids[:, :11], cache)

    with pytest.raises(GenerationError, match="holds 11 of at most 13 tokens; 3 more do not fit"):
        model(token_ids[:, :3], cache)

    rest = model(token_ids[:, 11:], cache)
    torch.testing.assert_close(rest, model(token_ids)[:, 11:], **ROUNDING)


def test_a_cache_keeps_no_graph():
    model = tiny_model(tiny_config())
    cache = KVCache(model.config, B, T, dtype=torch.float64)
    for token_ids in tiny_ids().split(1, dim=1):
        model(token_ids, cache)
    assert not cache.keys.requires_grad
    assert not cache.values.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_logits_are_the_same_with_gradients_and_without(dtype):
    model = tiny_model(tiny_config())
    cache, other = (KVCache(model.config, B, T, dtype=dtype) for _ in range(2))
    for token_ids in tiny_ids().split([4, 1, T - 5], dim=1):
        logits = model(token_ids, cache)
        with torch.no_grad():
            torch.testing.assert_close(model(token_ids, other), logits, **EXACT)


@every_choice
def test_gradients_of_a_call_are_those_without_a_cache_where_it_holds_nothing(choices):
    model, again = (tiny_model(tiny_config(**choices)) for _ in range(2))
    model(tiny_ids()).square().sum().backward()
    again(tiny_ids(), KVCache(again.config, B, T, dtype=torch.float64)).square().sum().backward()
    gradients = [[parameter.grad for parameter in one.parameters()] for one in (again, model)]
    # Sums over all 39 tokens, up to 1e5.
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-9)


def test_gradients_of_each_call_end_at_what_the_cache_held_before():
    model, token_ids = tiny_model(tiny_config()), tiny_ids()
    cache = KVCache(model.config, B, T, dtype=torch.float64)
    first, second = model(token_ids[:, :5], cache), model(token_ids[:, 5:], cache)
    (first.sum() + second.sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_padding_is_the_caches_own():
    n_padding = torch.tensor([0, 3])
    cache = KVCache(tiny_config(), 2, T, n_padding=n_padding)
    n_padding[1] = 0
    assert cache.n_padding.tolist() == [0, 3]
