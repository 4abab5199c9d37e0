"""One step of training: what the loop repeats, and a benchmark times. Chapter 06."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassgpt.decoding import DifferentiableGELU
from glassgpt.model.gpt import GPT
from glassgpt.training.config import TrainConfig
from glassgpt.training.loss import linear_cross_entropy
from glassgpt.training.optimizer import clip_gradients, make_optimizer, set_learning_rate
from glassgpt.training.precision import Execution

Batch = tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]


class TrainStep:
    """Gradients of the mean loss over some micro-batches, clipped, and one step of `optimizer` along them.

    Nothing in it waits for an accelerator, which computes while the processor makes the next micro-batch; and
    all of a run's micro-batches have one shape, for which everything up to the loss is compiled once.
    """

    def __init__(self, model: GPT, config: TrainConfig, execution: Execution) -> None:
        def loss_of(token_ids: Tensor, targets: Tensor) -> Tensor:
            return linear_cross_entropy(model.hidden(token_ids), model.head.weight, targets)

        self.model, self.config, self.execution = model, config, execution
        self.runs_plainly = execution.device.type == "cpu" and not execution.compiled
        self.optimizer = make_optimizer(model, config.optimizer)
        self.loss_of = torch.compile(loss_of, dynamic=False) if execution.compiled else loss_of

    def __call__(
        self, micro_batches: Iterable[Batch], lr_share: float = 1.0
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss before the step and the norm of its gradient, both still on the device.

        `micro_batches` are `config.n_micro_batches` pairs of (token_ids, targets); each group of parameters
        steps at `lr_share` of its highest learning rate.
        """
        device, n_micro_batches = self.execution.device, self.config.n_micro_batches
        loss = torch.zeros((), device=device)
        # Autocast keeps what it has rounded until it is left altogether. Within another one, that is the end
        # of the step: weights are rounded once for all micro-batches (the head's in the loss, each time), and
        # gradients add up in float32.
        with torch.autocast(device.type, enabled=False):
            for batch in micro_batches:
                token_ids, targets = (_send(part, device) for part in batch)
                with self._few_rows_apart():
                    with self.execution.autocast(), self._kernels():
                        # All micro-batches have the same number of tokens: the mean of means is the mean.
                        part = self.loss_of(token_ids, targets) / n_micro_batches
                    part.backward()
                loss += part.detach()
        grad_norm = clip_gradients(self.model.parameters(), self.config.optimizer.grad_clip)
        set_learning_rate(self.optimizer, lr_share)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, grad_norm

    def _kernels(self) -> contextlib.AbstractContextManager[object]:
        """Inside, what is faster on this device than PyTorch's own, which a compiler would not look into."""
        return DifferentiableGELU() if self.runs_plainly else contextlib.nullcontext()

    def _few_rows_apart(self) -> contextlib.AbstractContextManager[object]:
        """Inside, the token embedding's gradient is the rows that were looked up, not a matrix of zeros with
        these among them; behind it they are added to the head's, which is a whole matrix.

        GPT-2 124M's has 38.6 million numbers, to be written, read and added: some percent of a step on a CPU.
        """
        embedding, weight = self.model.token_embedding, self.model.head.weight
        # Whoever has hooked on to the gradient wants the whole of it.
        has_hooks = weight._backward_hooks or weight._post_accumulate_grad_hooks
        if self.runs_plainly and embedding.weight is weight and not has_hooks:
            return _apart(embedding)
        return contextlib.nullcontext()


@contextlib.contextmanager
def _apart(embedding: nn.Embedding) -> Iterator[None]:
    """Inside, the rows of `embedding` have a gradient of their own, added to its weight's at the end."""
    weight, sparse = embedding.weight, embedding.sparse
    rows = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)  # in the same memory
    embedding.weight, embedding.sparse = rows, True
    try:
        yield
    finally:
        embedding.weight, embedding.sparse = weight, sparse
    if rows.grad is not None:
        assert weight.grad is not None  # the head's
        weight.grad += rows.grad


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a GPU from memory that it can read by itself, so that nobody waits."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
