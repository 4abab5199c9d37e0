"""Device, precision and compilation are chosen, and said out loud."""

import pytest
import torch

from glassgpt.errors import ConfigError
from glassgpt.training.config import TrainConfig
from glassgpt.training.precision import choose_execution


def test_what_is_asked_for_is_what_is_used():
    execution = choose_execution(TrainConfig(device="cpu", precision="bfloat16", compile="on"))
    assert (execution.device.type, execution.dtype, execution.compiled) == ("cpu", torch.bfloat16, True)
    assert execution.describe() == "cpu (1 threads), bfloat16, compiled kernels"


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "avx2"])
def test_on_a_processor_auto_takes_bfloat16_only_where_it_has_instructions_for_it(monkeypatch, capability):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    execution = choose_execution(TrainConfig(device="cpu"))
    expected = torch.float32 if capability == "avx2" else torch.bfloat16
    assert (execution.dtype, execution.compiled) == (expected, False)


def test_autocast_reaches_products_and_spares_weights():
    execution = choose_execution(TrainConfig(device="cpu", precision="bfloat16"))
    linear = torch.nn.Linear(3, 5)
    with execution.autocast():
        assert linear(torch.ones(2, 3)).dtype == torch.bfloat16
    assert linear.weight.dtype == torch.float32


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "Ω"])
def test_a_device_that_is_not_here_is_a_config_error(device):
    with pytest.raises(ConfigError, match=f"device='{device}' cannot be used here"):
        choose_execution(TrainConfig(device=device))
