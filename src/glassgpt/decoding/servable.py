"""Which models the decoding step in C++ can serve: those built just as their configuration says.

It knows the layers of a GPT, and calls nothing that somebody has put among them.
"""

import functools

import torch
from torch import Tensor, nn

from glassgpt.decoding.build import why_no_library
from glassgpt.decoding.quantization import QuantizedEmbedding, QuantizedLinear
from glassgpt.model.config import ModelConfig
from glassgpt.model.dropout import Dropout
from glassgpt.model.gpt import GPT

FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
"""Of weights, as products.h numbers them."""
_WIDTH = 64  # numbers that a vector's load takes at most; no row of weights has a rest


def why_not_native(model: GPT) -> str | None:
    """Why the C++ step cannot serve `model`, in a few words; None where it can."""
    config = model.config
    tensors = dict(model.state_dict())
    if elsewhere := {tensor.device for tensor in tensors.values()} - {torch.device("cpu")}:
        return f"the model is on {', '.join(sorted(map(str, elsewhere)))}"
    if strange := {tensor.dtype for tensor in tensors.values()} - FORMATS.keys():
        return f"its weights are {', '.join(sorted(str(dtype).removeprefix('torch.') for dtype in strange))}"
    if config.d_model % _WIDTH or config.hidden_width % _WIDTH or config.d_head % 16:
        return (
            f"its widths are not multiples of {_WIDTH} (d_model {config.d_model}, d_ff "
            f"{config.hidden_width}) or of 16 (d_head {config.d_head})"
        )
    return _why_another_model(model) or why_no_library()


def _why_another_model(model: GPT) -> str | None:
    """What `model` has in other places, types or shapes than a GPT of its configuration, if anything: the
    step would compute as if it had not."""
    kinds, shapes = _anatomy(model.config)
    modules = dict(model.named_modules())
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        return "there are hooks for all modules, which it would not call"
    if unknown := sorted(modules.keys() ^ kinds.keys()):
        return f"it differs from its configuration in {unknown[0]}"
    for name, module in modules.items():
        place = name or "the model"
        if type(module) not in (kinds[name], _AS_GOOD.get(kinds[name])):
            return f"{place} is a {type(module).__name__}, which it does not know"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{place} has hooks, which it would not call"
        if "forward" in vars(module):
            return f"{place} has a forward of its own, which it would not call"
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.eps != model.config.norm_eps:
            return f"{place} has eps={module.eps}, not {model.config.norm_eps}"
        if isinstance(module, nn.Embedding) and module.max_norm is not None:
            return f"{place} has a max_norm, which it does not know"
    tensors = dict(
        [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    )
    for name, tensor in tensors.items():
        if type(tensor) not in (Tensor, nn.Parameter):
            return f"{name} is a {type(tensor).__name__}, which it does not know"
    scales = {}  # that belong to the 8-bit matrices, and to no others
    for name in shapes:
        if name in tensors and tensors[name].dtype == torch.int8:
            scales[name.removesuffix("weight") + "scale"] = shapes[name][:1]
    needed = {**shapes, **scales}
    if unknown := sorted(tensors.keys() ^ needed.keys()):
        return f"it differs from its configuration in {unknown[0]}"
    for name, shape in needed.items():
        if tensors[name].shape != shape:
            return f"{name} has the shape {tuple(tensors[name].shape)}, not {tuple(shape)}"
    return None


_AS_GOOD: dict[type, type] = {
    nn.Linear: QuantizedLinear,
    nn.Embedding: QuantizedEmbedding,
    Dropout: nn.Dropout,
}


@functools.lru_cache(maxsize=8)
def _anatomy(config: ModelConfig) -> tuple[dict[str, type], dict[str, torch.Size]]:
    """The type of each module and the shape of each weight of a GPT of that configuration."""
    model = GPT.uninitialised(config, device="meta")
    kinds = {name: type(module) for name, module in model.named_modules()}
    return kinds, {name: tensor.shape for name, tensor in model.state_dict().items()}
