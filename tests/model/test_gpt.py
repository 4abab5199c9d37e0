"""The whole model: every choice against formulas written out, its errors, its dropout, its precision."""

import copy
import math

import jaxtyping
import pytest
import torch
import torch.nn.functional as F

from glassgpt.by_hand import gpt as by_hand
from glassgpt.errors import CheckpointError, ConfigError, GenerationError, TokenizerError
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.model.kv_cache import KVCache
from tests.model.tiny import (
    CONTEXT,
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


@every_choice
def test_logits_equal_the_formulas_written_out(choices):
    model, token_ids = tiny_model(tiny_config(**choices)), tiny_ids(rows=1, tokens=7)

    torch.testing.assert_close(model(token_ids)[0], by_hand.logits(model, token_ids[0]), **ROUNDING)


@pytest.mark.parametrize(
    "choices",
    [
        {"norm": "rmsnorm"},
        {"feedforward": "swiglu"},
        {"bias": False},
        {"qkv_bias": False},
        {"tied_embeddings": False},
        {"norm_eps": 0.1},
        {"norm": "rmsnorm", "norm_eps": 0.1},
        {"positions": "rope", "rope_theta": 7.0},
        {"d_ff": None},
        {"d_ff": None, "feedforward": "swiglu"},
    ],
    ids=str,
)
def test_each_choice_by_itself_equals_the_formulas_and_changes_the_logits(choices):
    model, token_ids = tiny_model(tiny_config(**choices)), tiny_ids(rows=1, tokens=5)
    logits = model(token_ids)

    torch.testing.assert_close(logits[0], by_hand.logits(model, token_ids[0]), **ROUNDING)
    assert not torch.allclose(logits, tiny_model(tiny_config())(token_ids))


def test_logits_are_the_head_applied_to_hidden():
    model, token_ids = tiny_model(tiny_config(tied_embeddings=False)), tiny_ids()

    torch.testing.assert_close(model.hidden(token_ids) @ model.head.weight.T, model(token_ids), **ROUNDING)


@pytest.mark.parametrize("tied", [True, False])
def test_one_batch_can_be_overfitted(tied):
    torch.manual_seed(0)
    model, token_ids = GPT(tiny_config(tied_embeddings=tied)), tiny_ids()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        loss = F.cross_entropy(model(token_ids[:, :-1]).flatten(0, 1), token_ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert loss < 0.05  # from ln 31 = 3.4


def test_every_parameter_gets_a_gradient():
    model = tiny_model(tiny_config())
    model(tiny_ids()).square().sum().backward()

    assert all((parameter.grad != 0).any() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("token_id", "shown"), [(V, V), (-1, -1), (10**6, 10**6)], ids=["just above", "negative", "far"]
)
def test_an_id_outside_the_vocabulary_is_named_with_the_valid_range(token_id, shown):
    model, token_ids = tiny_model(tiny_config()), tiny_ids()
    token_ids[1, 2] = token_id

    with pytest.raises(TokenizerError) as error:
        model(token_ids)

    assert str(error.value) == (
        f"Token id {shown} is outside vocab_size=31 (valid: 0–30). Was another tokenizer used?"
    )


def test_the_first_and_the_last_id_of_the_vocabulary_are_valid():
    assert tiny_model(tiny_config())(torch.tensor([[0, V - 1]])).isfinite().all()


@pytest.mark.parametrize("shape", [(T,), (1, 2, T)])
def test_token_ids_of_another_shape_are_refused_with_the_remedy(shape, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the type check would answer first
    with pytest.raises(GenerationError, match=r"needs \(B, T\).*token_ids\[None\]"):
        tiny_model(tiny_config())(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("positions", ["learned", "rope", "none"])
def test_a_full_context_fits_and_one_token_more_is_refused(positions):
    model = tiny_model(tiny_config(positions=positions))
    assert model(tiny_ids(tokens=CONTEXT)).shape == (B, CONTEXT, V)

    with pytest.raises(GenerationError, match=r"18 tokens do not fit this model's context_length of 17"):
        model(tiny_ids(tokens=CONTEXT + 1))


def test_no_tokens_give_no_logits():
    model, nothing = tiny_model(tiny_config()), torch.empty(B, 0, dtype=torch.long)
    cache = KVCache(model.config, B, T, dtype=torch.float64)
    assert model(nothing).shape == (B, 0, V)

    model(tiny_ids(tokens=5), cache)
    assert model(nothing, cache).shape == (B, 0, V)
    assert cache.n_tokens == 5


def test_a_model_without_a_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="vocab_size=0: give the model a vocabulary size"):
        GPT(ModelConfig())


@pytest.mark.parametrize("choices", [{}, {"attention_window": 5}], ids=["full", "window"])
def test_dropout_acts_in_training_and_never_in_eval_mode(choices):
    model, token_ids = tiny_model(tiny_config(dropout=0.5, **choices)), tiny_ids()
    plain = tiny_model(tiny_config(**choices))

    torch.testing.assert_close(model(token_ids), plain(token_ids), **EXACT)
    model.train()
    assert not torch.equal(model(token_ids), model(token_ids))


@pytest.mark.parametrize(
    "place", ["embeddings", "attention weights", "attention branch", "feed-forward branch"]
)
def test_dropout_acts_in_each_of_its_places(place):
    """All other places are silenced; what still varies between two passes is this one."""
    model, token_ids = tiny_model(tiny_config(n_layers=1, dropout=0.5)).train(), tiny_ids()
    block = model.blocks[0]
    if place != "embeddings":
        model.dropout.eval()
    if place != "attention weights":
        block.attention.eval()
    if "branch" not in place:
        block.dropout.eval()
    with torch.no_grad():
        silent = {
            "attention branch": block.feedforward.down_proj,
            "feed-forward branch": block.attention.o_proj,
        }
        if place in silent:
            silent[place].weight.zero_()
            silent[place].bias.zero_()

    assert not torch.equal(model(token_ids), model(token_ids))


def test_dropout_keeps_the_mean_of_what_it_passes():
    """Survivors are scaled by 1 / (1 − p), so the residual stream has the same mean in both modes."""
    model = tiny_model(tiny_config(dropout=0.5))
    ones = torch.ones(1000, 100)

    assert model.train().dropout(ones).mean().sub(1).abs() < 0.02  # √(1 / 100,000) = 0.003, six times over


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_bfloat16_gives_nearly_the_logits_of_float32(positions):
    torch.manual_seed(0)
    model, token_ids = GPT(tiny_config(positions=positions)), tiny_ids()
    expected = model(token_ids)

    logits = copy.deepcopy(model).to(torch.bfloat16)(token_ids)

    assert logits.dtype == torch.bfloat16
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()  # 8 bits: 0.4 % an operation


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_autocast_to_bfloat16_gives_nearly_the_logits_of_float32_and_gradients_in_float32(positions):
    torch.manual_seed(0)
    model, token_ids = GPT(tiny_config(positions=positions)), tiny_ids()
    expected = model(token_ids)

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(token_ids)
        cache = KVCache(model.config, B, T)
        cached = torch.cat([model(token_ids[:, :5], cache), model(token_ids[:, 5:], cache)], dim=1)
    logits.float().sum().backward()

    assert logits.dtype == torch.bfloat16
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    assert (cached - expected).abs().max() < 0.05 * expected.abs().max()
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_untrained_model_knows_nothing():
    """Its loss is that of a uniform guess, ln V: the logits start small against 1."""
    torch.manual_seed(0)
    model = GPT(tiny_config(vocab_size=997))
    token_ids = torch.randint(997, (7, CONTEXT))

    loss = F.cross_entropy(model(token_ids[:, :-1]).flatten(0, 1), token_ids[:, 1:].flatten())

    assert abs(loss.item() - math.log(997)) < 0.05  # logits of deviation 0.02 √60 = 0.15 add 0.15² / 2


def test_all_layers_are_used():
    model, token_ids = tiny_model(tiny_config()), tiny_ids()
    assert len(model.blocks) == L
    for block in model.blocks:
        shorter = copy.deepcopy(model)
        shorter.blocks = torch.nn.ModuleList(
            b for i, b in enumerate(shorter.blocks) if model.blocks[i] is not block
        )
        assert not torch.allclose(shorter(token_ids), model(token_ids))


# ---- the tied head ----


@pytest.mark.parametrize("assign", [False, True])
def test_a_tied_head_is_tied_after_its_state_is_loaded(assign):
    model, other = tiny_model(tiny_config()), tiny_model(tiny_config(), seed=1)
    state = {name: tensor.clone() for name, tensor in other.state_dict().items()}

    model.load_state_dict(state, assign=assign)

    assert model.head.weight is model.token_embedding.weight
    assert model.n_parameters == other.n_parameters
    torch.testing.assert_close(model(tiny_ids()), other(tiny_ids()), **EXACT)


@pytest.mark.parametrize("assign", [False, True])
def test_a_head_of_its_own_is_not_loaded_over_a_tied_one(assign):
    model, untied = tiny_model(tiny_config()), tiny_model(tiny_config(tied_embeddings=False), seed=1)
    before = model(tiny_ids())

    with pytest.raises(CheckpointError, match=r"head\.weight differs.*tied_embeddings=False"):
        model.load_state_dict(untied.state_dict(), assign=assign)

    torch.testing.assert_close(model(tiny_ids()), before, **EXACT)
    tiny_model(tiny_config(tied_embeddings=False)).load_state_dict(untied.state_dict(), assign=assign)


def test_a_head_that_is_loaded_without_its_embedding_stays():
    model = tiny_model(tiny_config())
    head = torch.ones_like(model.head.weight)
    model.load_state_dict({"head.weight": head}, strict=False, assign=True)
    torch.testing.assert_close(model.head.weight.detach(), head, **EXACT)
