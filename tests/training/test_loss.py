"""The loss by hand, by PyTorch and in chunks."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F

from glassgpt.by_hand import loss as by_hand
from glassgpt.errors import ConfigError
from glassgpt.training import loss as loss_module
from glassgpt.training.loss import bits_per_byte, cross_entropy, linear_cross_entropy, perplexity

EXACT = {"rtol": 0, "atol": 1e-12}  # float64 against float64: rounding stays below this


def random_problem(B=2, T=7, D=5, V=13):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(B, T, D, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(V, D, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.randint(V, (B, T), generator=generator)
    return hidden, weight, targets


def reference(hidden, weight, targets):
    return F.cross_entropy((hidden @ weight.T).flatten(0, -2), targets.flatten())


def test_cross_entropy_equals_a_loop_over_positions_and_logits():
    hidden, weight, targets = random_problem()
    logits = (hidden @ weight.T).detach().requires_grad_()

    loss = cross_entropy(logits, targets)
    loss.backward()

    rows = logits.detach().flatten(0, 1).tolist()
    assert abs(loss.item() - by_hand.cross_entropy(rows, targets.flatten().tolist())) < 1e-12
    gradient = torch.tensor(by_hand.cross_entropy_gradient(rows, targets.flatten().tolist()))
    torch.testing.assert_close(logits.grad.flatten(0, 1), gradient.double(), rtol=0, atol=1e-7)


def test_by_hand_gradient_equals_finite_differences():
    logits, targets, nudge = [[0.3, -1.1, 2.0], [0.0, 0.5, -0.7]], [2, 0], 1e-6

    gradient = by_hand.cross_entropy_gradient(logits, targets)

    for row in range(2):
        for column in range(3):
            up = [list(scores) for scores in logits]
            down = [list(scores) for scores in logits]
            up[row][column] += nudge
            down[row][column] -= nudge
            slope = (by_hand.cross_entropy(up, targets) - by_hand.cross_entropy(down, targets)) / (2 * nudge)
            assert abs(gradient[row][column] - slope) < 1e-9  # the error of a central difference is ~nudge²


def test_softmax_by_hand_does_not_overflow():
    assert by_hand.softmax([1000.0, 1000.0]) == [0.5, 0.5]


@pytest.mark.parametrize("chunk_tokens", [1, 3, 14, 99], ids=["rows", "uneven", "all", "more than all"])
def test_linear_cross_entropy_equals_pytorch_with_its_gradients(chunk_tokens):
    hidden, weight, targets = random_problem()
    expected = reference(hidden, weight, targets)
    expected_grads = torch.autograd.grad(3 * expected, (hidden, weight))

    loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens)
    grads = torch.autograd.grad(3 * loss, (hidden, weight))

    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(grads, expected_grads, **EXACT)


def test_linear_cross_entropy_passes_gradcheck():
    hidden, weight, targets = random_problem(B=1, T=5, D=3, V=7)
    targets[0, 2] = -100
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets, 2), (hidden, weight))


def test_ignored_targets_count_neither_in_the_loss_nor_in_the_mean():
    hidden, weight, targets = random_problem()
    targets[0, 1:4] = -100
    targets[1, 6] = -100
    expected = reference(hidden, weight, targets)
    expected_grads = torch.autograd.grad(expected, (hidden, weight))

    loss = linear_cross_entropy(hidden, weight, targets, 3)

    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight)), expected_grads, **EXACT)
    torch.testing.assert_close(cross_entropy(hidden @ weight.T, targets), expected, **EXACT)
    assert loss.item() == pytest.approx(
        by_hand.cross_entropy(
            (hidden @ weight.T)[targets != -100].tolist(), targets[targets != -100].tolist()
        ),
        abs=1e-12,
    )


def test_linear_cross_entropy_gives_a_gradient_only_where_it_is_wanted():
    hidden, weight, targets = random_problem()
    linear_cross_entropy(hidden.detach(), weight, targets).backward()
    assert hidden.grad is None
    expected = torch.autograd.grad(reference(hidden, weight, targets), weight)[0]
    torch.testing.assert_close(weight.grad, expected, **EXACT)

    weight.grad = None
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    assert weight.grad is None


def test_linear_cross_entropy_gives_the_same_gradients_again():
    """The first ones may be the very tensors that are kept for the second."""
    hidden, weight, targets = random_problem()
    loss = linear_cross_entropy(hidden, weight, targets, 3)
    for times in (1, 2):
        loss.backward(retain_graph=True)
        expected = torch.autograd.grad(times * reference(hidden, weight, targets), (hidden, weight))
        torch.testing.assert_close((hidden.grad, weight.grad), expected, **EXACT)


def test_linear_cross_entropy_refuses_to_be_differentiated_twice():
    hidden, weight, targets = random_problem()
    loss = linear_cross_entropy(hidden, weight, targets)
    with pytest.raises(RuntimeError, match=r"only once\. Use cross_entropy"):
        torch.autograd.grad(loss, weight, create_graph=True)


@pytest.mark.parametrize("target", [-1, 13])
@pytest.mark.parametrize("training", [True, False], ids=["training", "no_grad"])
def test_linear_cross_entropy_refuses_tokens_that_do_not_exist(target, training):
    """As cross_entropy does: −1, "ignore" elsewhere, is no token 0."""
    hidden, weight, targets = random_problem()
    targets[0, 2] = target
    for loss in (linear_cross_entropy, reference):
        with (
            torch.set_grad_enabled(training),
            pytest.raises((IndexError, RuntimeError), match="out of bounds"),
        ):
            loss(hidden, weight, targets)


@pytest.mark.parametrize("training", [True, False], ids=["training", "no_grad"])
def test_linear_cross_entropy_refuses_shapes_that_do_not_fit(training):
    hidden, weight, targets = random_problem()
    unchecked = inspect.unwrap(linear_cross_entropy)  # the tests' own checks of shapes come first
    with torch.set_grad_enabled(training):
        for wrong in (targets[:, 1:], targets.flatten(), torch.cat([targets, targets], dim=1)):
            with pytest.raises(ConfigError, match=r"its targets need \(2, 7\) and have"):
                unchecked(hidden, weight, wrong)
        for chunk_tokens in (0, -1):
            with pytest.raises(ConfigError, match="at least 1, or None"):
                linear_cross_entropy(hidden, weight, targets, chunk_tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_over_nothing_is_no_number_and_neither_are_its_gradients(dtype):
    hidden, weight, targets = random_problem()
    hidden, weight = (part.detach().to(dtype).requires_grad_() for part in (hidden, weight))
    nothing = hidden[:, :0], targets[:, :0]
    ignored = hidden, torch.full_like(targets, -100)
    for some_hidden, some_targets in (nothing, ignored):
        weight.grad = None
        loss = linear_cross_entropy(some_hidden, weight, some_targets)
        loss.backward()
        assert loss.isnan()
        assert weight.grad.isnan().all()


def test_linear_cross_entropy_works_without_gradients():
    hidden, weight, targets = random_problem()
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets, 3)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, reference(hidden, weight, targets).detach(), **EXACT)


def test_linear_cross_entropy_never_holds_all_logits(monkeypatch):
    hidden, weight, targets = random_problem(B=3, T=11, D=5, V=17)
    monkeypatch.setitem(loss_module._CHUNK_LOGITS, "cpu", 4 * 17 + 5)
    shapes = set()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            shapes.update(
                tuple(t.shape) for t in (out if isinstance(out, tuple) else (out,)) if hasattr(t, "shape")
            )
            return out

    with Watch():
        linear_cross_entropy(hidden, weight, targets).backward()

    assert (4, 17) in shapes
    assert max(math.prod(shape) for shape in shapes) <= max(hidden.numel(), weight.numel(), 4 * 17)


@pytest.mark.parametrize("chunk_tokens", [3, 14])
def test_padding_the_vocabulary_changes_neither_the_loss_nor_its_gradients(monkeypatch, chunk_tokens):
    monkeypatch.setitem(loss_module._MULTIPLE, "cpu", 8)  # 13 logits become 16
    hidden, weight, targets = random_problem()
    hidden, weight = (-hidden).detach().requires_grad_(), (weight - 9).detach().requires_grad_()
    assert (hidden @ weight.T).min() < -1  # a padded logit of 0 would stand out
    targets[0, 2] = -100
    expected = reference(hidden, weight, targets)

    loss = linear_cross_entropy(hidden, weight, targets, chunk_tokens)

    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight)), **EXACT
    )


@pytest.mark.parametrize("cached_numbers", [1, 3 * 13, 5 * 5])
def test_what_a_cache_holds_changes_neither_the_loss_nor_its_gradients(monkeypatch, cached_numbers):
    monkeypatch.setattr(loss_module, "_CACHED_NUMBERS", cached_numbers)
    hidden, weight, targets = random_problem()
    expected = reference(hidden, weight, targets)

    loss = linear_cross_entropy(hidden, weight, targets, 5)

    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight)), **EXACT
    )


def test_bfloat16_autocast_stays_close_to_float32():
    hidden, weight, targets = random_problem(D=64)
    hidden, weight = hidden.detach().float() / 8, weight.detach().float().requires_grad_()
    expected = reference(hidden, weight, targets)
    (expected_grad,) = torch.autograd.grad(expected, weight)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets, 3)
    loss.backward()
    assert loss.dtype == torch.float32
    assert weight.grad.dtype == torch.float32
    # bfloat16 has 8 bits: numbers of size 1 are off by 2⁻⁸
    assert abs(loss.item() - expected.item()) < 0.02
    torch.testing.assert_close(
        weight.grad, expected_grad, rtol=0, atol=0.02 * expected_grad.abs().max().item()
    )
    assert not torch.equal(weight.grad, weight.grad.bfloat16().float())  # summed in float32, and left there


def test_bfloat16_logits_are_summed_in_float32():
    logits = torch.zeros(1, 50_257, dtype=torch.bfloat16)
    assert cross_entropy(logits, torch.tensor([7])).item() == pytest.approx(math.log(50_257), rel=1e-6)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large():
    loss = by_hand.cross_entropy([[0.0] * 37], [5])
    assert perplexity(loss) == pytest.approx(37)
    assert by_hand.perplexity(loss) == pytest.approx(37)
    assert perplexity(1e6) == math.inf


def test_bits_per_byte_of_uniform_bytes_is_eight():
    loss = math.log(256)
    assert bits_per_byte(loss, n_tokens=1000, n_bytes=1000) == pytest.approx(8)
    assert bits_per_byte(loss, n_tokens=1000, n_bytes=4000) == pytest.approx(2)
    assert by_hand.bits_per_byte(loss, 1000, 4000) == pytest.approx(bits_per_byte(loss, 1000, 4000))
