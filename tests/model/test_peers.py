"""The same weights give the same logits and gradients as in the transformers library."""

import pytest
import torch
import torch.nn.functional as F
import transformers

from glassgpt.model.config import gpt2
from glassgpt.model.gpt import GPT
from tests.model import peers
from tests.model.tiny import T, tiny_ids


@pytest.mark.parametrize("peer_of", [peers.gpt2, peers.llama, peers.mistral, peers.qwen2])
def test_logits_and_gradients_equal_those_of_transformers(peer_of):
    with peers.in_float64():
        peer, config, to_ours = peer_of()
    model = GPT(config).double()
    with torch.no_grad():
        for name, weight in to_ours(dict(peer.named_parameters()), config.n_layers).items():
            model.get_parameter(name).copy_(weight)
    token_ids, targets = tiny_ids(), tiny_ids(seed=2).flatten()

    with peers.in_float64():
        expected = peer(token_ids).logits
    logits = model(token_ids)
    F.cross_entropy(expected.flatten(0, 1), targets).backward()
    F.cross_entropy(logits.flatten(0, 1), targets).backward()
    gradients = to_ours(
        {name: parameter.grad for name, parameter in peer.named_parameters()}, config.n_layers
    )

    # float64 on both sides, only the order of sums differs: 1e-15 of numbers around 10 to 100.
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, gradients[name], rtol=0, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_sliding_window_of_mistral_is_shorter_than_the_text_of_these_tests():
    peer, config, _ = peers.mistral()

    assert peer.config.sliding_window == config.attention_window == 5 < T


def test_the_full_gpt2_124m_gives_the_logits_of_transformers():
    torch.manual_seed(0)
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    model = GPT.uninitialised(gpt2("124M")).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            if parameter.ndim == 1:  # biases 0 and norms 1 would hide that one is left out
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for name, weight in peers.from_gpt2(dict(peer.named_parameters()), 12).items():
            model.get_parameter(name).copy_(weight)
        token_ids = torch.randint(50_257, (1, T))
        expected, logits = peer(token_ids).logits, model(token_ids)

    # float32 holds 7 digits, logits are around 1, and twelve layers add up their rounding.
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1
