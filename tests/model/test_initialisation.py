"""Weights start as GPT-2's did, and a tied head stays tied."""

import copy
import math

import pytest
import torch

from glassgpt.model.config import gpt2
from glassgpt.model.gpt import GPT
from tests.model.tiny import L, V, tiny_config, tiny_ids

RESIDUAL = 0.02 / math.sqrt(2 * L)
DEVIATIONS = {
    "token_embedding.weight": 0.02,
    "position_embedding.weight": 0.01,
    "attention.qkv_proj.weight": 0.02,
    "attention.o_proj.weight": RESIDUAL,
    "feedforward.gate_proj.weight": 0.02,
    "feedforward.up_proj.weight": 0.02,
    "feedforward.down_proj.weight": RESIDUAL,
    "head.weight": 0.02,
}


def larger_model(**choices):
    torch.manual_seed(0)
    return GPT(tiny_config(vocab_size=499, context_length=101, d_ff=263, **choices))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("feedforward", ["gelu", "swiglu"])
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_every_weight_starts_as_documented(tied, feedforward, norm):
    model = larger_model(tied_embeddings=tied, feedforward=feedforward, norm=norm)

    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert (weight == 0).all(), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        else:
            (deviation,) = (std for ending, std in DEVIATIONS.items() if name.endswith(ending))
            # The deviation of n normal numbers is off by 1 / √(2n) of itself; five times that.
            assert weight.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel())), (
                name
            )
            assert weight.mean().abs() < 5 * deviation / math.sqrt(weight.numel()), name
            assert weight.abs().max() > 3 * deviation, f"{name} is not normal"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([weight.flatten() for weight in GPT(tiny_config()).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_initialise_sets_a_changed_model_back():
    model = larger_model()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(7.0)

    model.initialise()

    for name, weight in model.state_dict().items():
        assert weight.std().item() == pytest.approx(before[name].std().item(), rel=0.1), name
        assert weight.mean().item() == pytest.approx(before[name].mean().item(), abs=0.002), name


WAYS = {
    "built": lambda model: model,
    "in another dtype": lambda model: model.to(torch.bfloat16),
    "copied": copy.deepcopy,
    "uninitialised": lambda model: GPT.uninitialised(model.config),
    "uninitialised in another dtype": lambda model: GPT.uninitialised(model.config, dtype=torch.float16),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_tied_head_is_the_token_embedding_itself(way):
    model = WAYS[way](GPT(tiny_config()))

    assert model.head.weight is model.token_embedding.weight
    assert [name for name, _ in model.named_parameters() if name == "head.weight"] == []


def test_a_tied_head_is_still_tied_after_loading_a_state_dict():
    model, other = GPT(tiny_config()), GPT(tiny_config())
    model.load_state_dict(other.state_dict())

    assert model.head.weight is model.token_embedding.weight
    assert torch.equal(model.head.weight, other.token_embedding.weight)


def test_a_copy_is_not_tied_to_its_original():
    model = GPT(tiny_config())

    assert copy.deepcopy(model).head.weight is not model.head.weight


def test_training_a_tied_model_moves_head_and_embedding_as_one():
    torch.manual_seed(0)
    model = GPT(tiny_config())
    before = model.token_embedding.weight.detach().clone()
    model(torch.full((1, 2), 3)).logsumexp(-1).sum().backward()
    gradient = model.token_embedding.weight.grad
    assert (gradient != 0).any(dim=-1).all()  # the head's share: every token's row, not only that of token 3

    torch.optim.SGD(model.parameters(), lr=0.1).step()

    assert torch.equal(model.head.weight, model.token_embedding.weight)
    torch.testing.assert_close(model.head.weight, before - 0.1 * gradient)


def test_an_untied_head_is_a_matrix_of_its_own():
    torch.manual_seed(0)
    model, token_ids = GPT(tiny_config(tied_embeddings=False)), tiny_ids()
    logits = model(token_ids)
    with torch.no_grad():
        model.head.weight.zero_()

    assert not torch.equal(model.token_embedding.weight, torch.zeros(V, model.config.d_model))
    assert (model(token_ids) == 0).all()
    assert (logits != 0).any()


@pytest.mark.parametrize("tied", [True, False])
def test_an_uninitialised_model_has_the_shapes_and_dtypes_of_one_that_was_built(tied):
    config = tiny_config(tied_embeddings=tied)
    built = {name: (weight.shape, weight.dtype) for name, weight in GPT(config).state_dict().items()}

    empty = GPT.uninitialised(config)

    assert {name: (weight.shape, weight.dtype) for name, weight in empty.state_dict().items()} == built
    assert all(parameter.requires_grad for parameter in empty.parameters())


def test_an_uninitialised_model_draws_no_numbers():
    before = torch.random.get_rng_state()

    GPT.uninitialised(gpt2("1558M"), device="meta")

    assert torch.equal(torch.random.get_rng_state(), before)
