"""The library's whole training run, and its parts, against the loop written out by hand."""

import pytest
import torch
from safetensors.torch import load_file

from glassgpt.by_hand import training as slow
from glassgpt.data import Batches, TokenShards
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.training.config import OptimizerConfig, ScheduleConfig, TrainConfig
from glassgpt.training.optimizer import clip_gradients
from glassgpt.training.trainer import train

TEXT = "".join(f"{n} grey herons standing in the reeds; " for n in range(17))
STEPS, N_MICRO_BATCHES, WARMUP_STEPS = 11, 2, 3


@pytest.fixture
def exact():
    """Everything in float64, where a difference of 1e-12 is a mistake and not rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_a_run_of_the_library_gives_the_weights_of_the_loop_by_hand(tmp_path, exact):
    text = tmp_path / "herons.txt"
    text.write_text(TEXT, encoding="utf-8")
    config = TrainConfig(
        data=str(text),
        tokenizer="char",
        out=tmp_path / "run",
        model=ModelConfig(context_length=5, d_model=12, n_layers=2, n_heads=3),
        steps=STEPS,
        micro_batch_size=3,
        tokens_per_step=N_MICRO_BATCHES * 3 * 5,
        # Every part of a step counts: the limit clips some gradients and spares others, the decay is strong.
        optimizer=OptimizerConfig(lr=7e-3, weight_decay=0.7, grad_clip=1.1),
        schedule=ScheduleConfig(warmup_steps=WARMUP_STEPS, min_lr_ratio=0.2),
        precision="float32",
        compile="off",
        device="cpu",
        eval_windows=7,
        sample_every_steps=None,
    )
    result = train(config, say=lambda line: None)
    fast = load_file(result.checkpoint / "model.safetensors")

    shards = TokenShards.open(result.run / "data")
    batches = Batches(shards.train, context_length=5, micro_batch_size=3, seed=config.seed)
    torch.manual_seed(config.seed)
    model = GPT(ModelConfig(**(config.model.to_dict() | {"vocab_size": shards.vocab_size})))
    slow.train(
        model,
        batches.batch,
        steps=STEPS,
        n_micro_batches=N_MICRO_BATCHES,
        warmup_steps=WARMUP_STEPS,
        lowest=0.2,
        lr=7e-3,
        betas=config.optimizer.betas,
        eps=config.optimizer.eps,
        weight_decay=0.7,
        grad_clip=1.1,
    )
    # PyTorch clips to limit / (length + 1e-6): Adam all but takes that out again, and any mistake is larger.
    for name, weight in model.named_parameters():
        torch.testing.assert_close(
            weight.detach(), fast[name], rtol=0, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("limit", [0.5, 7.0], ids=["longer than the limit", "shorter"])
def test_clipping_equals_the_formula(limit):
    torch.manual_seed(0)
    parameters = [torch.zeros(3, 5, dtype=torch.float64), torch.zeros(7, dtype=torch.float64)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    expected = slow.clip([parameter.grad for parameter in parameters], limit)

    clip_gradients(parameters, limit)

    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(
            parameter.grad, gradient, rtol=0, atol=2e-6
        )  # PyTorch adds 1e-6 to the norm


def test_the_first_step_of_adamw_is_the_learning_rate_whatever_the_gradient():
    nothing = (torch.zeros(2), torch.zeros(2))
    gradient = torch.tensor([1e-3, -5e3])

    moved, _ = slow.adamw_step(
        torch.zeros(2), gradient, nothing, 1, lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
    )

    torch.testing.assert_close(moved, torch.tensor([-0.01, 0.01]), rtol=1e-4, atol=0)  # eps beside 1e-3


def test_a_vector_of_length_five_is_clipped_in_the_head():
    (clipped,) = slow.clip([torch.tensor([3.0, 4.0])], 1.0)

    assert clipped.tolist() == pytest.approx([0.6, 0.8])
