"""AdamW as a GPT uses it: weight decay on matrices only, one fused kernel, clipping without waiting."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glassgpt.training.config import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101) over all parameters of `model`.

    Matrices, the embeddings among them, decay towards 0; vectors (biases and norms) do not: pulling a norm
    to 0 would switch off what it scales. Each group remembers its `highest_lr` for `set_learning_rate`.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=parameters[0].device.type in ("cpu", "cuda", "mps"),
    )
    for group in optimizer.param_groups:
        group["highest_lr"] = config.lr
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give each group `share` of its highest learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * share


def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Float[Tensor, ""]:
    """Scale all gradients together so that their norm is at most `max_norm`; return the norm before.

    g ← g · min(1, max_norm / ‖g‖) (arXiv:1211.5063). The norm stays on the device: nobody waits for it.
    """
    parameters = list(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
