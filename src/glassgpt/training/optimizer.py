"""AdamW as a GPT uses it: weight decay on matrices only, one fused kernel, clipping without waiting."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glassgpt.errors import ConfigError, raise_problems
from glassgpt.training.config import OptimizerConfig
from glassgpt.training.muon import Muon


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) over all parameters of `model`; with name="muon", Muon over the matrices
    inside the blocks and AdamW over the rest.

    Matrices, the embeddings among them, decay towards 0; vectors (biases and norms) do not: pulling a norm
    to 0 would switch off what it scales. Each group remembers its `highest_lr` for `set_learning_rate`.

    Raises ConfigError for settings out of range, and when all parameters are frozen.
    """
    raise_problems(ConfigError, list(config.problems()), "The optimizer's configuration")
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        raise ConfigError("All parameters of the model are frozen. Set requires_grad on those to be trained.")
    vectors = [parameter for _, parameter in named if parameter.dim() < 2]
    muon = config.name == "muon"
    inner = [p for name, p in named if muon and p.dim() == 2 and name.startswith("blocks.")]
    inner_ids = {id(parameter) for parameter in inner}
    outer = [p for _, p in named if p.dim() >= 2 and id(p) not in inner_ids]
    groups = [
        {"params": outer, "lr": config.lr, "weight_decay": config.weight_decay, "muon": False},
        {"params": vectors, "lr": config.lr, "weight_decay": 0.0, "muon": False},
        {"params": inner, "lr": config.muon_lr, "weight_decay": config.weight_decay, "muon": True},
    ]
    kind = Muon if muon else torch.optim.AdamW
    return kind(
        [group | {"highest_lr": group["lr"]} for group in groups if group["params"]],
        betas=config.betas,
        eps=config.eps,
        fused=named[0][1].device.type in ("cpu", "cuda", "mps"),
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give each group `share` of its highest learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * share


def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Float[Tensor, ""]:
    """Scale all gradients together so that their norm is at most `max_norm`; return the norm before.

    g ← g · min(1, max_norm / ‖g‖) (arXiv:1211.5063). On an accelerator the norm stays there, and nobody waits
    for it; a CPU has it at hand, and need not multiply by 1.
    """
    parameters = list(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if max_norm is not None and (norm.device.type != "cpu" or not norm <= max_norm):
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
