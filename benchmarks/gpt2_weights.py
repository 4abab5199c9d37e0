"""GPT-2 124M with random weights whose texts mean nothing and vary, in the formats that everybody loads.

GPT-2's own initial weights repeat one token for ever, a weight three times as large does not; and of 50,257
random scores the two highest lie far enough apart for rounding in float32 never to change their order. What a
token costs does not depend on the weights.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.rows import Setting

if TYPE_CHECKING:
    from glassgpt.model import GPT

LARGER = 3.0


def our_folder(setting: Setting) -> Path:
    return setting.folder / "gpt2-glassgpt"


def their_folder(setting: Setting) -> Path:
    return setting.folder / "gpt2-huggingface"


def write_gpt2(setting: Setting) -> None:
    """Both folders, unless another row has written them."""
    if their_folder(setting).is_dir():
        return
    import torch

    from glassgpt.model import GPT, gpt2
    from glassgpt.pretrained import convert

    torch.manual_seed(0)
    model = GPT(gpt2("124M"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and name != "head.weight":  # the head is the token embedding
                weight.mul_(LARGER)
    model.save_pretrained(our_folder(setting))
    convert(our_folder(setting), their_folder(setting), "huggingface")


def load_ours(setting: Setting, numbers: Literal["float32", "bfloat16", "int8"]) -> "GPT":
    """Ours in float32, or with its weights in "bfloat16" or "int8"."""
    from glassgpt.model import GPT

    model = GPT.from_pretrained(our_folder(setting))
    if numbers == "float32":
        return model
    from glassgpt.decoding import quantize

    return quantize(model, numbers)


def load_theirs(setting: Setting, device: str = "cpu") -> Any:
    """transformers' model in float32."""
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return GPT2LMHeadModel.from_pretrained(their_folder(setting)).to(device).eval()


def random_prompts(n_prompts: int, n_tokens: int) -> list[list[int]]:
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.randint(50_257, (n_prompts, n_tokens), generator=generator).tolist()
