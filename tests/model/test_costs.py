"""Estimates from the configuration alone, against models that were really built and run."""

from itertools import product

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glassgpt.model.config import gpt2
from glassgpt.model.costs import count_parameters, estimate
from glassgpt.model.gpt import GPT
from tests.model.tiny import CONTEXT, B, L, T, every_choice, tiny_config, tiny_ids, tiny_model


@pytest.mark.parametrize(
    ("size", "n_parameters"),
    [("124M", 124_439_808), ("355M", 354_823_168), ("774M", 774_030_080), ("1558M", 1_557_611_200)],
)
def test_gpt2_has_exactly_its_published_number_of_parameters(size, n_parameters):
    model = GPT.uninitialised(gpt2(size), device="meta")  # shapes without memory

    assert model.n_parameters == count_parameters(gpt2(size)).total == n_parameters


@pytest.mark.parametrize("positions", ["learned", "rope", "none"])
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("feedforward", ["gelu", "swiglu"])
def test_the_count_of_parameters_is_that_of_the_model_part_by_part(positions, norm, feedforward):
    for n_kv_heads, bias, qkv_bias, tied in product((None, 3, 1), *3 * [(True, False)]):
        config = tiny_config(
            positions=positions, norm=norm, feedforward=feedforward, n_kv_heads=n_kv_heads,
            bias=bias, qkv_bias=qkv_bias, tied_embeddings=tied,
        )  # fmt: skip
        counted, model = count_parameters(config), GPT(config)

        built = dict.fromkeys(
            ("token_embedding", "position_embedding", "attention", "feedforward", "norms", "head"), 0
        )
        for name, parameter in model.named_parameters():
            part = name.split(".")[2] if name.startswith("blocks.") else name.split(".")[0]
            built["norms" if part.endswith("norm") else part] += parameter.numel()
        assert vars(counted) == built
        assert counted.total == model.n_parameters


@every_choice
def test_a_models_flops_are_those_that_pytorch_counts(choices):
    """Exactly, with the attention that PyTorch's counter can see into: the one that writes scores out.

    It has no counter for the fused kernel on a CPU. A window is computed as a mask over all the scores, and
    then the estimate is what is needed, not what is done.
    """
    config = tiny_config(**{**choices, "attention_window": None})
    model, n_tokens = tiny_model(config), B * T
    costs = estimate(config, tokens=T)

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(tiny_ids())
    forward = counter.get_total_flops()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits.sum().backward()

    assert forward == costs.forward_flops_per_token * n_tokens
    assert forward + counter.get_total_flops() == costs.training_flops_per_token * n_tokens


def test_a_window_saves_what_attention_would_spend_beyond_it():
    full, windowed = tiny_config(), tiny_config(attention_window=5)
    saved = (
        estimate(full, tokens=T).forward_flops_per_token
        - estimate(windowed, tokens=T).forward_flops_per_token
    )

    assert saved == 4 * L * full.d_model * (T - 5)
    assert estimate(windowed, tokens=3) == estimate(full, tokens=3)


@every_choice
def test_activations_are_the_bytes_that_autograd_keeps(choices):
    """All storages saved for backward, each counted once, without the parameters themselves.

    The rest, at most a twentieth at this width, is single numbers per token or head (means, variances, log
    sums of the softmax), the ids, a window's mask and the angles of rope.
    """
    config = tiny_config(d_ff=97, **choices)
    model = tiny_model(config).float()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(tiny_ids())
    kept[hidden.untyped_storage().data_ptr()] = hidden.untyped_storage().nbytes()  # the head's input

    estimated = estimate(config, micro_batch_size=B, tokens=T).activation_bytes
    assert estimated <= sum(kept.values()) <= 1.05 * estimated


def test_training_takes_four_float32_numbers_a_parameter_and_the_activations():
    config = tiny_config()
    costs = estimate(config, micro_batch_size=B, tokens=T, bytes_per_number=2)
    model = GPT(config)
    optimizer = torch.optim.AdamW(model.parameters())
    model(tiny_ids()).sum().backward()
    optimizer.step()
    states = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim]
    gradients = [parameter.grad for parameter in model.parameters()]

    measured = sum(tensor.nbytes for tensor in [*model.parameters(), *gradients, *states])

    assert costs.training_bytes == measured + costs.activation_bytes
    assert costs.weights_bytes == 2 * model.n_parameters


def test_activations_grow_with_batch_tokens_and_bytes_and_the_context_is_the_default():
    config = tiny_config()
    one = estimate(config, tokens=1).activation_bytes

    assert (
        estimate(config, micro_batch_size=7, tokens=11, bytes_per_number=2).activation_bytes
        == one * 7 * 11 / 2
    )
    assert estimate(config) == estimate(config, tokens=CONTEXT)


def test_a_trained_token_costs_six_flops_a_matrix_weight_and_its_attention():
    """GPT-2 124M, counted by hand: 84,934,656 weights in the blocks and 38,597,376 in the head."""
    n_weights = 12 * (4 + 8) * 768**2 + 50_257 * 768

    assert estimate(gpt2("124M")).training_flops_per_token == 6 * n_weights + 12 * 12 * 768 * 1024
