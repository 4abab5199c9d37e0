"""One step: what it computes, how often it rounds, and that compiling changes nothing."""

import contextlib
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from glassgpt.decoding import gelu
from glassgpt.errors import TokenizerError
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.training import loss as loss_module
from glassgpt.training import muon
from glassgpt.training.config import OptimizerConfig, TrainConfig
from glassgpt.training.loss import cross_entropy
from glassgpt.training.precision import Execution, _missing_for_compiling
from glassgpt.training.step import TrainStep
from tests.alone import run_alone
from tests.decoding.models import needs_library

CPU = torch.device("cpu")
MODEL = ModelConfig(vocab_size=13, context_length=5, d_model=12, n_layers=2, n_heads=3)


def batches(n):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(13, (n, 2, 6), generator=generator)
    return [(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in ids]


def make_step(n_micro_batches=1, dtype=torch.float32, compiled=False, model=MODEL, device=CPU, **settings):
    torch.manual_seed(0)
    config = TrainConfig(
        model=model, micro_batch_size=2, tokens_per_step=10 * n_micro_batches, device=str(device), **settings
    )
    return TrainStep(GPT(model).train().to(device), config, Execution(device, dtype, compiled))


def test_a_step_is_that_of_the_mean_loss_over_its_micro_batches():
    step, plain = make_step(3, optimizer=OptimizerConfig(lr=0.5)), make_step().model
    token_ids, targets = (torch.cat(parts) for parts in zip(*batches(3), strict=True))
    expected = cross_entropy(plain(token_ids), targets)
    expected.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    before = [parameter.clone() for parameter in step.model.parameters()]

    loss, grad_norm = step(iter(batches(3)), 0.01)

    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(grad_norm, gradient.norm())
    assert all(parameter.grad is None for parameter in step.model.parameters())
    # AdamW's first step is lr in size wherever there is a gradient, apart from the decay.
    moves = [(a - b).abs().max().item() for a, b in zip(step.model.parameters(), before, strict=True)]
    assert max(moves) == pytest.approx(0.01 * 0.5, rel=0.1)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_steps_gradients_are_those_of_the_plain_loss(tied, n):
    step = make_step(n, model=replace(MODEL, tied_embeddings=tied), optimizer=OptimizerConfig(grad_clip=None))
    token_ids, targets = (torch.cat(parts) for parts in zip(*batches(n), strict=True))
    cross_entropy(step.model(token_ids), targets).backward()
    expected = [parameter.grad for parameter in step.model.parameters()]
    step.optimizer.zero_grad()
    gradients = []
    step.optimizer.step = lambda: gradients.extend(parameter.grad for parameter in step.model.parameters())

    step(batches(n))

    assert all(gradient.layout is torch.strided for gradient in gradients)
    torch.testing.assert_close(gradients, expected)


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_with_gelu_in_cpp_is_one_with_pytorchs(dtype, monkeypatch):
    def losses(least_numbers: int) -> list[float]:
        monkeypatch.setattr(gelu, "_LEAST_NUMBERS", least_numbers)
        step = make_step(dtype=dtype, optimizer=OptimizerConfig(lr=0.01))
        return [step(batches(1))[0].item() for _ in range(5)]

    computed, compute = [], gelu._map
    monkeypatch.setattr(gelu, "_map", lambda name, *tensors: (computed.append(name), compute(name, *tensors)))
    monkeypatch.setattr(gelu, "is_x86", lambda: True)
    plain = losses(2**14)
    assert computed == []
    ours = losses(0)
    assert len(computed) == 5 * 2 * MODEL.n_layers
    assert ours == pytest.approx(plain, rel=1e-5 if dtype == torch.float32 else 1e-2)


class NewMatrices(TorchDispatchMode):
    """The operations that make a new tensor of a shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.made_by = shape, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        dense = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and not x.is_sparse]
        before = {tensor.data_ptr() for tensor in dense}
        made = function(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            is_one = isinstance(x, torch.Tensor) and not x.is_sparse and x.shape == self.shape
            if is_one and x.data_ptr() not in before:
                self.made_by.append(str(function))
        return made


def test_a_step_makes_one_matrix_as_large_as_the_head(monkeypatch):
    """Its gradient, to which the embedding's few rows are added. GPT-2's take 154 MB: another, written and
    read, would be a few percent of a step."""
    monkeypatch.setattr(loss_module, "_CACHED_NUMBERS", 3 * 12)  # the parts of it are smaller
    monkeypatch.setitem(loss_module._CHUNK_LOGITS, "cpu", 4 * 13)
    step = make_step()
    step(batches(1))  # makes AdamW's averages
    with NewMatrices(step.model.head.weight.shape) as seen:
        step(batches(1))
    assert seen.made_by == ["aten.empty_like.default"]


def test_batches_may_come_in_the_same_memory():
    def loss_after(micro_batches):
        step = make_step(3, optimizer=OptimizerConfig(lr=0.1))
        step(micro_batches)
        return step(batches(3))[0]

    def one_place():
        token_ids, targets = (part.clone() for part in batches(1)[0])
        for ids, following in batches(3):
            yield token_ids.copy_(ids), targets.copy_(following)

    assert torch.equal(loss_after(one_place()), loss_after(batches(3)))


@pytest.mark.parametrize("hook", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_sees_the_whole_gradient(hook):
    step, seen = make_step(optimizer=OptimizerConfig(grad_clip=None)), []
    weight = step.model.head.weight
    keep = {
        "register_hook": lambda grad: seen.append(grad.clone()),
        "register_post_accumulate_grad_hook": lambda parameter: seen.append(parameter.grad.clone()),
    }
    getattr(weight, hook)(keep[hook])
    token_ids, targets = batches(1)[0]
    plain = make_step().model
    cross_entropy(plain(token_ids), targets).backward()
    step(batches(1))
    torch.testing.assert_close(seen, [plain.head.weight.grad])


def test_a_step_leaves_the_embedding_as_it_was():
    step = make_step()
    embedding, head = step.model.token_embedding, step.model.head
    step(batches(1))
    assert embedding.weight is head.weight
    assert not embedding.sparse
    with pytest.raises(TokenizerError):
        step([(torch.full((2, 5), 13), torch.zeros(2, 5, dtype=torch.int64))])
    assert embedding.weight is head.weight
    assert not embedding.sparse
    step.model.hidden(batches(1)[0][0]).sum().backward()
    assert step.model.token_embedding.weight.grad.layout is torch.strided


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_asks_its_device_for_no_number_and_uses_no_other(name, monkeypatch):
    """A GPU would be waited for. "meta", which has no numbers, refuses; but it knows no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    meta = torch.device("meta")
    config = TrainConfig(
        model=MODEL, micro_batch_size=2, tokens_per_step=20, optimizer=OptimizerConfig(name=name)
    )
    model = GPT.uninitialised(MODEL, device=meta).train()
    step = TrainStep(model, config, Execution(meta, torch.float32, compiled=False))
    for _ in range(2):
        loss, grad_norm = step(batches(2))
        assert (loss.device, grad_norm.device) == (meta, meta)


class Roundings(TorchDispatchMode):
    """Counts how often each parameter is turned to bfloat16."""

    def __init__(self, model):
        super().__init__()
        self.names = {parameter.data_ptr(): name for name, parameter in model.named_parameters()}
        self.counts = dict.fromkeys(self.names.values(), 0)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            name = self.names.get(args[0].data_ptr())
            if name:
                self.counts[name] += 1
        return function(*args, **kwargs)


def test_weights_are_rounded_once_for_all_micro_batches_of_a_step():
    step = make_step(3, torch.bfloat16)
    for _ in range(2):  # and anew after they have changed
        with Roundings(step.model) as seen:
            step(batches(3))
        head = seen.counts.pop("token_embedding.weight")
        assert head == 3  # the loss rounds the head's, a hundredth of what it does with it
        rounded = {name for name, count in seen.counts.items() if count}
        assert rounded == {name for name in seen.counts if "_proj." in name}
        assert all(seen.counts[name] == 1 for name in rounded)


def test_gradients_of_micro_batches_in_bfloat16_are_summed_in_float32():
    step, sums = make_step(3, torch.bfloat16, optimizer=OptimizerConfig(grad_clip=None)), {}
    step.optimizer.step = lambda: sums.update(
        {name: parameter.grad.clone() for name, parameter in step.model.named_parameters()}
    )
    step(batches(3))

    parts = dict.fromkeys(sums, torch.tensor(0.0))
    for token_ids, targets in batches(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = step.loss_of(token_ids, targets) / 3
        loss.backward()
        for name, parameter in step.model.named_parameters():
            parts[name] = parts[name] + parameter.grad
            assert parameter.grad.dtype == torch.float32
        step.optimizer.zero_grad()
    torch.testing.assert_close(sums, parts, rtol=0, atol=1e-7)  # float32's own rounding; bfloat16's is 1e-4


COMPILED_BESIDE_PLAIN = """
from functools import partial
import torch
from tests.training.test_step import batches, make_step

torch.set_num_threads(1)
torch.compile = partial(torch.compile, backend="aot_eager", fullgraph=True)  # without a C++ compiler
plain, compiled = make_step(2, torch.bfloat16), make_step(2, torch.bfloat16, compiled=True)
for _ in range(2):
    torch.testing.assert_close(compiled(batches(2)), plain(batches(2)), rtol=0, atol=1e-6)
torch.testing.assert_close(compiled.model.state_dict(), plain.model.state_dict(), rtol=0, atol=1e-6)
"""


def test_a_compiled_step_is_one_graph_and_equals_the_plain_one():
    run_alone(COMPILED_BESIDE_PLAIN)


BY_INDUCTOR = """
import torch
from glassgpt.training import loss
from tests.training.test_step import batches, make_step

torch.set_num_threads(1)
loss._CHUNK_LOGITS["cpu"] = 13 * 4  # 10 tokens in 3 chunks
plain, compiled = make_step(2), make_step(2, compiled=True)
for _ in range(3):
    torch.testing.assert_close(compiled(batches(2)), plain(batches(2)), rtol=0, atol=1e-5)
"""


@pytest.mark.skipif(bool(_missing_for_compiling(CPU)), reason="needs a C++ compiler such as g++")
def test_a_step_compiled_by_inductor_computes_the_same():
    """Traced alone, as above, a step has been right that Inductor made wrong gradients of."""
    run_alone(BY_INDUCTOR)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_where_its_model_is_whatever_the_default_device_is(dtype, optimizer):
    settings = {"model": replace(MODEL, dropout=0.1), "optimizer": OptimizerConfig(name=optimizer)}
    step, other = (make_step(2, dtype, **settings) for _ in range(2))
    micro_batches = batches(2)
    torch.manual_seed(3)
    expected = [step(micro_batches) for _ in range(2)]
    torch.manual_seed(3)
    with torch.device("meta"):  # as torch.set_default_device would
        assert [other(micro_batches) for _ in range(2)] == expected


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-3), (torch.bfloat16, 0.02)], ids=["float32", "bfloat16"]
)
def test_a_gpu_takes_the_steps_of_a_cpu_and_is_not_waited_for(
    gpu, nothing_waits, monkeypatch, dtype, atol, optimizer
):
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device: True)  # on a CPU without, too
    settings = {"optimizer": OptimizerConfig(name=optimizer, grad_clip=0.1)}
    step = make_step(2, dtype, device=gpu, **settings)
    taken = [step(batches(2))]  # some things are made in the first one
    with nothing_waits():
        taken += [step(batches(2)) for _ in range(2)]

    on_a_cpu = make_step(2, dtype, **settings)
    for got in taken:
        for on_gpu, expected in zip(got, on_a_cpu(batches(2)), strict=True):
            torch.testing.assert_close(on_gpu.cpu(), expected, rtol=0, atol=atol)


COMPILED_ON_A_GPU = """
import torch
from tests.training.test_step import batches, make_step

gpu = torch.device("cuda", 0)
plain, compiled = (make_step(2, torch.bfloat16, device=gpu, compiled=compiled) for compiled in (False, True))
for _ in range(3):
    torch.testing.assert_close(compiled(batches(2)), plain(batches(2)), rtol=0, atol=0.02)
"""


def test_on_a_gpu_a_compiled_step_is_the_plain_one(python_with_gpu):
    python_with_gpu(COMPILED_ON_A_GPU)
