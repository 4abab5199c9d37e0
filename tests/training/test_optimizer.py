"""Steps equal PyTorch's, and the formulas by hand."""

import math

import pytest
import torch

from glassgpt.errors import ConfigError
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.training.config import OptimizerConfig
from glassgpt.training.loss import linear_cross_entropy
from glassgpt.training.muon import orthogonalise
from glassgpt.training.optimizer import clip_gradients, make_optimizer, set_learning_rate

EXACT = {"rtol": 0, "atol": 1e-12}  # float64 against float64


def make_model():
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=13, context_length=7, d_model=12, n_layers=2, n_heads=3, d_ff=19)
    return GPT(config).double()


def backward(model, seed):
    token_ids = torch.randint(13, (3, 7), generator=torch.Generator().manual_seed(seed))
    hidden = model.hidden(token_ids[:, :-1])
    loss = linear_cross_entropy(hidden, model.head.weight, token_ids[:, 1:])
    loss.backward()
    return loss.item()


def test_adamw_equals_pytorchs_with_decay_on_matrices_only():
    ours, theirs = make_model(), make_model()
    optimizer = make_optimizer(ours, OptimizerConfig(lr=0.01, weight_decay=0.3, betas=(0.8, 0.9), eps=1e-7))
    matrices = [p for n, p in theirs.named_parameters() if n.endswith("weight") and "norm" not in n]
    vectors = [p for n, p in theirs.named_parameters() if n.endswith("bias") or "norm" in n]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01, betas=(0.8, 0.9), eps=1e-7, foreach=False,
    )  # fmt: skip
    for seed in range(3):
        for model, steps in ((ours, optimizer), (theirs, reference)):
            backward(model, seed)
            steps.step()
            steps.zero_grad()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), **EXACT)


def test_every_parameter_is_in_exactly_one_group():
    model = make_model()
    for name in ("adamw", "muon"):
        groups = make_optimizer(model, OptimizerConfig(name=name)).param_groups
        grouped = [parameter for group in groups for parameter in group["params"]]
        assert len(grouped) == len(set(grouped)) == len(list(model.parameters()))
        assert all(p.dim() < 2 for group in groups for p in group["params"] if group["weight_decay"] == 0)


def test_muon_steps_exactly_the_matrices_inside_the_blocks():
    model = make_model()
    names = {parameter: name for name, parameter in model.named_parameters()}
    (group,) = (g for g in make_optimizer(model, OptimizerConfig(name="muon")).param_groups if g["muon"])
    assert {names[parameter] for parameter in group["params"]} == {
        f"blocks.{n}.{name}.weight"
        for n in range(2)
        for name in ("attention.qkv_proj", "attention.o_proj", "feedforward.up_proj", "feedforward.down_proj")
    }


def newton_schulz_by_hand(matrix):
    """The polynomial on the singular values themselves, one matrix at a time."""
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    values = values / (matrix.norm() + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return u @ torch.diag(values) @ v


@pytest.mark.parametrize("shape", [(5, 11), (11, 5), (7, 7)], ids=["wide", "tall", "square"])
def test_orthogonalise_acts_on_the_singular_values_alone(shape):
    matrices = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([newton_schulz_by_hand(matrix) for matrix in matrices])
    # Five powers of a matrix with small singular values lose four digits on the way through X Xᵀ.
    torch.testing.assert_close(orthogonalise(matrices), expected, rtol=0, atol=1e-10)
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.max() < 1.2


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("blocks.1.feedforward.up_proj.weight", (19 / 12) ** 0.5),
        ("blocks.0.feedforward.down_proj.weight", 1.0),
        ("blocks.0.attention.qkv_proj.weight", 3**0.5),
    ],
)
def test_muon_equals_the_formula_by_hand(name, scale):
    model, steps = make_model(), 3
    config = OptimizerConfig(name="muon", muon_lr=0.05, weight_decay=0.2)
    optimizer = make_optimizer(model, config)
    parameter = model.get_parameter(name)
    expected, momentum = parameter.detach().clone(), torch.zeros_like(parameter)
    for seed in range(steps):
        backward(model, seed)
        gradient = parameter.grad.clone()
        momentum = 0.9 * momentum + 0.1 * gradient
        direction = newton_schulz_by_hand(gradient + 0.9 * (momentum - gradient))
        expected = (1 - 0.05 * 0.2) * expected - 0.05 * scale * direction
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-10)


def test_muon_leaves_everything_else_to_adamw():
    ours, theirs = make_model(), make_model()
    muon = make_optimizer(ours, OptimizerConfig(name="muon"))
    adamw = make_optimizer(theirs, OptimizerConfig())
    for model, optimizer in ((ours, muon), (theirs, adamw)):
        backward(model, 0)
        optimizer.step()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        inner = name.startswith("blocks.") and one.dim() == 2
        assert torch.equal(one, other) != inner, name


def test_the_share_of_the_schedule_reaches_every_group():
    optimizer = make_optimizer(make_model(), OptimizerConfig(name="muon", lr=0.5, muon_lr=0.25))
    set_learning_rate(optimizer, 0.5)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.125, 0.25]
    set_learning_rate(optimizer, 1.0)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.25, 0.5]


@pytest.mark.parametrize("max_norm", [0.01, 1e6, None])
def test_clipping_equals_the_formula(max_norm):
    model = make_model()
    backward(model, 0)
    before = [p.grad.clone() for p in model.parameters()]
    norm = torch.cat([grad.flatten() for grad in before]).norm()
    factor = 1.0 if max_norm is None else min(1.0, max_norm / (norm.item() + 1e-6))

    returned = clip_gradients(model.parameters(), max_norm)

    torch.testing.assert_close(returned, norm, **EXACT)
    torch.testing.assert_close([p.grad for p in model.parameters()], [g * factor for g in before], **EXACT)


@pytest.mark.parametrize("max_norm", [1e-3, 1e3, None])
def test_clipping_on_a_gpu_is_that_on_a_cpu_and_waits_for_nothing(gpu, nothing_waits, max_norm):
    model = make_model()
    backward(model, 0)
    on_gpu = [torch.zeros_like(parameter, device=gpu) for parameter in model.parameters()]
    for copy, parameter in zip(on_gpu, model.parameters(), strict=True):
        copy.grad = parameter.grad.to(gpu)

    with nothing_waits():
        norm = clip_gradients(on_gpu, max_norm)

    assert norm.device == gpu
    torch.testing.assert_close(norm.cpu(), clip_gradients(model.parameters(), max_norm), **EXACT)
    expected = [parameter.grad for parameter in model.parameters()]
    torch.testing.assert_close([copy.grad.cpu() for copy in on_gpu], expected, **EXACT)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_one_batch_can_be_overfitted(name):
    model = make_model()
    optimizer = make_optimizer(model, OptimizerConfig(name=name, lr=0.03, weight_decay=0.0))
    losses = []
    for _ in range(120):
        losses.append(backward(model, 5))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] > 2.4  # log 13 = 2.56
    assert losses[-1] < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "Muon"}, "optimizer.name='Muon' is not one of adamw, muon"),
        ({"lr": -1.0, "muon_lr": math.nan}, r"(?s)optimizer.lr=-1.0 .*optimizer.muon_lr=nan must be"),
        ({"betas": 0.9}, "optimizer.betas=0.9 must be two numbers"),
        ({"betas": (0.9,)}, r"optimizer.betas=\(0.9,\) must be two numbers"),
    ],
)
def test_settings_out_of_range_make_no_optimizer(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(make_model(), OptimizerConfig(**settings))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_frozen_parameters_are_in_no_group(name):
    model = make_model()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.dim() == 2)
    groups = make_optimizer(model, OptimizerConfig(name=name)).param_groups
    assert all(parameter.dim() == 2 for group in groups for parameter in group["params"])


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="All parameters of the model are frozen"):
        make_optimizer(make_model().requires_grad_(False), OptimizerConfig())
