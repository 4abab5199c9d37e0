"""Small models of every kind that the C++ step serves, with weights large enough for mistakes to show."""

import contextlib
import platform
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch

from glassgpt.decoding import NativeStep, build, compiled, why_no_library
from glassgpt.model import GPT, KVCache, ModelConfig

needs_library = pytest.mark.skipif(
    why_no_library() is not None,
    reason=f"needs the C++ step: {why_no_library()}; install a C++ compiler (Debian: apt-get install g++)",
)

_CPUINFO = Path("/proc/cpuinfo")
WORDS = _CPUINFO.read_text().split() if platform.machine() == "x86_64" and _CPUINFO.exists() else None
"""Linux's words for what this processor has, where they are Linux's and x86's."""
OTHER_VENDOR = ["-mno-sse4a" if WORDS and "sse4a" in WORDS else "-msse4a"]
"""The compiler's flag for a library as it is built for the other vendor's processors: prefetch.h tells AMD's
from Intel's by SSE4A."""
needs_packing = pytest.mark.skipif(
    "avx512bw" not in (WORDS or ()),
    reason="needs a processor with AVX-512: elsewhere no weights are packed",
)

# Each value of each field meets each value of the others somewhere.
KINDS = [
    {
        "norm": norm,
        "positions": positions,
        "feedforward": feedforward,
        "n_kv_heads": n_kv_heads,
        "attention_window": window,
        "bias": bias,
        "qkv_bias": not bias,
        "tied_embeddings": bias,
    }
    for norm, (positions, feedforward), (n_kv_heads, window), bias in product(
        ("layernorm", "rmsnorm"),
        (("learned", "gelu"), ("rope", "swiglu"), ("rope", "gelu"), ("none", "swiglu")),
        ((None, None), (2, 5), (1, None)),
        (True, False),
    )
]
KINDS += [{"norm": norm, "norm_eps": 0.5} for norm in ("layernorm", "rmsnorm")]
KINDS += [{"positions": "rope", "rope_theta": 7.0}]


def a_model(**fields) -> GPT:
    torch.manual_seed(3)
    sizes = {"vocab_size": 53, "context_length": 41, "d_model": 64, "n_layers": 2, "n_heads": 4}
    model = GPT(ModelConfig(**(sizes | fields))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 8)
    return model


def logits_of_rows(model: GPT, n_rows: int, batches: list[list[int]]) -> list[torch.Tensor]:
    """The logits of three tokens of each row, row by row, of each batch of rows."""
    torch.manual_seed(11)
    step, token_ids = NativeStep(model), torch.randint(53, (n_rows, 3))

    def logits(rows: list[int]) -> torch.Tensor:
        cache = KVCache(model.config, len(rows), 3)
        return torch.stack([step.logits(token_ids[rows, t].tolist(), cache) for t in range(3)], dim=1)

    return [logits(rows) for rows in batches]


@contextlib.contextmanager
def compiled_with(flags: list[str]) -> Iterator[None]:
    """Inside, the C++ library is one that was compiled with these flags, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_FLAGS", [*build._FLAGS, *flags])
        build._library.cache_clear()
        assert why_no_library() is None
        yield
    build._library.cache_clear()


class CountedLibrary:
    """The C++ library, which notes what is called of it, but for the functions that compute nothing."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __getattr__(self, name: str):
        if name not in ("glassgpt_panel", "glassgpt_has_tiles", "glassgpt_reads_as_amd"):
            self.names.append(name)
        return getattr(build.library(), name)


def record_by_running(monkeypatch) -> list[torch.Tensor]:
    """Let a `CompiledStep` work on a CPU, where a recording runs the step again, plainly; the list grows with
    each that is made."""
    made = []

    def record(run, device):
        output = run()
        made.append(output)
        return lambda: output.copy_(run()), output

    monkeypatch.setattr(compiled, "record", record)
    monkeypatch.setattr(compiled, "_compiled_block", lambda: compiled.block_in_columns)
    return made


def transposed(model: GPT) -> GPT:
    """`model` with its linear layers' weights as Hugging Face's files have them."""
    for module in model.blocks.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(module.weight.detach().T.contiguous().T)
    return model
